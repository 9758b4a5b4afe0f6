"""Every Prometheus collector of the project. `docs/operations.md` tells what each means, and a test holds it to that.

A series starts at 0 before there is anything to count, because `increase()` does not see the step from nothing to 1.
Labels are bounded: names of sources, shards, reasons and emotions, never a stream or a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

Stage = Literal["decode", "detect", "track", "crop", "inference", "timeline", "write"]

# From a resized crop (0.2 ms) to a decoder that hangs (10 s), about three bounds a decade.
_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

# From a still image (5 s, most of which is loading models) to a film of hours.
_JOB_BUCKETS_S = (5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0)


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
        self.crops_enqueued = Counter(
            "fer_crops_enqueued", "Face crops put on the queue.", ["source"], registry=registry
        )
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
            "fer_end_to_end_seconds", "Seconds from a face's frame to its published result; no fast files.",
            buckets=_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.faces_labelled = Counter(
            "fer_faces_labelled", "Faces with their final label, one per face and frame.",
            ["source", "emotion"], registry=registry,
        )  # fmt: skip
        self.predictions_missing = Counter(
            "fer_predictions_missing", "Faces that were announced and never came.", ["source"], registry=registry
        )
        self.predictions_late = Counter(
            "fer_predictions_late", "Faces that came when their frame was done.", ["source"], registry=registry
        )
        self.journal_unreadable = Counter(
            "fer_journal_unreadable", "Entries of the journal that are no messages.", registry=registry
        )
        self.results_rejected = Counter(
            "fer_results_rejected", "Frames whose results a full store refused.", registry=registry
        )
        self.redelivered = Counter("fer_redelivered", "Face crops delivered again.", registry=registry)
        self.dead_letters = Counter(
            "fer_dead_letter", "Face crops that were given up, by why.", ["reason"], registry=registry
        )
        self.queue_depth = Gauge(
            "fer_queue_depth", "Face crops that wait for a worker or are in work.", ["shard"], registry=registry
        )
        self.queue_oldest_age = Gauge(
            "fer_queue_oldest_age_seconds", "Seconds since the frame of the oldest crop on the queue, 0 for none.",
            ["shard"], registry=registry,
        )  # fmt: skip
        self.queue_consumers = Gauge(
            "fer_queue_consumers", "Workers that asked for face crops lately.", ["shard"], registry=registry
        )
        self.redis_up = Gauge(
            "fer_redis_up", "1 while the queue or store server answers this process, else 0.",
            ["server"], registry=registry,
        )  # fmt: skip
        self.disk_free = Gauge(
            "fer_disk_free_bytes",
            "Bytes free on the disk of a folder, to this process.",
            ["folder"],
            registry=registry,
        )
        self.disk_size = Gauge(
            "fer_disk_size_bytes", "Bytes that the disk of a folder holds.", ["folder"], registry=registry
        )
        self.build_info = Info(
            "fer_build", "1; its labels say which version runs, on which Python.", registry=registry
        )
        self.web_requests = Counter(
            "fer_web_requests", "Requests to the web page and API that were answered, by route and status.",
            ["route", "status"], registry=registry,
        )  # fmt: skip
        self.web_streams = Gauge("fer_web_streams", "Live streams that are open now.", registry=registry)
        self.jobs = Counter(
            "fer_jobs", "Attempts at recorded files, by how they ended.", ["outcome"], registry=registry
        )
        self.jobs_waiting = Gauge(
            "fer_jobs_waiting", "Recorded files on the queue, as each worker sees it.",
            ["priority"], registry=registry,
        )  # fmt: skip
        self.job_duration = Histogram(
            "fer_job_duration_seconds", "Seconds that a recorded file took, of those that are done.",
            buckets=_JOB_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._stages: dict[Stage, Histogram] = {
            stage: Histogram(f"fer_{stage}_seconds", help_text, buckets=_BUCKETS_S, registry=registry)
            for stage, help_text in _STAGES.items()
        }
        self._of_sources = (
            self.frames, self.faces, self.camera_up, self.camera_last_frame, self.frames_dropped, self.reconnects,
            self.stalls, self.pts_discontinuities, self.crops_enqueued, self.crops_dropped, self.faces_labelled,
            self.predictions_missing, self.predictions_late,
        )  # fmt: skip

    def remove_source(self, source: str) -> None:
        """Take away all series of `source`. Whoever still holds one of its children counts for nobody."""
        for collector in self._of_sources:
            collector.remove_by_labels({"source": source})

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
    "decode": "Seconds to decode one packet of a camera, or to read, decode and convert one frame of a file.",
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
