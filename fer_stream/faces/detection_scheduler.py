"""Scheduling of the detector, and the faces of the frames between two detections.

Detection costs more than all other steps of a frame, and faces move little between frames. The detector therefore
runs at an interval, and additionally after events that tracking cannot handle: a scene cut, and a face that appears,
disappears or is lost. In between, a `TemplateTracker` locates the faces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from fer_stream.faces.crop import downscale
from fer_stream.records import I64, TIMESTAMP_TOLERANCE_S, U8, Detections

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


@dataclass(frozen=True, slots=True, eq=False)
class PropagatedFaces:
    """Faces of a frame in which the detector did not run, and their person ids, int64 (n,)."""

    detections: Detections
    person_ids: I64


class DetectionScheduler:
    """Decides in which frames the detector runs, and tracks the faces in the others.

    Detection is due `interval_s` after the last one; 0 means every frame. Detection also runs on the frame after a
    face appeared, disappeared or scored below `min_confidence`.
    """

    def __init__(self, *, interval_s: float, min_confidence: float) -> None:
        self._interval_s = interval_s
        self._min_confidence = min_confidence
        self._tracker = TemplateTracker()
        self._due_s = -np.inf
        self._person_ids: I64 = np.empty(0, np.int64)

    def propagate(self, gray: U8, time_s: float) -> PropagatedFaces | None:
        """Return the faces of the next frame, `gray` uint8 (H, W), or None if detection is due."""
        if time_s + TIMESTAMP_TOLERANCE_S >= self._due_s:
            return None
        faces = self._tracker.update(gray)
        return None if faces is None else PropagatedFaces(faces, self._person_ids)

    def update(self, gray: U8, time_s: float, detections: Detections, person_ids: I64) -> None:
        """Continue from the detections of a frame; `person_ids` int64 (n,) is -1 for tentative faces."""
        assigned = person_ids >= 0
        certain = bool(assigned.all() and (detections.confidence >= self._min_confidence).all())
        unchanged = certain and set(person_ids.tolist()) == set(self._person_ids.tolist())
        self._person_ids = person_ids[assigned]
        self._due_s = time_s + self._interval_s if unchanged else time_s
        landmarks = None if detections.landmarks is None else detections.landmarks[assigned]
        self._tracker.init(gray, Detections(detections.xyxy[assigned], detections.confidence[assigned], landmarks))

    def reset(self) -> None:
        """Discard all faces: detection is due in the next frame."""
        self._due_s = -np.inf
        self._person_ids = np.empty(0, np.int64)
