"""ByteTrack: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022.

A Kalman filter with constant velocity predicts the box of every track. Detections of high confidence are associated
with the tracks first, by IoU; the remaining tracks may then be associated with detections of low confidence, for
example of a face that is half hidden.

Two things differ from the paper. Pairs are matched greedily, highest IoU first, instead of by the assignment with the
highest total IoU (Hungarian algorithm): results differ only where a box overlaps several others. And the
filter works with times in seconds, so frames may be skipped or unevenly spaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.faces.detector import iou_matrix

if TYPE_CHECKING:
    from fer_stream.config.settings import TrackerSettings
    from fer_stream.records import F32, F64, I64, Detections

_MIN_IOU = 0.1
"""Minimum IoU of a detection with the predicted box. The paper uses 0.2 between neighbouring frames."""

# Standard deviations of the filter, in sides of the box, as in the authors' code: measurement noise, and process
# noise of position and velocity per frame at 30 frames per second.
_MEASUREMENT_NOISE, _POSITION_NOISE, _VELOCITY_NOISE = 1 / 20, 1 / 20, 1 / 160
_FRAMES_PER_S = 30.0
# A new track has the position uncertainty of two such frames and the velocity uncertainty of ten.
_INITIAL_POSITION_NOISE, _INITIAL_VELOCITY_NOISE = 2 * _POSITION_NOISE, 10 * _VELOCITY_NOISE * _FRAMES_PER_S


class ByteTrack:
    """A `FaceTracker` that associates detections with tracks by IoU with a Kalman prediction.

    Detections with at least `high_confidence` are associated first; only they can start a track, and only with at
    least `settings.new_track_confidence`.
    """

    def __init__(self, settings: TrackerSettings, high_confidence: float) -> None:
        self._settings = settings
        self._high_confidence = high_confidence
        self._tracks: list[_Track] = []
        self._time_s = 0.0
        self._last_track_id = -1

    def update(self, detections: Detections, time_s: float) -> I64:
        """See `FaceTracker.update`."""
        timeout_s = self._settings.track_timeout_s
        tracks = [track for track in self._tracks if time_s - track.last_seen_s <= timeout_s]
        for track in tracks:
            track.predict(time_s - self._time_s)
        self._time_s = time_s
        rows = _associate(tracks, detections, self._high_confidence)
        track_ids = np.full(len(detections), -1, np.int64)
        for track, row in zip(tracks, rows, strict=True):
            if row is not None:
                track.update(detections.xyxy[row], time_s)
                track_ids[row] = self._confirm(track)
        # A new track that is not associated in the next update is dropped.
        self._tracks = [track for track in tracks if track.track_id >= 0] + self._spawn(detections, rows)
        return track_ids

    def _confirm(self, track: _Track) -> int:
        """Return the id of a track, which gets one with its second detection."""
        if track.track_id < 0:
            self._last_track_id += 1
            track.track_id = self._last_track_id
        return track.track_id

    def _spawn(self, detections: Detections, associated: Sequence[int | None]) -> list[_Track]:
        """Return a new track for each sufficiently confident detection that is not associated."""
        threshold = max(self._high_confidence, self._settings.new_track_confidence)
        rows = set(np.flatnonzero(detections.confidence >= threshold).tolist()) - set(associated)
        return [_Track(detections.xyxy[row], self._time_s) for row in sorted(rows)]


def _associate(tracks: Sequence[_Track], detections: Detections, high_confidence: float) -> list[int | None]:
    """Return the row of the detection associated with each track, or None."""
    predicted = np.reshape([track.xyxy for track in tracks], (-1, 4))
    iou = iou_matrix(predicted, detections.xyxy)
    high = detections.confidence >= high_confidence
    rows: list[int | None] = [None] * len(tracks)
    for eligible in (high, ~high):
        free = np.array([row is None for row in rows], bool)
        for track, row in _greedy_match(np.where(free[:, np.newaxis] & eligible, iou, 0.0)):
            rows[track] = row
    return rows


def _greedy_match(iou: F64) -> Iterator[tuple[int, int]]:
    """Yield pairs of row and column, highest IoU first, each row and column once. Overwrites `iou`."""
    for _ in range(min(iou.shape)):
        row, column = divmod(int(iou.argmax()), iou.shape[1])
        if iou[row, column] < _MIN_IOU:
            return
        yield row, column
        iou[row], iou[:, column] = 0.0, 0.0


class _Track:
    """A moving box. Each of its four coordinates has its own filter; all of them have the same covariance."""

    def __init__(self, xyxy: F32, time_s: float) -> None:
        self.track_id = -1
        self.last_seen_s = time_s
        self.xyxy: F64 = xyxy.astype(np.float64)
        self._velocity = np.zeros(4)
        # Variance of the position, covariance of both, variance of the velocity.
        self._covariance = (
            (_INITIAL_POSITION_NOISE * self._side) ** 2,
            0.0,
            (_INITIAL_VELOCITY_NOISE * self._side) ** 2,
        )

    @property
    def _side(self) -> float:
        return float(max(self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1], 1.0))

    def predict(self, step_s: float) -> None:
        """Advance the box by `step_s`."""
        position, both, velocity = self._covariance
        frames = step_s * _FRAMES_PER_S
        self._covariance = (
            position + 2 * step_s * both + step_s**2 * velocity + frames * (_POSITION_NOISE * self._side) ** 2,
            both + step_s * velocity,
            velocity + frames * (_VELOCITY_NOISE * _FRAMES_PER_S * self._side) ** 2,
        )
        self.xyxy = self.xyxy + step_s * self._velocity

    def update(self, xyxy: F32, time_s: float) -> None:
        """Correct the box with a detection."""
        position, both, velocity = self._covariance
        innovation_var = position + (_MEASUREMENT_NOISE * self._side) ** 2
        gain, velocity_gain = position / innovation_var, both / innovation_var
        residual = xyxy - self.xyxy
        self.xyxy = self.xyxy + gain * residual
        self._velocity = self._velocity + velocity_gain * residual
        self._covariance = (1 - gain) * position, (1 - gain) * both, velocity - velocity_gain * both
        self.last_seen_s = time_s
