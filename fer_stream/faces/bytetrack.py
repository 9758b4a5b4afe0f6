"""ByteTrack (Zhang et al., 2022) from the `trackers` package."""

from __future__ import annotations

import warnings

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

from fer_stream.config import TrackerSettings
from fer_stream.records import I64, Detections

# `trackers` counts its buffer in frames of this rate, whatever the rate of the video.
_BUFFER_FPS = 30.0

# Two frames of a damaged file may share a time. `trackers` then takes both for one moment, which is right.
warnings.filterwarnings("ignore", message="ByteTrackTracker: duplicate timestamp")


class ByteTrack:
    """A `FaceTracker` that joins boxes by overlap with where a Kalman filter expects them.

    `fps` is the rate at which frames are looked at; real frame times are used where they differ.
    """

    def __init__(self, settings: TrackerSettings, fps: float) -> None:
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(settings.lost_s * _BUFFER_FPS),
            frame_rate=fps,
            track_activation_threshold=settings.new_track_confidence,
            minimum_consecutive_frames=2,
        )

    def update(self, detections: Detections, time_s: float) -> I64:
        """See `FaceTracker.update`."""
        tracked = self._tracker.update(
            sv.Detections(
                xyxy=detections.xyxy, confidence=detections.confidence, data={"row": np.arange(len(detections))}
            ),
            timestamp=time_s,
        )
        tracks = np.full(len(detections), -1, np.int64)
        if tracked.tracker_id is not None and len(tracked):
            tracks[tracked.data["row"]] = tracked.tracker_id
        return tracks
