"""What is seen of a running service from outside: results as a subscriber gets them, metrics, counts, processes."""

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
_AT_ONCE = 1000
_PAUSE_S = 0.05

TROUBLE = (
    "fer_frames_dropped_total", "fer_crops_dropped_total", "fer_results_rejected_total", "fer_predictions_late_total",
    "fer_predictions_missing_total", "fer_redelivered_total", "fer_reconnects_total", "fer_stalls_total",
    "fer_pts_discontinuities_total", "fer_journal_unreadable_total",
)  # fmt: skip
"""The counters that stand still where all is well."""
KEPT = (
    *TROUBLE, "fer_frames_total", "fer_faces_total", "fer_crops_enqueued_total", "fer_end_to_end_seconds_bucket",
    "fer_predictions_total",
)  # fmt: skip
"""The series whose samples are kept."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result as a subscriber got it, at `received_s`; `at` is when the picture was taken; both in Unix seconds."""

    received_s: float
    at: float
    stream_id: str
    index: int
    faces: int

    @property
    def latency_s(self) -> float:
        """From the picture to the subscriber."""
        return self.received_s - self.at


class Subscriber(Thread):
    """Reads the results of all `sources` as docs/reference/store.md tells other programs to, over outages of the store."""

    def __init__(self, service: Service, sources: Sequence[str], stop: Event) -> None:
        super().__init__(name="subscriber", daemon=True)
        self.arrivals: dict[str, list[Arrival]] = {name: [] for name in sources}
        self._client = redis.Redis(unix_socket_path=str(service.socket("store")), protocol=2)
        self._positions: dict[Any, Any] = {f"fer:store:{name}:results": "0" for name in sources}
        self._over = stop

    def run(self) -> None:
        """Read until told to stop."""
        while not self._over.is_set():
            try:
                reply = self._client.xread(self._positions, count=_AT_ONCE, block=_BLOCK_MS)
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(_PAUSE_S)
                continue
            self._take(time.time(), cast(list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]], reply))

    def since(self, source: str, received_s: float) -> list[Arrival]:
        """What came of a source at `received_s` or later, in order."""
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
    """Seconds of processor time that anyone took of this machine so far."""
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process had at `time_s`, Unix seconds."""

    time_s: float
    role: str
    pid: int
    pss_mb: float
    own_mb: float
    open_files: int


@dataclass(slots=True)
class Seen:
    """Everything that a `Watcher` saw.

    `metrics` maps port and series to (Unix seconds, value) in order; `counts` a stream to its last counts, and
    `counted_s` to when these were read.
    """

    metrics: dict[tuple[int, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    counted_s: dict[str, float] = field(default_factory=dict)
    usage: list[Usage] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)


class Watcher(Thread):
    """Looks at metrics, counts and processes every `every_s` seconds, and for `forbidden` words in the metrics."""

    def __init__(self, service: Service, stop: Event, *, every_s: float, forbidden: Sequence[bytes] = ()) -> None:
        super().__init__(name="watcher", daemon=True)
        self.seen = Seen()
        self._service, self._over = service, stop
        self._every_s, self._forbidden = every_s, forbidden
        self._queue = redis.Redis(unix_socket_path=str(service.socket("queue")), protocol=2, socket_timeout=2)

    def run(self) -> None:
        """Look until told to stop."""
        while not self._over.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """Look once. What cannot be seen because a process is gone is left out."""
        for member in self._service.members():
            now_s = time.time()
            with suppress(OSError):
                self.seen.usage.append(
                    Usage(now_s, member.role, member.pid, member.pss_mb(), member.own_mb(), member.open_files())
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
        self.seen.secrets |= {"metrics" for word in self._forbidden if word in page}
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                if sample.name in KEPT:
                    labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                    self.seen.metrics[port, f"{sample.name}{{{labels}}}"].append((now_s, sample.value))

    def _count(self) -> None:
        for key in self._queue.scan_iter("fer:*:counts:*"):
            for name, value in cast(dict[bytes, bytes], self._queue.hgetall(key)).items():
                stream_id, _, fate = name.decode().rpartition(":")
                if "@" in stream_id:
                    self.seen.counts[stream_id][fate] = int(value)
                    self.seen.counted_s[stream_id] = time.time()
