"""Where faces went since they were last looked at.

Each face is looked for again, near where it was in the picture before, by normalised cross-correlation with what it
looked like then, in a small gray picture (Lewis, "Fast Normalized Cross-Correlation", 1995). The correlation tells
when a face is lost, and so it may stand in for a detector between two looks. Size and turn are those of the last
look.

Lucas-Kanade flow gives the same boxes at three times the cost (docs/evidence/parameters.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from fer_stream.records import U8, Detections

_FACE_PX = 48
"""The picture is halved until the smallest face is no larger than this: finer detail costs time and adds nothing."""

_MIN_FACE_PX = 8
"""A face that is smaller in the picture itself looks like many other places."""

SEARCH_MARGIN = 0.25
"""How far from its last place a face is looked for, in its own sides: 6 face widths a second at 24 fps."""

_INNER = 0.8
"""The part of the box that is compared: towards its corners lies what is behind the face."""

MIN_NCC = 0.8
"""A face that correlates less with what it looked like is lost."""


class TemplateTracker:
    """Follows the faces of one picture through the pictures after it."""

    def __init__(self) -> None:
        self._faces = Detections.none()
        self._shape: tuple[int, ...] = ()
        self._halvings = 0
        self._patches: list[Template] = []

    def init(self, gray: U8, faces: Detections) -> None:
        """The `faces` of the picture `gray`, uint8 (H, W), are where to go on from."""
        self._faces, self._shape = faces, gray.shape
        smallest_px = _smallest_px(faces)
        self._halvings = math.ceil(math.log2(max(1.0, smallest_px / _FACE_PX)))
        if len(faces):
            small = _halved(gray, self._halvings)
            self._patches = [Template.of(small, box) for box in (faces.xyxy / 2**self._halvings).tolist()]

    def update(self, gray: U8) -> Detections | None:
        """The same faces, in the same order, in the next picture; None where it is not sure of one of them."""
        if gray.shape != self._shape:
            return None
        if len(self._faces) == 0:
            return self._faces
        if _smallest_px(self._faces) < _MIN_FACE_PX:
            return None
        small = _halved(gray, self._halvings)
        if not all(patch.find(small) for patch in self._patches):
            return None
        shift = np.array([patch.offset for patch in self._patches], np.float32)[:, None] * 2**self._halvings
        xyxy = (self._faces.xyxy.reshape(-1, 2, 2) + shift).reshape(-1, 4)
        landmarks = None if self._faces.landmarks is None else self._faces.landmarks + shift
        return Detections(xyxy, self._faces.confidence, landmarks)


@dataclass(slots=True)
class Template:
    """What a face looked like, where that was, and how far it went since, in px of the small picture."""

    pixels: U8
    left: int
    top: int
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, small: U8, box: Iterable[float]) -> Template:
        """The middle of `box`, as far as it lies in the picture; at least one pixel."""
        x1, y1, x2, y2 = box
        columns = _within(x1, x2, small.shape[1])
        rows = _within(y1, y2, small.shape[0])
        return cls(small[rows, columns], columns.start, rows.start)

    def find(self, small: U8) -> bool:
        """Look for the face around its last place; is it there?"""
        height, width = self.pixels.shape
        reach = max(2, round(SEARCH_MARGIN * max(height, width)))
        left = max(0, self.left + round(self.offset[0]) - reach)
        top = max(0, self.top + round(self.offset[1]) - reach)
        window = small[top : top + height + 2 * reach, left : left + width + 2 * reach]
        if window.shape[0] < height or window.shape[1] < width:
            return False
        likeness = cv2.matchTemplate(window, self.pixels, cv2.TM_CCOEFF_NORMED)
        _, best, _, (column, row) = cv2.minMaxLoc(likeness)
        if not best >= MIN_NCC:
            return False
        x = left + column + _peak(likeness[row].tolist(), column)
        y = top + row + _peak(likeness[:, column].tolist(), row)
        self.offset = x - self.left, y - self.top
        return True


def _smallest_px(faces: Detections) -> float:
    """The shortest side of all boxes; 0 where there is none."""
    return float((faces.xyxy[:, 2:] - faces.xyxy[:, :2]).min()) if len(faces) else 0.0


def _within(start: float, end: float, limit: int) -> slice:
    """The middle part of start … end, in whole px inside 0 … limit; never empty."""
    margin = (1 - _INNER) / 2 * (end - start)
    first = min(max(round(start + margin), 0), limit - 1)
    return slice(first, max(min(round(end - margin), limit), first + 1))


def _halved(gray: U8, times: int) -> U8:
    """`gray` at 1/2, 1/4, … of its size: OpenCV shrinks by two many times as fast as by anything else."""
    for _ in range(times):
        height, width = gray.shape[0] // 2, gray.shape[1] // 2
        half = cv2.resize(gray[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        gray = np.asarray(half, np.uint8)
    return gray


def _peak(values: list[float], at: int) -> float:
    """How far beside `at`, −0.5..0.5, the parabola through the highest value and its neighbours has its top."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, top, after = values[at - 1 : at + 2]
    bend = before - 2 * top + after
    return (before - after) / (2 * bend) if bend < 0 else 0.0
