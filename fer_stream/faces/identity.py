"""Detections → persons: one number per person for as long as the pictures justify it.

A `FaceTracker` joins the boxes of neighbouring frames. `Identities` stands in front of it and adds what a box
tracker does not know:

- a cut ends every track, so that a number never passes to another person across it;
- the first detection of a track, which the tracker leaves open, gets its number afterwards;
- a face that went away and comes back to the same place at the same size is the same person, if exactly one lost
  person fits and no other new face does. Everywhere else a new number is right: boxes alone cannot tell who it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fer_stream.config import TrackerSettings
from fer_stream.records import F32, I64, Detections, Frame

# A face that returns must be within so many of its own sides of where it left, and its side within this ratio.
# People who step out of view and back in are further off than that; a wrong join is worse than a new number.
_RELINK_DISTANCE = 0.75
_RELINK_RATIO = 1.4

# Of a face that was followed between two looks with where it was found; ByteTrack asks for 0.1.
_TOLD_OVERLAP = 0.6


class FaceTracker(Protocol):
    """Joins boxes over time."""

    def update(self, detections: Detections, time_s: float) -> I64:
        """The track of each detection, int64 (n,); -1 where none is sure yet. No number is used twice."""
        ...


@dataclass(frozen=True, slots=True)
class Backfill:
    """A detection of an earlier frame whose person is known by now: `row` of frame `frame_index`."""

    frame_index: int
    row: int
    track_id: int


@dataclass(frozen=True, slots=True, eq=False)
class TrackAssignment:
    """The persons of one frame: `track_ids` int64 (n,), -1 where still open, and news of the frame before.

    An open detection is settled by the next frame: it is in that frame's `earlier`, or it is nobody.
    """

    track_ids: I64
    backfills: tuple[Backfill, ...]


class IdentityAssigner(Protocol):
    """Says who the faces of a frame are."""

    def update(self, detections: Detections, frame: Frame) -> TrackAssignment:
        """Identify the faces that were found in the next frame."""
        ...

    def propagate(self, detections: Detections, frame: Frame) -> None:
        """In the next frame, the faces of known persons were followed to these places, and nobody else looked for."""
        ...

    def reset(self) -> None:
        """A new shot begins with the next frame: nobody in it is known."""
        ...


class NoTracking:
    """For pictures that have nothing to do with each other: every face is a person of its own."""

    def __init__(self) -> None:
        self._last_id = 0

    def update(self, detections: Detections, frame: Frame) -> TrackAssignment:  # noqa: ARG002 - see Identifier
        """Number the faces on from the last picture."""
        first, self._last_id = self._last_id + 1, self._last_id + len(detections)
        return TrackAssignment(np.arange(first, self._last_id + 1, dtype=np.int64), ())

    def propagate(self, detections: Detections, frame: Frame) -> None:
        """See `Identifier`."""

    def reset(self) -> None:
        """See `Identifier`."""


@dataclass(slots=True, eq=False)
class _Person:
    track_id: int
    xyxy: F32
    seen_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Tentative:
    frame_index: int
    time_s: float
    row: int
    xyxy: F32


class IdentityTracker:
    """Numbers the persons of one stream from 1 up, in the order in which they are first seen."""

    def __init__(self, make_tracker: Callable[[], FaceTracker], settings: TrackerSettings) -> None:
        self._make_tracker = make_tracker
        self._tracker = make_tracker()
        self._away_s = settings.track_timeout_s + settings.reassociate_s
        self._people: dict[int, _Person] = {}
        self._tentative: list[_Tentative] = []
        self._last_reported_boxes = Detections.none().xyxy
        self._last_id = 0

    def update(self, detections: Detections, frame: Frame) -> TrackAssignment:
        """Identify the faces that were found in the next frame."""
        self._forget(before_s=frame.time_s - self._away_s)
        tracks = self._tracker.update(detections, frame.time_s)
        new = {int(track): row for row, track in enumerate(tracks) if track >= 0 and int(track) not in self._people}
        origins = self._match_tentative(new, detections.xyxy)
        self._assign_ids(new, origins, detections.xyxy, tracks, frame.time_s)
        earlier = tuple(
            Backfill(origin.frame_index, origin.row, self._people[track].track_id)
            for track, origin in origins.items()
        )
        return TrackAssignment(self._update(tracks, detections.xyxy, frame), earlier)

    def propagate(self, detections: Detections, frame: Frame) -> None:
        """See `Identifier`."""
        overlaps = map(_overlap, self._last_reported_boxes, detections.xyxy)
        # The tracker joins boxes by overlap: it must hear of a face before that is too far from where it was known.
        if min(overlaps, default=1.0) < _TOLD_OVERLAP:
            self._tracker.update(detections, frame.time_s)
            self._last_reported_boxes = detections.xyxy

    def reset(self) -> None:
        """See `Identifier`."""
        self._tracker = self._make_tracker()
        self._people.clear()
        self._tentative.clear()

    def _forget(self, before_s: float) -> None:
        for track in [track for track, person in self._people.items() if person.seen_s < before_s]:
            del self._people[track]

    def _match_tentative(self, new: dict[int, int], xyxy: F32) -> dict[int, _Tentative]:
        """The open detection of the frame before that each new track began with: the best overlap, each used once."""
        origins: dict[int, _Tentative] = {}
        free = list(self._tentative)
        for track, row in sorted(new.items()):
            best = max(free, key=lambda seen: _overlap(seen.xyxy, xyxy[row]), default=None)
            if best is not None and _overlap(best.xyxy, xyxy[row]) > 0:
                origins[track] = best
                free.remove(best)
        return origins

    def _assign_ids(self, new: dict[int, int], origins: dict[int, _Tentative], xyxy: F32, tracks: I64, now_s: float) -> None:
        """Give each new track its person: one who returns, or somebody new."""
        began_s = {track: origins[track].time_s if track in origins else now_s for track in new}
        present = set(tracks.tolist())
        fits = {
            track: [
                old
                for old, person in self._people.items()
                if old not in present and person.seen_s < began_s[track] and _same_place(person.xyxy, xyxy[row])
            ]
            for track, row in new.items()
        }
        claims = [old for candidates in fits.values() for old in candidates]
        for track, candidates in sorted(fits.items()):
            if len(candidates) == 1 and claims.count(candidates[0]) == 1:
                self._people[track] = self._people.pop(candidates[0])
            else:
                self._last_id += 1
                self._people[track] = _Person(self._last_id, xyxy[new[track]], now_s)

    def _update(self, tracks: I64, xyxy: F32, frame: Frame) -> I64:
        """Note where everybody is, and which detections are open."""
        self._last_reported_boxes = xyxy[tracks >= 0]
        track_ids = np.full(len(tracks), -1, np.int64)
        self._tentative = []
        for row, track in enumerate(tracks.tolist()):
            if track < 0:
                self._tentative.append(_Tentative(frame.index, frame.time_s, row, xyxy[row]))
                continue
            person = self._people[track]
            person.xyxy, person.seen_s = xyxy[row], frame.time_s
            track_ids[row] = person.track_id
        return track_ids


def _overlap(a: F32, b: F32) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    return shared / (_area(a) + _area(b) - shared)


def _area(box: F32) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _same_place(a: F32, b: F32) -> bool:
    side_a, side_b = _side(a), _side(b)
    if max(side_a, side_b) > _RELINK_RATIO * min(side_a, side_b):
        return False
    distance = float(np.hypot(*((a[:2] + a[2:]) - (b[:2] + b[2:])))) / 2
    return distance <= _RELINK_DISTANCE * min(side_a, side_b)


def _side(box: F32) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))
