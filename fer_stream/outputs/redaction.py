"""Making faces unrecognisable, in every frame in which they can be."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from fer_stream.records import F32, U8, LabelledFrame

REDACTION_HOLD_S = 0.5
"""For so long before and after a detection the face is taken to be there, found or not."""

_MARGIN = 0.3
"""The cover reaches so far over the box on each side, in parts of the box: hair and ears tell people apart too."""

_CELLS = 8
"""Pixels that are left along the longer side of a cover: five across the face, too few for its features."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """How faces are covered, and whose; `people` None is everybody."""

    kind: Literal["blur", "black"]
    people: frozenset[int] | None = None

    def applies_to(self, person: int) -> bool:
        """Is `person` one of those to cover?"""
        return self.people is None or person in self.people


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    time_s: float
    box: F32


def with_redactions(
    frames: Iterable[LabelledFrame], redaction: Redaction | None, hold_s: float = REDACTION_HOLD_S
) -> Iterator[tuple[LabelledFrame, list[F32]]]:
    """Each frame with the boxes (float32 (4,), xyxy px) to cover in it; runs `hold_s` behind `frames`.

    A single bare frame gives a face away, so a box also covers the frames up to `hold_s` before and after it in
    which the face was not found; between two detections the cover moves from one to the other.
    """
    if redaction is None:
        yield from ((frame, []) for frame in frames)
        return
    waiting: deque[LabelledFrame] = deque()
    past: dict[int, _Sighting] = {}
    for frame in frames:
        waiting.append(frame)
        while frame.time_s - waiting[0].time_s > hold_s:
            yield waiting[0], _covers(waiting, past, redaction, hold_s)
            waiting.popleft()
    while waiting:
        yield waiting[0], _covers(waiting, past, redaction, hold_s)
        waiting.popleft()


def _covers(
    waiting: deque[LabelledFrame], past: dict[int, _Sighting], redaction: Redaction, hold_s: float
) -> list[F32]:
    """The covers of the first frame of `waiting`. `past` holds the last sightings and is brought up to it."""
    now_s = waiting[0].time_s
    past.update(_sightings([waiting[0]], redaction))
    for person in [person for person, seen in past.items() if now_s - seen.time_s > hold_s]:
        del past[person]
    soon = _sightings((frame for frame in reversed(waiting) if frame.time_s - now_s <= hold_s), redaction)
    alone = [soon[person].box for person in soon.keys() - past.keys()]
    return alone + [_between(seen, soon.get(person, seen), now_s) for person, seen in past.items()]


def _sightings(frames: Iterable[LabelledFrame], redaction: Redaction) -> dict[int, _Sighting]:
    return {
        face.person_id: _Sighting(frame.time_s, face.xyxy)
        for frame in frames
        for face in frame.faces
        if redaction.applies_to(face.person_id)
    }


def _between(before: _Sighting, after: _Sighting, now_s: float) -> F32:
    if after.time_s <= before.time_s:
        return before.box
    part = np.float32((now_s - before.time_s) / (after.time_s - before.time_s))
    return before.box + part * (after.box - before.box)


def redact_region(image: U8, box: F32, kind: Literal["blur", "black"]) -> None:
    """Cover `box` (xyxy px, may reach over the edge) and a margin around it, in `image` (H, W, 3) itself."""
    x1, y1, x2, y2 = box.tolist()
    dx, dy = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
    height, width = image.shape[:2]
    left, right = (min(max(round(x), 0), width) for x in (x1 - dx, x2 + dx))
    top, bottom = (min(max(round(y), 0), height) for y in (y1 - dy, y2 + dy))
    area = image[top:bottom, left:right]
    if area.size == 0:
        return
    if kind == "black":
        area[:] = 0
        return
    cell_px = max(x2 - x1 + 2 * dx, y2 - y1 + 2 * dy) / _CELLS
    cells = max(1, round((right - left) / cell_px)), max(1, round((bottom - top) / cell_px))
    few = cv2.resize(area, cells, interpolation=cv2.INTER_AREA)
    area[:] = cv2.resize(few, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
