"""Detections → person ids: one number per person for as long as the boxes justify it.

A `FaceTracker` associates the boxes of neighbouring frames. `IdentityTracker` wraps one and adds what a box tracker
does not provide:

- A scene cut ends all tracks, so that a number never passes to another person. After a flash they continue.
- The first detection of a track, which the tracker leaves tentative, gets its number afterwards.
- A frame without neighbours, such as a still image, confirms its own detections: there is nothing to compare with.
- A face that reappears in the same place with the same size gets its number back if exactly one lost person and no
  other new face fit. In all other cases it gets a new number: boxes alone cannot identify people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fer_stream.faces.detector import iou_matrix
from fer_stream.records import F32, I64, Detections, Frame

if TYPE_CHECKING:
    from fer_stream.config.settings import TrackerSettings

# Maximum distance of a reappearing face from its last place, in sides of the box, and maximum ratio of the sides.
# People who leave and re-enter the view are further away; a wrong number is worse than a new one.
_REASSOCIATE_DISTANCE = 0.75
_REASSOCIATE_RATIO = 1.4

# Frames further apart than this, in seconds, do not confirm each other's detections: a person may have moved or left.
# The default of `tracker.track_timeout_s`.
_MAX_CONFIRMATION_S = 1.0

# Minimum IoU of a propagated face with the box last reported to the tracker. ByteTrack itself needs 0.1.
_MIN_REPORTED_IOU = 0.6


class FaceTracker(Protocol):
    """Associates boxes over time."""

    def update(self, detections: Detections, time_s: float) -> I64:
        """Return the track id of each detection, int64 (n,); -1 if not confirmed yet. No id is used twice."""
        ...


@dataclass(frozen=True, slots=True)
class Backfill:
    """Person id, found later, of a tentative detection: `row` of frame `frame_index`."""

    frame_index: int
    row: int
    person_id: int


@dataclass(frozen=True, slots=True, eq=False)
class TrackAssignment:
    """Person ids of the detections of one frame, and ids for tentative detections of the frame before.

    `track_ids` is int64 (n,), -1 for tentative detections. A tentative detection gets its id by a backfill of the
    next frame or never.
    """

    person_ids: I64
    backfills: tuple[Backfill, ...]


class IdentityAssigner(Protocol):
    """Assigns person ids to the faces of consecutive frames."""

    def update(self, detections: Detections, frame: Frame) -> TrackAssignment:
        """Assign ids to the faces that the detector found in the next frame."""
        ...

    def propagate(self, detections: Detections, frame: Frame) -> None:
        """Report where known faces are in the next frame, in which the detector did not run."""
        ...

    def reset(self) -> tuple[Backfill, ...]:
        """End the scene: no face continues in the next frame. Return the ids of tentative detections, if any."""
        ...

    def restore(self) -> None:
        """Continue with the faces before the last `reset`, which was a flash."""
        ...


@dataclass(slots=True, eq=False)
class _Person:
    person_id: int
    xyxy: F32
    last_seen_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Tentative:
    frame_index: int
    time_s: float
    row: int
    xyxy: F32


class IdentityTracker:
    """Numbers the persons of one stream from 1, in the order of their first appearance."""

    def __init__(self, make_tracker: Callable[[], FaceTracker], settings: TrackerSettings) -> None:
        self._make_tracker = make_tracker
        self._tracker = make_tracker()
        self._max_absence_s = settings.track_timeout_s + settings.reassociate_s
        self._people: dict[int, _Person] = {}
        """By track id."""
        self._before_reset = self._tracker, self._people
        self._tentative: list[_Tentative] = []
        self._last_reported_boxes = Detections.none().xyxy
        self._last_id = 0
        self._last_frame_s = -math.inf
        self._isolated = True
        """Whether no frame of the scene precedes the last frame closely enough to confirm its detections."""

    def update(self, detections: Detections, frame: Frame) -> TrackAssignment:
        """Assign ids to the faces that the detector found in the next frame."""
        isolated = self._advance(frame.time_s)
        self._remove_absent(before_s=frame.time_s - self._max_absence_s)
        tracks = self._tracker.update(detections, frame.time_s)
        new = {int(track): row for row, track in enumerate(tracks) if track >= 0 and int(track) not in self._people}
        origins = self._match_tentative(new, detections.xyxy)
        matched = {origin.row for origin in origins.values()}
        backfills = self._confirm(matched) if isolated else ()
        self._assign_ids(new, origins, detections.xyxy, tracks, frame.time_s)
        backfills += tuple(
            Backfill(origin.frame_index, origin.row, self._people[track].person_id)
            for track, origin in origins.items()
        )
        return TrackAssignment(self._update(tracks, detections.xyxy, frame), backfills)

    def propagate(self, detections: Detections, frame: Frame) -> None:
        """See `IdentityAssigner.propagate`."""
        self._advance(frame.time_s)
        iou = iou_matrix(self._last_reported_boxes, detections.xyxy).diagonal()
        # The tracker associates by IoU, so it must be updated before a face is too far from its last reported box.
        if iou.min(initial=1.0) < _MIN_REPORTED_IOU:
            self._tracker.update(detections, frame.time_s)
            self._last_reported_boxes = detections.xyxy

    def reset(self) -> tuple[Backfill, ...]:
        """See `IdentityAssigner.reset`. Only detections of a frame without neighbours get ids."""
        backfills = self._confirm(set()) if self._isolated else ()
        self._before_reset = self._tracker, self._people
        self._tracker, self._people, self._tentative = self._make_tracker(), {}, []
        self._last_frame_s = -math.inf
        return backfills

    def restore(self) -> None:
        """See `IdentityAssigner.restore`. Faces that were confirmed in between keep their own numbers."""
        (self._tracker, self._people), self._tentative = self._before_reset, []
        self._isolated = False

    def _advance(self, time_s: float) -> bool:
        """Start the next frame; return whether the previous frame has no neighbour that could confirm its faces."""
        near = time_s - self._last_frame_s <= _MAX_CONFIRMATION_S
        isolated = self._isolated and not near
        self._last_frame_s, self._isolated = time_s, not near
        return isolated

    def _confirm(self, matched: Set[int]) -> tuple[Backfill, ...]:
        """Give new ids to the tentative detections whose rows are not in `matched`."""
        found = [one for one in self._tentative if one.row not in matched]
        first, self._last_id = self._last_id + 1, self._last_id + len(found)
        return tuple(Backfill(one.frame_index, one.row, first + number) for number, one in enumerate(found))

    def _remove_absent(self, before_s: float) -> None:
        for track in [track for track, person in self._people.items() if person.last_seen_s < before_s]:
            del self._people[track]

    def _match_tentative(self, new: dict[int, int], xyxy: F32) -> dict[int, _Tentative]:
        """Return the tentative detection that each new track started with: highest IoU, each used once."""
        origins: dict[int, _Tentative] = {}
        if not self._tentative:
            return origins
        iou = iou_matrix(np.stack([one.xyxy for one in self._tentative]), xyxy)
        for track, row in sorted(new.items()):
            best = int(iou[:, row].argmax())
            if iou[best, row] > 0:
                origins[track] = self._tentative[best]
                iou[best] = 0.0
        return origins

    def _assign_ids(
        self, new: dict[int, int], origins: dict[int, _Tentative], xyxy: F32, tracks: I64, now_s: float
    ) -> None:
        """Give each new track the id of a person who reappears, or a new id."""
        started_s = {track: origins[track].time_s if track in origins else now_s for track in new}
        present = set(tracks.tolist())
        candidates = {
            track: [
                old
                for old, person in self._people.items()
                if old not in present
                and person.last_seen_s < started_s[track]
                and _same_place(person.xyxy, xyxy[row])
            ]
            for track, row in new.items()
        }
        claims = [old for fitting in candidates.values() for old in fitting]
        for track, fitting in sorted(candidates.items()):
            if len(fitting) == 1 and claims.count(fitting[0]) == 1:
                self._people[track] = self._people.pop(fitting[0])
            else:
                self._last_id += 1
                self._people[track] = _Person(self._last_id, xyxy[new[track]], now_s)

    def _update(self, tracks: I64, xyxy: F32, frame: Frame) -> I64:
        """Record where each person is and which detections are tentative; return the person ids."""
        self._last_reported_boxes = xyxy[tracks >= 0]
        person_ids = np.full(len(tracks), -1, np.int64)
        self._tentative = []
        for row, track in enumerate(tracks.tolist()):
            if track < 0:
                self._tentative.append(_Tentative(frame.index, frame.time_s, row, xyxy[row]))
                continue
            person = self._people[track]
            person.xyxy, person.last_seen_s = xyxy[row], frame.time_s
            person_ids[row] = person.person_id
        return person_ids


def _same_place(a: F32, b: F32) -> bool:
    side_a, side_b = _side(a), _side(b)
    if max(side_a, side_b) > _REASSOCIATE_RATIO * min(side_a, side_b):
        return False
    distance = float(np.hypot(*((a[:2] + a[2:]) - (b[:2] + b[2:])))) / 2
    return distance <= _REASSOCIATE_DISTANCE * min(side_a, side_b)


def _side(box: F32) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))
