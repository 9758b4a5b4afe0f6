"""Redaction of faces: which regions of which frames, and how."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    from fer_stream.records import F32, U8, LabelledFrame

REDACTION_HOLD_S = 0.5
"""Time before and after a detection during which the face is redacted although it was not detected."""

_MARGIN = 0.3
"""Extension of the region on each side, relative to the box, because hair and ears identify people too."""

_CELLS = 8
"""Pixels kept along the longer side of a blurred region: five across the face, too few for its features."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """How faces are redacted, and whose; `person_ids` None is everyone."""

    kind: Literal["blur", "black"]
    person_ids: frozenset[int] | None = None

    @classmethod
    def from_settings(
        cls, redact: Literal["none", "blur", "black"], person_ids: Collection[int] | None = None
    ) -> Redaction | None:
        """Return the redaction that settings select; None for `none`."""
        if redact == "none":
            return None
        return cls(redact, None if person_ids is None else frozenset(person_ids))

    def applies_to(self, person_id: int) -> bool:
        """Return whether the person is redacted."""
        return self.person_ids is None or person_id in self.person_ids


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    time_s: float
    box: F32


def with_redactions(
    frames: Iterable[LabelledFrame], redaction: Redaction | None, hold_s: float = REDACTION_HOLD_S
) -> Iterator[tuple[LabelledFrame, list[F32]]]:
    """Yield each frame with the boxes, float32 (4,) xyxy px, to redact in it; delays frames by `hold_s`.

    A single unredacted frame reveals a face, so a box also applies to frames up to `hold_s` before and after it in
    which the face was not detected. Between two detections the region moves from one to the other.
    """
    if redaction is None:
        yield from ((frame, []) for frame in frames)
        return
    pending: deque[LabelledFrame] = deque()
    past: dict[int, _Sighting] = {}
    for frame in frames:
        pending.append(frame)
        while frame.time_s - pending[0].time_s > hold_s:
            yield pending[0], _regions(pending, past, redaction, hold_s)
            pending.popleft()
    while pending:
        yield pending[0], _regions(pending, past, redaction, hold_s)
        pending.popleft()


def _regions(
    pending: deque[LabelledFrame], past: dict[int, _Sighting], redaction: Redaction, hold_s: float
) -> list[F32]:
    """Return the boxes for the first frame of `pending`, and update `past`, the last sightings, to it."""
    now_s = pending[0].time_s
    past.update(_sightings([pending[0]], redaction))
    for person in [person for person, sighting in past.items() if now_s - sighting.time_s > hold_s]:
        del past[person]
    future = _sightings((frame for frame in reversed(pending) if frame.time_s - now_s <= hold_s), redaction)
    new = [future[person].box for person in future.keys() - past.keys()]
    return new + [_interpolate(seen, future.get(person, seen), now_s) for person, seen in past.items()]


def _sightings(frames: Iterable[LabelledFrame], redaction: Redaction) -> dict[int, _Sighting]:
    """Return the sighting of each redacted person in the last of `frames` that contains them."""
    return {
        face.person_id: _Sighting(frame.time_s, face.xyxy)
        for frame in frames
        for face in frame.faces
        if redaction.applies_to(face.person_id)
    }


def _interpolate(before: _Sighting, after: _Sighting, now_s: float) -> F32:
    if after.time_s <= before.time_s:
        return before.box
    fraction = np.float32((now_s - before.time_s) / (after.time_s - before.time_s))
    return before.box + fraction * (after.box - before.box)


def redact_region(image: U8, box: F32, kind: Literal["blur", "black"]) -> None:
    """Redact `box` (xyxy px, may extend beyond the edge) and a margin around it in `image` (H, W, 3), in place."""
    x1, y1, x2, y2 = box.tolist()
    dx, dy = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
    height, width = image.shape[:2]
    left, right = (min(max(round(x), 0), width) for x in (x1 - dx, x2 + dx))
    top, bottom = (min(max(round(y), 0), height) for y in (y1 - dy, y2 + dy))
    region = image[top:bottom, left:right]
    if region.size == 0:
        return
    if kind == "black":
        region[:] = 0
        return
    cell_px = max(x2 - x1 + 2 * dx, y2 - y1 + 2 * dy) / _CELLS
    cells = max(1, round((right - left) / cell_px)), max(1, round((bottom - top) / cell_px))
    coarse = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
    region[:] = cv2.resize(coarse, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
