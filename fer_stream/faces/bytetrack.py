"""ByteTrack: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022.

Every track expects its box where a Kalman filter of constant velocity puts it. Sure detections are joined to the
tracks first, by overlap; of the tracks that are left, each may have an unsure one, as of a face that is half hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fer_stream.config import TrackerSettings
from fer_stream.records import F32, F64, I64, Detections

_SURE = 0.6
"""Confidence from which a detection is joined first, and may begin a track: the value of the paper."""

_MIN_OVERLAP = 0.1
"""Intersection over union with the expected box. The paper asks for 0.2 of neighbouring frames."""

# Deviations of the filter, in sides of the box, as in the authors' code: of a detection, and of what position and
# velocity do by themselves in one frame at 30 frames a second.
_DETECTION, _POSITION, _VELOCITY = 1 / 20, 1 / 20, 1 / 160
_FRAMES_PER_S = 30.0
# A new track knows its place as well as two such frames would, and of its velocity as little as after ten.
_FIRST_POSITION, _FIRST_VELOCITY = 2 * _POSITION, 10 * _VELOCITY * _FRAMES_PER_S


class ByteTrack:
    """A `FaceTracker` that joins boxes by overlap with where a Kalman filter expects them."""

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings
        self._tracks: list[_Track] = []
        self._time_s = 0.0
        self._last_number = -1

    def update(self, detections: Detections, time_s: float) -> I64:
        """See `FaceTracker.update`."""
        tracks = [track for track in self._tracks if time_s - track.seen_s <= self._settings.track_timeout_s]
        for track in tracks:
            track.expect(time_s - self._time_s)
        self._time_s = time_s
        rows = _joined(tracks, detections)
        numbers = np.full(len(detections), -1, np.int64)
        for track, row in zip(tracks, rows, strict=True):
            if row is not None:
                track.see(detections.xyxy[row], time_s)
                numbers[row] = self._number(track)
        # One that was seen once, and now no more, was nobody.
        self._tracks = [track for track in tracks if track.number >= 0] + self._begun(detections, rows)
        return numbers

    def _number(self, track: _Track) -> int:
        if track.number < 0:
            self._last_number += 1
            track.number = self._last_number
        return track.number

    def _begun(self, detections: Detections, joined: Sequence[int | None]) -> list[_Track]:
        enough = max(_SURE, self._settings.new_track_confidence)
        rows = set(np.flatnonzero(detections.confidence >= enough).tolist()) - set(joined)
        return [_Track(detections.xyxy[row], self._time_s) for row in sorted(rows)]


def _joined(tracks: Sequence[_Track], detections: Detections) -> list[int | None]:
    """The detection of each track, or None."""
    overlaps = _overlaps([track.xyxy for track in tracks], detections.xyxy)
    sure = detections.confidence >= _SURE
    rows: list[int | None] = [None] * len(tracks)
    for meant in (sure, ~sure):
        free = np.array([row is None for row in rows], bool)
        for track, row in _pairs(np.where(free[:, np.newaxis] & meant, overlaps, 0.0)):
            rows[track] = row
    return rows


def _pairs(overlaps: F64) -> Iterator[tuple[int, int]]:
    """Rows and columns that overlap, the best first, each used once. `overlaps` is used up."""
    for _ in range(min(overlaps.shape)):
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        if overlaps[row, column] < _MIN_OVERLAP:
            return
        yield row, column
        overlaps[row], overlaps[:, column] = 0.0, 0.0


class _Track:
    """A box on its way. Its four coordinates have each a filter of their own, which all know equally much."""

    def __init__(self, xyxy: F32, time_s: float) -> None:
        self.number = -1
        self.seen_s = time_s
        self.xyxy: F64 = xyxy.astype(np.float64)
        self._velocity = np.zeros(4)
        # Variance of the position, covariance, variance of the velocity.
        self._known = (_FIRST_POSITION * self._side) ** 2, 0.0, (_FIRST_VELOCITY * self._side) ** 2

    @property
    def _side(self) -> float:
        return float(max(self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1], 1.0))

    def expect(self, step_s: float) -> None:
        """Move on by so many seconds."""
        position, both, velocity = self._known
        frames = step_s * _FRAMES_PER_S
        self._known = (
            position + 2 * step_s * both + step_s**2 * velocity + frames * (_POSITION * self._side) ** 2,
            both + step_s * velocity,
            velocity + frames * (_VELOCITY * _FRAMES_PER_S * self._side) ** 2,
        )
        self.xyxy = self.xyxy + step_s * self._velocity

    def see(self, xyxy: F32, time_s: float) -> None:
        """Here it was found."""
        position, both, velocity = self._known
        all_of_it = position + (_DETECTION * self._side) ** 2
        gain, velocity_gain = position / all_of_it, both / all_of_it
        off = xyxy - self.xyxy
        self.xyxy = self.xyxy + gain * off
        self._velocity = self._velocity + velocity_gain * off
        self._known = (1 - gain) * position, (1 - gain) * both, velocity - velocity_gain * both
        self.seen_s = time_s


def _overlaps(expected: Sequence[F64], found: F32) -> F64:
    """Intersection over union of each expected box with each found one, (n, m)."""
    a, b = np.reshape(expected, (-1, 1, 4)), found.astype(np.float64)
    sides = np.maximum(np.minimum(a[..., 2:], b[:, 2:]) - np.maximum(a[..., :2], b[:, :2]), 0)
    shared = sides.prod(axis=-1)
    overlaps: F64 = shared / np.maximum(_areas(a) + _areas(b) - shared, np.finfo(np.float64).tiny)
    return overlaps


def _areas(boxes: F64) -> F64:
    areas: F64 = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
    return areas
