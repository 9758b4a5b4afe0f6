"""The live service in separate processes, and access to its results, files and logs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from prometheus_client import CollectorRegistry

from fer_stream import FileSettings, analyze, factory
from fer_stream.api import Analysis
from fer_stream.broker.client import RedisClient
from fer_stream.broker.protocols import Counts
from fer_stream.broker.queue import RedisQueue
from fer_stream.capture.source import EVERYTHING
from fer_stream.config.live import LiveSettings
from fer_stream.config.loader import load
from fer_stream.config.settings import DetectorSettings, ModelSettings
from fer_stream.metrics import Metrics
from fer_stream.outputs.table import frame_rows
from fer_stream.records import FaceCrop, Gap, LabelledFrame, unix_time
from fer_stream.service.process import connect_queue, connect_store, open_queue, open_store
from fer_stream.store.protocol import START, position_of
from fer_stream.store.redis import RedisStore
from fer_stream.store.schemas import SegmentDocument, segment_document
from tests.support.waiting import wait_until

FER_STREAM = (sys.executable, "-m", "fer_stream.cli")
PROC = Path("/proc")

FOREVER = 1e10
"""Unix time after the end of every test."""

Segment = tuple[int, str, float, float, float]
"""person, label, start_s, end_s, mean_prob"""


class Service:
    """`fer-stream serve`, or single workers, with settings in a temporary directory, and their results."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.config = folder / "live.yaml"
        self.files = folder / "files"
        self.state_dir = folder / "state"
        self.log = folder / "log"
        self.settings = {
            "state_dir": str(self.state_dir),
            "recordings": {"dir": str(self.files)},
            "metrics": {"port": None},
            "web": {"port": None},
            **settings,
        }
        self.inject_dir = folder / "inject"
        self._started: list[subprocess.Popen[bytes]] = []
        self._clients: list[RedisClient] = []
        self.configure()

    def configure(self, **groups: Any) -> None:
        """Write the settings, with `groups` replaced."""
        self.settings |= groups
        self.config.write_text(yaml.safe_dump(self.settings))

    # Processes

    def serve(self) -> subprocess.Popen[bytes]:
        return self.run(*FER_STREAM, "serve", str(self.config))

    def worker(self, role: str, *options: str) -> subprocess.Popen[bytes]:
        return self.run(*FER_STREAM, "worker", role, "--config", str(self.config), *options)

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process; its output and that of its children is appended to the log."""
        path = os.pathsep.join(filter(None, (str(self.inject_dir), os.environ.get("PYTHONPATH"))))
        with self.log.open("ab") as log:
            self._started.append(
                subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})
            )
        return self._started[-1]

    def inject(self, role: str, program: str) -> None:
        """Make every process of `role` run `program` first. Works for one role per service."""
        self.inject_dir.mkdir(exist_ok=True)
        (self.inject_dir / "sitecustomize.py").write_text(
            f"import sys\nif {{'worker', {role!r}}} <= set(sys.orig_argv):\n    import injected\n"
        )
        (self.inject_dir / "injected.py").write_text(program)

    def children(self, role: str) -> list[int]:
        """Return the ids of the processes of `role` that use these settings."""
        return [
            int(folder.name)
            for folder in PROC.iterdir()
            if folder.name.isdecimal() and self._is_worker(folder, ["worker", role, "--config", str(self.config)])
        ]

    def _is_worker(self, folder: Path, arguments: list[str]) -> bool:
        try:
            command = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
        except OSError:
            return False
        return any(command[at : at + len(arguments)] == arguments for at in range(len(command)))

    def send_signal(self, role: str, number: signal.Signals) -> int:
        """Send a signal to the only process of `role` and return its id."""
        (process,) = self.children(role)
        subprocess.run(["kill", f"-{number}", str(process)], check=True)
        return process

    def stop(self, within_s: float = 60) -> list[int]:
        """Terminate all started processes and return their exit codes."""
        deadline_s = time.monotonic() + within_s
        for process in self._started:
            process.terminate()
        codes = [process.wait(max(0.0, deadline_s - time.monotonic())) for process in self._started]
        self._started.clear()
        return codes

    def close(self) -> None:
        """Kill all processes, also after a failed test."""
        for process in self._started:
            process.kill()
            process.wait()
        for role in ("capture", "classify", "timeline"):
            for child in self.children(role):
                subprocess.run(["kill", "-KILL", str(child)], check=False)
        for link in self._clients:
            link.close()

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def logged(self, event: str, **fields: object) -> int:
        """Return the number of log lines with this event and these fields."""
        words = [event, *(f"{key}={value}" for key, value in fields.items())]
        return sum(all(word in line.split() for word in words) for line in self.log_text().splitlines())

    def leaks(self, secret: str, *more: bytes) -> list[bytes]:
        """Return the forms in which a password occurs in the log, the files or `more`."""
        files = [path.read_bytes() for path in self.files.rglob("*") if path.is_file()]
        everything = b"\n".join([self.log_text().encode(), *files, *more])
        return [form for form in secret_forms(secret) if form in everything]

    # Results

    def _connect(self, opener: Callable[[LiveSettings, Event], RedisClient]) -> RedisClient:
        self._clients.append(opener(load(self.config, LiveSettings), Event()))
        return self._clients[-1]

    @cached_property
    def queue_client(self) -> RedisClient:
        return self._connect(connect_queue)

    @cached_property
    def store_client(self) -> RedisClient:
        return self._connect(connect_store)

    @cached_property
    def queue(self) -> RedisQueue:
        return open_queue(self.queue_client, load(self.config, LiveSettings))

    @cached_property
    def store(self) -> RedisStore:
        return open_store(self.store_client, load(self.config, LiveSettings))

    def wait(self, condition: Callable[[], Any], within_s: float = 120) -> float:
        """Wait until `condition` holds and return the seconds it took."""
        return wait_until(condition, within_s, describe=lambda: self.log_text()[-5000:])

    def wait_for_servers(self) -> None:
        """Wait until the embedded servers of `serve` are running."""
        self.wait(lambda: all((self.state_dir / role / "valkey.sock").exists() for role in ("queue", "store")))

    def stream_id(self, source: str) -> str:
        latest = self.store.latest(source)
        return latest.stream_id if latest else ""

    def results(self, source: str) -> list[LabelledFrame]:
        return self.store.results(source, "0", 100_000, 0)

    def newest(self, source: str) -> str:
        """Return the position of the newest result."""
        latest = self.store.latest(source)
        return position_of(latest) if latest else START

    def wait_for_results(self, source: str, within_s: float = 120) -> float:
        """Wait for new results and return the seconds it took."""
        before = self.newest(source)
        return self.wait(lambda: self.newest(source) != before, within_s)

    def camera_reason(self, source: str) -> str | None:
        """Return `up`, the reason why the camera is down, or None if its state is unknown."""
        state = self.store.state(source)
        return None if state is None else "up" if state.up else state.reason

    def gaps(self, source: str) -> list[tuple[str, float, float]]:
        """Return reason, start and end of all gaps in Unix seconds. Store and file must agree."""

        def stored() -> list[Gap]:
            return self.store.gaps(source, 0, FOREVER)

        def written() -> list[tuple[str, float, float]]:
            return [(line["reason"], line["start_s"], line["end_s"]) for line in self.lines(source, "gap")]

        # The store sorts by wall time, and sessions can overlap after the clock was set back.
        self.wait(lambda: sorted(written()) == sorted(map(_rounded, stored())))
        return [
            (one.reason, unix_time(one.stream_id, one.start_s), unix_time(one.stream_id, one.end_s))
            for one in stored()
        ]

    def unexplained_gaps(self, source: str, longest_s: float = 1.5) -> list[tuple[float, float]]:
        """Return the intervals of more than `longest_s` without results that no gap accounts for."""
        gaps = self.gaps(source)
        times = [unix_time(frame.stream_id, frame.time_s) for frame in self.results(source)]
        silences = [(last, first) for last, first in pairwise(times) if first - last > longest_s]
        return [
            (last, first)
            for last, first in silences
            if first - last - sum(max(0.0, min(first, end) - max(last, start)) for _, start, end in gaps) > longest_s
        ]

    def has_no_duplicates(self, source: str) -> bool:
        """Return True if every face has one row, every frame one result and every segment one line."""
        rows = [(*row.split(",")[:3], row.rsplit(",", 2)[1]) for row in self.dated_rows(source)]
        results = [position_of(frame) for frame in self.results(source)]
        lines = [(line["stream_id"], line["person_id"], line["start_s"]) for line in self.lines(source, "segment")]
        stored = self.store.segments(source, 0, FOREVER)
        kept = [(one.stream_id, one.person_id, round(one.start_s, 6)) for one in stored]
        return all(len(set(found)) == len(found) for found in (rows, results, lines, kept)) and bool(rows)

    def segments(self, source: str) -> list[Segment]:
        """Return the closed segments in the store."""
        return sorted(
            _segment(one.person_id, segment_document(one)) for one in self.store.segments(source, 0, FOREVER)
        )

    def counts(self, source: str) -> Counts:
        return self.queue.counts(self.stream_id(source))

    def rows(self, source: str) -> list[str]:
        """Return the lines of all frames.csv of a source, without session and wall time."""
        return [line.rsplit(",", 2)[0] for line in self.dated_rows(source)]

    def dated_rows(self, source: str) -> list[str]:
        """Return the lines of all frames.csv of a source, without header."""
        tables = sorted(self.files.glob(f"{source}/*.frames.csv"))
        return [line for table in tables for line in table.read_text().splitlines()[1:]]

    def lines(self, source: str, kind: str) -> list[dict[str, Any]]:
        """Return the lines of one kind of all segments.jsonl of a source."""
        files = sorted(self.files.glob(f"{source}/*.segments.jsonl"))
        found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [line for line in found if line["kind"] == kind]

    def written_segments(self, source: str) -> list[Segment]:
        """Return the closed segments on disk."""
        return sorted(_segment(line["person_id"], line) for line in self.lines(source, "segment"))


def _rounded(gap: Gap) -> tuple[str, float, float]:
    return gap.reason, round(gap.start_s, 6), round(gap.end_s, 6)


def _segment(person: int, document: SegmentDocument | dict[str, Any]) -> Segment:
    return person, document["label"], document["start_s"], document["end_s"], document["mean_prob"]


def secret_forms(secret: str) -> list[bytes]:
    """Return the forms of a password: plain, in a URL, in an HTTP header, and the part after its @."""
    header = b64encode(f"viewer:{secret}".encode())
    return [secret.encode(), quote(secret, safe="").encode(), header, secret.rpartition("@")[2].encode()]


@pytest.fixture
def service(yunet_weights: Path, canary: str) -> Iterator[Callable[..., Service]]:
    """Create services that are not started yet: `service(sources={…}, workers={…})`.

    They classify every face, so that the fate of each is known. After every test, the canary password must not occur
    in logs and files.
    """
    services: list[Service] = []
    folders: list[Path] = []

    def make(**settings: Any) -> Service:
        # The path of pytest's temporary directory may be too long for a socket.
        folders.append(Path(tempfile.mkdtemp(prefix="fer-")))
        detector = {"type": "yunet", "weights": str(yunet_weights)}
        model = {"interval_s": 0, **settings.pop("model", {})}
        services.append(Service(folders[-1], {"detector": detector, "model": model, **settings}))
        return services[-1]

    yield make
    for each in services:
        each.close()
    leaked = [form for each in services for form in each.leaks(canary)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    assert not leaked


class ExpectedResults:
    """The results of `fer-stream run` on a clip."""

    def __init__(self, analysis: Analysis) -> None:
        self.indexes = [frame.index for frame in analysis.frames]
        self.rows = "".join(map(frame_rows, analysis.frames)).splitlines()
        self.segments: list[Segment] = sorted(
            _segment(person.person_id, segment_document(segment))
            for person in analysis.summary.people
            for segment in person.segments
        )

    def is_complete_in(self, service: Service, source: str) -> bool:
        """Return True if all segments are closed and all rows are written."""
        return len(service.segments(source)) >= len(self.segments) and len(service.rows(source)) >= len(self.rows)

    def assert_equal_in(self, service: Service, source: str) -> None:
        """Assert that store and files hold exactly these results and that no face was lost."""
        assert [frame.index for frame in service.results(source)] == self.indexes
        assert service.rows(source) == self.rows
        assert service.segments(source) == self.segments
        assert service.written_segments(source) == self.segments
        counts = service.counts(source)
        assert (counts.dropped, counts.dead, counts.pending) == (0, 0, 0)
        assert counts.enqueued == counts.acked
        print(f"{source}: enqueued = acknowledged = {counts.enqueued}")


@pytest.fixture(scope="session")
def expected_results(clips: Path, yunet_weights: Path) -> Callable[[str], ExpectedResults]:
    """`expected_results(name of a clip)`, computed once per session; every face is classified."""
    settings = FileSettings(
        detector=DetectorSettings(type="yunet", weights=yunet_weights), model=ModelSettings(interval_s=0)
    )
    cache: dict[str, ExpectedResults] = {}

    def find(name: str) -> ExpectedResults:
        if name not in cache:
            cache[name] = ExpectedResults(analyze(clips / f"{name}.mp4", settings))
        return cache[name]

    return find


@pytest.fixture(scope="session")
def faces(clips: Path, yunet_weights: Path) -> Callable[[str], list[FaceCrop]]:
    """`faces(name of a clip)`: the face crops that a capture process extracts, in order."""

    def find(name: str) -> list[FaceCrop]:
        settings, metrics = FileSettings(), Metrics(CollectorRegistry())
        source = factory.open_file(clips / f"{name}.mp4", name=name, stream_start_ms=1, options=EVERYTHING, threads=1)
        detector = factory.make_detector(DetectorSettings(type="yunet", weights=yunet_weights))
        extractor = factory.make_extractor(source, detector, settings, metrics, classify_interval_s=0)
        items = [item for frame in source.frames() for item in extractor.process(frame)]
        return [item for item in (*items, *extractor.flush()) if isinstance(item, FaceCrop)]

    return find
