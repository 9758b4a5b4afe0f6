"""External observation of a running service: results of a subscriber, metrics, queue counts and processes."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast
from urllib.error import URLError
from urllib.request import urlopen

import redis
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.service import Service

_BLOCK_MS = 500
_BATCH = 1000
_PAUSE_S = 0.05

LOSS_COUNTERS = (
    "fer_frames_dropped_total", "fer_crops_dropped_total", "fer_results_rejected_total", "fer_predictions_late_total",
    "fer_predictions_missing_total", "fer_redelivered_total", "fer_reconnects_total", "fer_stalls_total",
    "fer_pts_discontinuities_total", "fer_journal_unreadable_total",
)  # fmt: skip
"""Counters that do not increase in normal operation."""
RECORDED_METRICS = (
    *LOSS_COUNTERS, "fer_frames_total", "fer_faces_total", "fer_crops_enqueued_total",
    "fer_end_to_end_seconds_bucket", "fer_predictions_total",
)  # fmt: skip
"""Metrics whose samples are recorded."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result received by a subscriber. `received_s` and `captured_at` are Unix seconds."""

    received_s: float
    captured_at: float
    stream_id: str
    index: int
    faces: int

    @property
    def latency_s(self) -> float:
        """Latency from capture to reception in seconds."""
        return self.received_s - self.captured_at


class Subscriber(Thread):
    """Reads the results of all `sources` as described in docs/reference/store.md, also over outages of the store."""

    def __init__(self, service: Service, sources: Sequence[str], stop: Event) -> None:
        super().__init__(name="subscriber", daemon=True)
        self.arrivals: dict[str, list[Arrival]] = {name: [] for name in sources}
        self._client = redis.Redis(unix_socket_path=str(service.socket("store")), protocol=2)
        self._positions: dict[Any, Any] = {f"fer:store:{name}:results": "0" for name in sources}
        self._stop_event = stop

    def run(self) -> None:
        """Read until stopped."""
        while not self._stop_event.is_set():
            try:
                reply = self._client.xread(self._positions, count=_BATCH, block=_BLOCK_MS)
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(_PAUSE_S)
                continue
            self._take(time.time(), cast(list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]], reply))

    def since(self, source: str, received_s: float) -> list[Arrival]:
        """Return the results of a source received at `received_s` or later, in order."""
        arrivals = self.arrivals[source]
        first = len(arrivals)
        while first and arrivals[first - 1].received_s >= received_s:
            first -= 1
        return arrivals[first:]

    def _take(self, now_s: float, reply: list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]) -> None:
        for key, entries in reply:
            name = key.decode()
            arrivals = self.arrivals[name.split(":")[2]]
            for position, entry in entries:
                frame = json.loads(entry[b"frame"])
                arrivals.append(Arrival(now_s, frame["at"], frame["stream_id"], frame["index"], len(frame["faces"])))
                self._positions[name] = position.decode()


def busy_s() -> float:
    """Return the CPU time used by all processes of this machine so far, in seconds."""
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource usage of a process at `time_s` (Unix seconds)."""

    time_s: float
    role: str
    pid: int
    pss_mb: float
    anonymous_mb: float
    open_files: int


@dataclass(slots=True)
class Observations:
    """Everything that a `Watcher` recorded.

    `metrics` maps (port, series) to (Unix seconds, value) samples in order, `counts` a stream to its last queue
    counts, and `counted_s` a stream to the time at which they were read.
    """

    metrics: dict[tuple[int, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    counted_s: dict[str, float] = field(default_factory=dict)
    usage: list[Usage] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)


class Watcher(Thread):
    """Samples metrics, counts and processes every `every_s` seconds, and searches the metrics for `forbidden`
    words."""

    def __init__(self, service: Service, stop: Event, *, every_s: float, forbidden: Sequence[bytes] = ()) -> None:
        super().__init__(name="watcher", daemon=True)
        self.observed = Observations()
        self._service, self._stop_event = service, stop
        self._every_s, self._forbidden = every_s, forbidden
        self._queue = redis.Redis(unix_socket_path=str(service.socket("queue")), protocol=2, socket_timeout=2)

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stop_event.wait(self._every_s):
            self.sample()

    def sample(self) -> None:
        """Sample once. Processes that are gone are skipped."""
        for member in self._service.processes():
            now_s = time.time()
            with suppress(OSError):
                self.observed.usage.append(
                    Usage(now_s, member.role, member.pid, member.pss_mb(), member.anonymous_mb(), member.open_files())
                )
            if member.port:
                self._scrape(member.port)
        with suppress(redis.ConnectionError, redis.TimeoutError):
            self._count()

    def _scrape(self, port: int) -> None:
        try:
            page = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2).read()
        except (URLError, OSError):
            return
        now_s = time.time()
        self.observed.secrets |= {"metrics" for word in self._forbidden if word in page}
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                if sample.name in RECORDED_METRICS:
                    labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                    self.observed.metrics[port, f"{sample.name}{{{labels}}}"].append((now_s, sample.value))

    def _count(self) -> None:
        for key in self._queue.scan_iter("fer:*:counts:*"):
            for name, value in cast(dict[bytes, bytes], self._queue.hgetall(key)).items():
                stream_id, _, outcome = name.decode().rpartition(":")
                if "@" in stream_id:
                    self.observed.counts[stream_id][outcome] = int(value)
                    self.observed.counted_s[stream_id] = time.time()
