"""How many cameras this machine carries with everything on it, and what happens at twice as many.

    python -m benchmarks.capacity [--step 2] [--seconds 30]

Cameras are added, by SIGHUP, until half the results take more than 100 ms or a tenth of the pictures is dropped. Then
the first number at which 5 % took more than 100 ms, or more than 0.2 % was dropped, is doubled for a while and halved
again. All are real RTSP streams of 640×360 at 15 fps with up to two people, each decoded by itself; four servers send
them. The service is `fer-stream serve` with a capture process for each core and the rest as by default.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.material import FOLDER, table
from benchmarks.rtsp import Camera, cpu_s
from benchmarks.scenes import FPS, LOOP_S, cut_heads, make_film
from benchmarks.service import Service
from benchmarks.soak.account import Span, increase, percentiles
from benchmarks.soak.report import machine
from benchmarks.watch import Subscriber, Watcher, busy_s
from fer_stream.broker.keys import shard_of

_MOST = 64
_SERVERS = 4
_SETTLE_S = 12.0
_LIMIT_S = 0.1
_HICCUP = 0.002
_PHASE_S = 60.0
_GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class Step:
    """What so many cameras came to; rates are per second of all cameras.

    `faces` is how many a result has. `service` is a share of the cores that the service may use, `generator` and
    `others` are of all; `roles` is how many cores each role of the service took, `memory_mb` (PSS) what it had in
    the end.
    """

    cameras: int
    results: float
    faces: float
    dropped_pictures: float
    dropped_faces: float
    latency_s: dict[str, float]
    service: float
    generator: float
    others: float
    roles: dict[str, float]
    memory_mb: dict[str, float]

    @property
    def carried(self) -> bool:
        """95 % in time, and nothing dropped but for a hiccup."""
        dropped = self.dropped_pictures + self.dropped_faces
        return self.latency_s.get("p95", 1) <= _LIMIT_S and dropped <= _HICCUP * self.cameras * FPS

    @property
    def in_time(self) -> bool:
        """95 % in time, nothing dropped, and nothing that fell behind."""
        whole = self.results >= (1 - _HICCUP) * self.cameras * FPS
        return self.latency_s.get("p95", 1) <= _LIMIT_S and self.dropped_pictures + self.dropped_faces == 0 and whole

    @property
    def beyond(self) -> bool:
        """Are more cameras of no use?"""
        return self.latency_s.get("p50", 1) > _LIMIT_S or self.dropped_pictures > 0.1 * self.cameras * FPS

    def cells(self) -> list[str]:
        """A row of the table."""
        latency = [f"{1000 * self.latency_s.get(which, float('nan')):,.0f} ms" for which in ("p50", "p95", "p99")]
        shares = [f"{share:.0%}" for share in (self.service, self.generator, self.others)]
        drops = [f"{rate:.1f}" for rate in (self.dropped_pictures, self.dropped_faces)]
        rate = f"{self.results / (self.cameras * FPS):.1%}"
        return [str(self.cameras), rate, *drops, *latency, *shares, f"{sum(self.memory_mb.values()):.0f} MB"]


HEAD = ["cameras", "of the rate", "pictures dropped/s", "faces dropped/s", "p50", "p95", "p99", "service",
        "cameras' servers, subscriber", "others", "memory (PSS)"]  # fmt: skip


class Bench:
    """A running service whose number of cameras can be changed. All of it runs on `cores`, if these are given.

    `streams` are what the cameras send; `settings` are the service's but for its sources. `first` cameras are there
    from the beginning.
    """

    def __init__(
        self,
        folder: Path,
        streams: Sequence[Path],
        settings: dict[str, Any],
        stack: ExitStack,
        *,
        first: int,
        cores: Sequence[int] | None = None,
    ) -> None:
        # Each server begins its film at another moment, so that there are always about as many people.
        begun_s = [time.time() - number * LOOP_S / _SERVERS for number in range(_SERVERS)]
        self._servers = [
            Camera(f"server-{number}", streams[number % len(streams)], since_s=since_s, fps=FPS)
            for number, since_s in enumerate(begun_s)
        ]
        for server in self._servers:
            stack.callback(server.kill)
            server.start()
        self._cores = len(cores) if cores else os.cpu_count() or 1
        self._names = _names(self._cores)
        self.service = Service(folder, {"sources": self._sources(first), **settings}, cores=cores)
        stack.callback(self.service.end)
        self.service.start()
        over = Event()
        stack.callback(over.set)
        self.subscriber = Subscriber(self.service, self._names, over)
        self.watcher = Watcher(self.service, over, every_s=1.0)
        self.subscriber.start()
        self.watcher.start()
        shown = self._names[:first]
        self.service.wait(lambda: all(self.subscriber.arrivals[name] for name in shown), "results of all cameras")

    def _sources(self, cameras: int) -> dict[str, Any]:
        return {
            name: {"url": self._servers[number % len(self._servers)].url}
            for number, name in enumerate(self._names[:cameras])
        }

    def change(self, cameras: int) -> None:
        """Have so many cameras from now on."""
        self.service.reload(self._sources(cameras))

    def measure(self, cameras: int, seconds: float) -> Step:
        """What happens in the next `seconds`."""
        before, used, busy = time.time(), self._used_s(), busy_s()
        time.sleep(seconds)
        window = before, time.time()
        lasted_s = window[1] - before
        spent = {role: now - used.get(role, 0.0) for role, now in self._used_s().items()}
        generator = spent.pop(_GENERATOR)
        service = sum(spent.values())
        all_cores_s = lasted_s * (os.cpu_count() or 1)
        arrived = [one for some in self._arrived(window) for one in some]
        return Step(
            cameras=cameras,
            results=len(arrived) / lasted_s,
            faces=sum(one.faces for one in arrived) / max(1, len(arrived)),
            dropped_pictures=self._rise("fer_frames_dropped_total", window) / lasted_s,
            dropped_faces=self._rise("fer_crops_dropped_total", window) / lasted_s,
            latency_s=percentiles([one.latency_s for one in arrived]),
            service=service / (lasted_s * self._cores),
            generator=generator / all_cores_s,
            others=max(0.0, busy_s() - busy - service - generator) / all_cores_s,
            roles={role: each / lasted_s for role, each in spent.items()},
            memory_mb=self._memory_mb(),
        )

    def _arrived(self, window: Span) -> list[list[Any]]:
        return [
            [one for one in self.subscriber.since(name, window[0]) if one.received_s <= window[1]]
            for name in self._names
        ]

    def _rise(self, name: str, window: Span) -> float:
        series = [samples for (_, key), samples in self.watcher.seen.metrics.items() if key.startswith(name)]
        return sum(increase(list(samples), [window]) for samples in series)

    def _used_s(self) -> dict[str, float]:
        """Processor time by role of the service, and of what loads and watches it."""
        used: dict[str, float] = {_GENERATOR: cpu_s(self._servers) + time.process_time()}
        for member in self.service.members():
            used[member.role] = used.get(member.role, 0.0) + member.cpu_s()
        return used

    def _memory_mb(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for member in self.service.members():
            used[member.role] = used.get(member.role, 0.0) + member.pss_mb()
        return used


def _names(parts: int) -> list[str]:
    """Names that fall to the capture processes in turn."""
    fresh = count()
    found: list[str] = []
    while len(found) < _MOST:
        name = f"camera-{next(fresh)}"
        if shard_of(name, parts) == len(found) % parts:
            found.append(name)
    return found


def ramp(bench: Bench, step: int, seconds: float) -> list[Step]:
    """More and more cameras until it is too much."""
    steps: list[Step] = []
    for cameras in range(2, _MOST // 2, step):
        bench.change(cameras)
        time.sleep(_SETTLE_S)
        steps.append(bench.measure(cameras, seconds))
        print("| " + " | ".join(steps[-1].cells()) + " |", flush=True)
        if steps[-1].beyond:
            break
    return steps


def overload(bench: Bench, cameras: int) -> list[list[str]]:
    """The load, twice the load, and the load again, each from 12 s after the change on."""
    rows = []
    for phase, number in (("before", cameras), ("twice as many", 2 * cameras), ("half of them again", cameras)):
        bench.change(number)
        time.sleep(_SETTLE_S)
        rows.append([phase, *bench.measure(number, _PHASE_S).cells()])
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    return rows


def _crowd(folder: Path, clips: Path, weights: Path, stack: ExitStack) -> Bench:
    """The whole machine with a capture process for each core, before cameras with up to two people."""
    cut_heads(clips, weights, folder / "sprites")
    films = [make_film(folder / "sprites", folder, seed=seed, people=2) for seed in (1, 2)]
    settings = {"detector": {"type": "yunet", "weights": str(weights)}, "workers": {"cameras_per_capture": 2}}
    return Bench(folder, [film.stream for film in films], settings, stack, first=2 * (os.cpu_count() or 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--limit", type=int, help="the number that is too much, instead of looking for it")
    parser.add_argument("--clips", type=Path, default=FOLDER / "clips", help="where heads are cut from")
    parser.add_argument(
        "--weights", type=Path, default=FOLDER / "detectors" / "face_detection_yunet_2023mar.onnx", help="YuNet, ONNX"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        bench = _crowd(Path(folder), options.clips, options.weights, stack)
        print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
        steps = [] if options.limit else ramp(bench, options.step, options.seconds)
        limit = options.limit or next((step.cameras for step in steps if not step.carried), steps[-1].cameras)
        rows = overload(bench, limit)
    print(table(HEAD, [step.cells() for step in steps]))
    print(f"\nToo much: {limit} cameras\n")
    print(table(["phase", *HEAD], rows))


if __name__ == "__main__":
    main()
