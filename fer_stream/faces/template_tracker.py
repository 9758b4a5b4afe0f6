"""Tracking of faces between two detections by template matching.

Each face is searched near its last position by normalised cross-correlation (NCC) with its appearance at the last
detection, in a downscaled grayscale frame (Lewis, "Fast Normalized Cross-Correlation", 1995). A low NCC shows that a
face is lost, so the tracker can replace the detector between two detections. Size and rotation remain those of the
last detection.

Lucas-Kanade optical flow gives the same boxes at three times the cost (docs/evidence/parameters.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from fer_stream.faces.crop import downscale
from fer_stream.records import U8, Detections

FACE_PX = 48
"""The frame is halved until the smallest face is not larger than this: finer detail costs time without any gain."""

MIN_FACE_PX = 8
"""Faces smaller than this in the original frame are not tracked: they resemble many other places."""

SEARCH_MARGIN = 0.25
"""Maximum movement between frames, in sides of the face: 6 face widths per second at 24 fps."""

INNER_FRACTION = 0.8
"""Central part of the box that is compared: the corners show the background."""

MIN_NCC = 0.8
"""A face is lost if its NCC with the template is below this."""


class TemplateTracker:
    """Tracks the faces of one frame through the following frames."""

    def __init__(self) -> None:
        self._faces = Detections.none()
        self._shape: tuple[int, ...] = ()
        self._levels = 0
        self._templates: list[Template] = []

    def init(self, gray: U8, faces: Detections) -> None:
        """Start with the detections `faces` of the frame `gray`, uint8 (H, W)."""
        self._faces, self._shape = faces, gray.shape
        self._levels = math.ceil(math.log2(max(1.0, _min_side_px(faces) / FACE_PX)))
        if len(faces):
            small = downscale(gray, self._levels)
            self._templates = [Template.of(small, box) for box in (faces.xyxy / 2**self._levels).tolist()]

    def update(self, gray: U8) -> Detections | None:
        """Return the same faces, in the same order, in the next frame; None if any of them is lost."""
        if gray.shape != self._shape:
            return None
        if len(self._faces) == 0:
            return self._faces
        if _min_side_px(self._faces) < MIN_FACE_PX:
            return None
        small = downscale(gray, self._levels)
        if not all(template.find(small) for template in self._templates):
            return None
        offsets = np.array([template.offset for template in self._templates], np.float32)[:, None] * 2**self._levels
        xyxy = (self._faces.xyxy.reshape(-1, 2, 2) + offsets).reshape(-1, 4)
        landmarks = None if self._faces.landmarks is None else self._faces.landmarks + offsets
        return Detections(xyxy, self._faces.confidence, landmarks)


@dataclass(slots=True)
class Template:
    """Pixels of a face at the last detection, their position, and the offset since then, in px of the small frame."""

    pixels: U8
    left: int
    top: int
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, small: U8, box: Iterable[float]) -> Template:
        """Return the central part of `box` inside the frame; at least one pixel."""
        x1, y1, x2, y2 = box
        columns = _central(x1, x2, small.shape[1])
        rows = _central(y1, y2, small.shape[0])
        return cls(small[rows, columns], columns.start, rows.start)

    def find(self, small: U8) -> bool:
        """Search the face around its last position, update `offset`, and return whether it was found."""
        height, width = self.pixels.shape
        margin = max(2, round(SEARCH_MARGIN * max(height, width)))
        left = max(0, self.left + round(self.offset[0]) - margin)
        top = max(0, self.top + round(self.offset[1]) - margin)
        window = small[top : top + height + 2 * margin, left : left + width + 2 * margin]
        if window.shape[0] < height or window.shape[1] < width:
            return False
        ncc = cv2.matchTemplate(window, self.pixels, cv2.TM_CCOEFF_NORMED)
        _, best, _, (column, row) = cv2.minMaxLoc(ncc)
        if not best >= MIN_NCC:  # also if it is NaN
            return False
        x = left + column + _subpixel_peak(ncc[row].tolist(), column)
        y = top + row + _subpixel_peak(ncc[:, column].tolist(), row)
        self.offset = x - self.left, y - self.top
        return True


def _min_side_px(faces: Detections) -> float:
    """Return the shortest side of all boxes; 0 without boxes."""
    return float((faces.xyxy[:, 2:] - faces.xyxy[:, :2]).min()) if len(faces) else 0.0


def _central(start: float, end: float, limit: int) -> slice:
    """Return the central part of start … end in whole px inside 0 … limit; never empty."""
    margin = (1 - INNER_FRACTION) / 2 * (end - start)
    first = min(max(round(start + margin), 0), limit - 1)
    return slice(first, max(min(round(end - margin), limit), first + 1))


def _subpixel_peak(values: list[float], index: int) -> float:
    """Return the offset, −0.5..0.5, of the vertex of a parabola through the maximum at `index` and its neighbours."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, top, after = values[index - 1 : index + 2]
    curvature = before - 2 * top + after
    return (before - after) / (2 * curvature) if curvature < 0 else 0.0
