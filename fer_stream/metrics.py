"""All Prometheus metrics of the project, listed in `docs/reference/metrics.md`, which is generated from here.

Every counter is exported at 0 before its first event, because `increase()` ignores the step from absent to 1. Labels
have a bounded number of values (sources, shards, reasons, emotions) and never contain a stream or a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

Stage = Literal["decode", "detect", "track", "crop", "inference", "timeline", "write"]

# From resizing a crop (0.2 ms) to a hanging decoder (10 s), about three buckets per decade.
_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

# From a still image (5 s, mostly loading models) to a video of hours.
_JOB_BUCKETS_S = (5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0)


class Metrics:
    """The collectors, registered in the registry of the caller."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames = Counter("fer_frames", "Frames decoded.", ["source"], registry=registry)
        self.faces = Counter("fer_faces", "Tracked faces, counted once per frame.", ["source"], registry=registry)
        self.predictions = Counter(
            "fer_predictions", "Faces classified, by the emotion with the highest probability.",
            ["model", "emotion"], registry=registry,
        )  # fmt: skip
        self.camera_up = Gauge(
            "fer_camera_up", "1 while a source delivers frames, 0 if it does not.", ["source"], registry=registry
        )
        self.camera_last_frame = Gauge(
            "fer_camera_last_frame_timestamp_seconds",
            "Unix time of the newest frame of a camera, 0 before the first.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.frames_dropped = Counter(
            "fer_frames_dropped", "Frames that were read but not processed.",
            ["source", "stage", "reason"], registry=registry,
        )  # fmt: skip
        self.reconnects = Counter(
            "fer_reconnects", "Camera connections that failed or ended, by reason.",
            ["source", "reason"], registry=registry,
        )  # fmt: skip
        self.stalls = Counter(
            "fer_stalls",
            "Camera connections that stayed open without data until the stall timeout.",
            ["source"],
            registry=registry,
        )
        self.pts_discontinuities = Counter(
            "fer_pts_discontinuities", "Frames whose PTS was missing, did not increase or jumped ahead.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.outages = Counter(
            "fer_camera_outages", "Times that a camera stopped delivering frames.", ["source"], registry=registry
        )
        self.clock_steps = Counter(
            "fer_clock_steps",
            "Steps of the system clock by more than 5 s, after which every camera starts a new session.",
            registry=registry,
        )
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
            "fer_crops_dropped", "Face crops dropped before classification.",
            ["source", "reason"], registry=registry,
        )  # fmt: skip
        self.queue_wait = Histogram(
            "fer_queue_wait_seconds",
            "Seconds from the capture of a face to its classification.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.end_to_end = Histogram(
            "fer_end_to_end_seconds",
            "Seconds from the capture of a face to its published result, excluding files faster than real time.",
            buckets=_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.faces_labelled = Counter(
            "fer_faces_labelled", "Faces with a final label, counted once per frame.",
            ["source", "emotion"], registry=registry,
        )  # fmt: skip
        self.predictions_missing = Counter(
            "fer_predictions_missing", "Expected predictions that never arrived.", ["source"], registry=registry
        )
        self.predictions_late = Counter(
            "fer_predictions_late",
            "Predictions that arrived after their frame was finalised.",
            ["source"],
            registry=registry,
        )
        self.journal_unreadable = Counter(
            "fer_journal_unreadable", "Journal entries that cannot be decoded.", registry=registry
        )
        self.results_rejected = Counter(
            "fer_results_rejected",
            "Frames whose results were rejected because the store was full.",
            registry=registry,
        )
        self.redelivered = Counter("fer_redelivered", "Face crops that were delivered again.", registry=registry)
        self.dead_letters = Counter(
            "fer_dead_letter", "Face crops moved to the dead letters, by reason.", ["reason"], registry=registry
        )
        self.queue_depth = Gauge(
            "fer_queue_depth", "Face crops that are queued or being classified.", ["shard"], registry=registry
        )
        self.queue_oldest_age = Gauge(
            "fer_queue_oldest_age_seconds", "Age of the oldest queued face crop in seconds, 0 if the queue is empty.",
            ["shard"], registry=registry,
        )  # fmt: skip
        self.queue_consumers = Gauge(
            "fer_queue_consumers",
            "Classification workers that are consuming face crops.",
            ["shard"],
            registry=registry,
        )
        self.rows_lost = Counter(
            "fer_rows_lost", "Rows of tables that could not be written.", ["source"], registry=registry
        )
        self.recording_frames_lost = Counter(
            "fer_recording_frames_lost",
            "Frames that are missing in a recording: the disk, the encoder or their labels were too late.",
            ["source"],
            registry=registry,
        )
        self.redis_memory_used = Gauge(
            "fer_redis_memory_used_bytes",
            "Memory in use by the queue or store server; of a Cluster, by the node that is closest to its limit.",
            ["server"], registry=registry,
        )  # fmt: skip
        self.redis_memory_max = Gauge(
            "fer_redis_memory_max_bytes", "Memory limit of that server, absent without a limit.",
            ["server"], registry=registry,
        )  # fmt: skip
        self.redis_up = Gauge(
            "fer_redis_up", "1 while the queue or store server responds to this process, else 0.",
            ["server"], registry=registry,
        )  # fmt: skip
        self.disk_free = Gauge(
            "fer_disk_free_bytes",
            "Free bytes on the disk of a path, available to this process.",
            ["path"],
            registry=registry,
        )
        self.disk_size = Gauge(
            "fer_disk_size_bytes", "Size of the disk of a path in bytes.", ["path"], registry=registry
        )
        self.build_info = Info("fer_build", "Version of fer-stream and Python, as labels.", registry=registry)
        self.web_requests = Counter(
            "fer_web_requests", "Requests to the web page and API, by route and status.",
            ["route", "status"], registry=registry,
        )  # fmt: skip
        self.web_streams = Gauge("fer_web_streams", "Open event streams.", registry=registry)
        self.jobs = Counter("fer_jobs", "Attempts at jobs, by outcome.", ["outcome"], registry=registry)
        self.jobs_waiting = Gauge(
            "fer_jobs_waiting", "Queued jobs, as seen by each worker.",
            ["priority"], registry=registry,
        )  # fmt: skip
        self.job_duration = Histogram(
            "fer_job_duration_seconds", "Duration of completed jobs in seconds.",
            buckets=_JOB_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._stages: dict[Stage, Histogram] = {
            stage: Histogram(f"fer_{stage}_seconds", help_text, buckets=_BUCKETS_S, registry=registry)
            for stage, help_text in _STAGES.items()
        }
        self._per_source = (
            self.frames, self.faces, self.camera_up, self.camera_last_frame, self.frames_dropped, self.reconnects,
            self.stalls, self.outages, self.pts_discontinuities, self.crops_enqueued, self.crops_dropped,
            self.faces_labelled, self.predictions_missing, self.predictions_late, self.rows_lost,
            self.recording_frames_lost,
        )  # fmt: skip

    def remove_source(self, source: str) -> None:
        """Remove all series of `source`. Updates of series objects obtained before have no effect."""
        for collector in self._per_source:
            collector.remove_by_labels({"source": source})

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Record the duration of the body as one step of `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages[stage].observe(time.perf_counter() - started)

    def seconds(self) -> dict[Stage, float]:
        """Return the total seconds spent in each stage."""
        return {stage: _total(histogram) for stage, histogram in self._stages.items()}


_STAGES: dict[Stage, str] = {
    "decode": "Seconds to decode one packet of a camera, or to read, decode and convert one frame of a file.",
    "detect": "Seconds to detect the faces of one frame.",
    "track": "Seconds to track the faces of one frame.",
    "crop": "Seconds to crop the faces of one frame and assess their quality.",
    "inference": "Seconds to classify one batch of faces.",
    "timeline": "Seconds to update the timelines with one frame.",
    "write": "Seconds to write the results that one frame finalised.",
}


def _total(histogram: Histogram) -> float:
    return sum(
        sample.value for metric in histogram.collect() for sample in metric.samples if sample.name.endswith("_sum")
    )
