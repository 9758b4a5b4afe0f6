"""Every Prometheus collector of the project."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Stage = Literal["decode", "detect", "track", "crop", "inference", "timeline", "write"]

# From a resized crop (0.2 ms) to a decoder that hangs (10 s), about three bounds a decade.
_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The collectors, made in a registry that the caller owns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames = Counter("fer_frames", "Frames decoded.", ["source"], registry=registry)
        self.faces = Counter("fer_faces", "Faces followed, one per face and frame.", ["source"], registry=registry)
        self.predictions = Counter(
            "fer_predictions", "Faces classified, by the emotion with the highest probability.",
            ["model", "emotion"], registry=registry,
        )  # fmt: skip
        self.camera_up = Gauge(
            "fer_camera_up", "1 while a camera gives pictures, else 0.", ["source"], registry=registry
        )
        self.camera_last_frame = Gauge(
            "fer_camera_last_frame_timestamp_seconds", "Unix time of a camera's newest picture.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.frames_dropped = Counter(
            "fer_frames_dropped", "Frames that were read and not processed.",
            ["source", "stage", "reason"], registry=registry,
        )  # fmt: skip
        self.reconnects = Counter(
            "fer_reconnects", "Connections to a camera that failed or ended, by why.",
            ["source", "reason"], registry=registry,
        )  # fmt: skip
        self.stalls = Counter(
            "fer_stalls", "Times that a camera stayed connected and sent nothing.", ["source"], registry=registry
        )
        self.pts_discontinuities = Counter(
            "fer_pts_discontinuities", "Pictures whose PTS went missing, did not rise or leapt ahead.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "fer_batch_size",
            "Faces per classified batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.crops_put = Counter("fer_crops_put", "Face crops put on the queue.", ["source"], registry=registry)
        self.crops_dropped = Counter(
            "fer_crops_dropped", "Face crops dropped before they were classified.",
            ["source", "reason"], registry=registry,
        )  # fmt: skip
        self.queue_wait = Histogram(
            "fer_queue_wait_seconds",
            "Seconds from a face's frame to its batch.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.end_to_end = Histogram(
            "fer_end_to_end_seconds", "Seconds from a face's frame to its published result.",
            buckets=_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.faces_missing = Gauge(
            "fer_faces_missing", "Faces that were announced and never came, since the timeline began.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.faces_late = Gauge(
            "fer_faces_late", "Faces that came when their frame was done, since the timeline began.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.journal_unreadable = Gauge(
            "fer_journal_unreadable", "Entries of the journal that are no messages, since the process began.",
            registry=registry,
        )  # fmt: skip
        self.results_unpublished = Gauge(
            "fer_results_unpublished", "Frames whose results a full store refused, since the process began.",
            registry=registry,
        )  # fmt: skip
        self.redelivered = Counter("fer_redelivered", "Face crops delivered again.", registry=registry)
        self._stages: dict[Stage, Histogram] = {
            stage: Histogram(f"fer_{stage}_seconds", help_text, buckets=_BUCKETS_S, registry=registry)
            for stage, help_text in _STAGES.items()
        }

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Observe how long the body takes as one step of `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages[stage].observe(time.perf_counter() - started)

    def seconds(self) -> dict[Stage, float]:
        """Seconds spent in each stage so far."""
        return {stage: _total(histogram) for stage, histogram in self._stages.items()}


_STAGES: dict[Stage, str] = {
    "decode": "Seconds to read, decode and convert one frame.",
    "detect": "Seconds to find the faces of one frame.",
    "track": "Seconds to follow the faces of one frame.",
    "crop": "Seconds to cut out and grade the faces of one frame.",
    "inference": "Seconds to classify one batch of faces.",
    "timeline": "Seconds to bring the timelines up to one frame.",
    "write": "Seconds to write what one frame settled.",
}


def _total(histogram: Histogram) -> float:
    return sum(
        sample.value for metric in histogram.collect() for sample in metric.samples if sample.name.endswith("_sum")
    )
