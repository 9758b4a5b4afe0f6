"""One soak run: start cameras and service, inject faults, and collect results, metrics and files."""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, cast
from urllib.parse import quote

import redis

from benchmarks.rtsp import PASSWORD, Camera
from benchmarks.scenes import FPS, LOOP_S, EncodedScene, encode_scene, extract_heads, labels_of_run
from benchmarks.service import Service
from benchmarks.soak.account import Span
from benchmarks.soak.faults import Fault, Testbed, inject_until
from benchmarks.soak.truth import Row, read_lines, read_rows
from benchmarks.watch import Arrival, Observations, Subscriber, Watcher
from fer_stream.broker.embedded import EmbeddedServer

_SCRAPE_INTERVAL_S = 5.0
_COOL_DOWN_S = 30.0
_SETTLE_S = 20.0
_PEOPLE = (2, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters of a run. `kinds` are names of `FAULTS`, or empty for no faults."""

    cameras: int
    minutes: float
    seed: int
    every_s: float
    kinds: Sequence[str]
    clips: Path
    weights: Path


@dataclass(frozen=True, slots=True)
class Tables:
    """Data of one source: table rows, keys of all rows, segments and gaps on disk, and segments in the store."""

    rows: list[Row]
    keys: list[tuple[str, ...]]
    segments: list[dict[str, Any]]
    gaps: list[dict[str, Any]]
    stored: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Observed:
    """Data for the report. `span` is the time from the start of all cameras to the end, in Unix seconds.

    `since_s` is the time at which each camera started its video. `counted_s` is the time of the last read of the
    queue counts, after all faces were processed.
    """

    plan: Plan
    span: Span
    since_s: dict[str, float]
    films: dict[str, EncodedScene]
    expected_labels: dict[str, list[tuple[str, ...]]]
    faults: list[Fault]
    arrivals: dict[str, list[Arrival]]
    watched: Observations
    counted_s: float
    tables: dict[str, Tables]
    leaks: list[str]
    searched: int
    exit_code: int


def observe(plan: Plan) -> Observed:
    """Run the soak. Ctrl-C and SIGTERM end it early with a report of the data so far."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="fer-") as name, ExitStack() as stack:
        return _observe(plan, Path(name), stack, stop)


def _observe(plan: Plan, folder: Path, stack: ExitStack, stop: Event) -> Observed:
    extract_heads(plan.clips, plan.weights, folder / "sprites")
    names = [f"camera-{number}" for number in range(plan.cameras)]
    films = {
        name: encode_scene(folder / "sprites", folder, seed=plan.seed + number, people=_PEOPLE[number % len(_PEOPLE)])
        for number, name in enumerate(names)
    }
    expected_labels = {name: labels_of_run(film, plan.weights) for name, film in films.items()}
    # No person is visible at the end of a loop. Offsets avoid that all cameras show nobody at the same time.
    since_s = {name: time.time() - number * LOOP_S / len(names) for number, name in enumerate(names)}
    cameras = [Camera(name, films[name].stream, since_s=since_s[name], fps=FPS) for name in names]
    for camera in cameras:
        stack.callback(camera.kill)
        camera.start()
    sources: dict[str, dict[str, Any]] = {camera.name: {"url": camera.url} for camera in cameras}
    detector = {"type": "yunet", "weights": str(plan.weights)}
    service = Service(folder, {"sources": sources, "detector": detector, "log": {"level": "debug"}})
    stack.callback(service.kill)
    service.start()
    over = Event()
    stack.callback(over.set)
    subscriber = Subscriber(service, names, over)
    watcher = Watcher(service, over, every_s=_SCRAPE_INTERVAL_S, forbidden=_forms(PASSWORD))
    subscriber.start()
    watcher.start()
    service.wait(lambda: all(subscriber.arrivals.values()), "results of all cameras")
    started_s = time.time()
    print(f"{time.strftime('%H:%M:%S')} all cameras are connected", flush=True)
    rig = Testbed(service, cameras, sources, random.Random(plan.seed))
    end_s = started_s + 60 * plan.minutes
    faults = inject_until(end_s - _COOL_DOWN_S, rig, subscriber, kinds=plan.kinds, every_s=plan.every_s, stop=stop)
    stop.wait(max(0.0, end_s - time.time()))
    span = started_s, time.time()
    for camera in cameras:
        camera.kill()
    time.sleep(_SETTLE_S)
    over.set()
    watcher.join()
    subscriber.join()
    counted_s = time.time()
    watcher.sample()
    contents = [*_contents(service.socket("queue")), *_contents(service.socket("store"))]
    exit_code = service.stop()
    with EmbeddedServer(service.state_dir, "store"):
        contents += _contents(service.socket("store"))
        stored = {name: _stored(service, name) for name in names}
    leaks, searched = _leaks(service, contents)
    return Observed(
        plan=plan,
        span=span,
        since_s=since_s,
        films=films,
        expected_labels=expected_labels,
        faults=faults,
        arrivals=subscriber.arrivals,
        watched=watcher.observed,
        counted_s=counted_s,
        tables={name: _tables(service.files / name, stored[name]) for name in names},
        leaks=sorted({*leaks, *watcher.observed.secrets}),
        searched=searched,
        exit_code=exit_code,
    )


def _tables(folder: Path, stored: list[dict[str, Any]]) -> Tables:
    rows, keys = read_rows(folder)
    return Tables(rows, keys, read_lines(folder, "segment"), read_lines(folder, "gap"), stored)


def _stored(service: Service, name: str) -> list[dict[str, Any]]:
    """Return the segments of a source in the store (docs/reference/store.md)."""
    with redis.Redis(unix_socket_path=str(service.socket("store")), protocol=2) as client:
        return [json.loads(text) for text in cast(list[bytes], client.zrange(f"fer:store:{name}:segments", 0, -1))]


def _forms(secret: str) -> list[bytes]:
    """Return the forms of a password: plain, in a URL, in an HTTP header."""
    return [secret.encode(), quote(secret, safe="").encode(), b64encode(f"viewer:{secret}".encode())]


def _contents(path: Path) -> Iterator[bytes]:
    """Yield every key of a server and its value."""
    with redis.Redis(unix_socket_path=str(path), protocol=2) as client:
        for key in client.scan_iter():
            yield key
            readers: dict[bytes, Callable[[bytes], object]] = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"set": client.smembers,
                b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
                b"stream": client.xrange,
            }
            # A key that has expired in the meantime has no type.
            if reader := readers.get(cast(bytes, client.type(key))):
                yield repr(reader(key)).encode("latin-1", "backslashreplace")


def _leaks(service: Service, contents: Sequence[bytes]) -> tuple[list[str], int]:
    """Return where a camera password was found, and the number of bytes searched."""
    files = [
        path for path in (service.log, *service.files.rglob("*"), *service.state_dir.rglob("*")) if path.is_file()
    ]
    places = {path.name: path.read_bytes() for path in files} | {"servers": b"\n".join(contents)}
    forms = _forms(PASSWORD)
    found = [name for name, data in places.items() if any(form in data for form in forms)]
    return found, sum(map(len, places.values()))
