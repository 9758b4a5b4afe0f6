"""Maximum number of cameras on this machine, and behaviour at twice that number.

    python -m benchmarks.capacity [--step 2] [--seconds 30]

Cameras are added by SIGHUP until half of the results take more than 100 ms or a tenth of the frames is dropped. The
first number at which 5 % of the results took more than 100 ms, or more than 0.2 % were dropped, is then doubled and
halved again. All cameras are RTSP streams of 640×360 at 15 fps with up to two people, sent by four servers and
decoded separately. The service is `fer-stream serve` with one capture process per core and default settings
otherwise.
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
from benchmarks.rtsp import Camera, cameras_cpu_s
from benchmarks.scenes import FPS, LOOP_S, encode_scene, extract_heads
from benchmarks.service import Service
from benchmarks.soak.account import Span, increase, percentiles
from benchmarks.soak.report import machine
from benchmarks.watch import Subscriber, Watcher, busy_s
from fer_stream.records import shard_of

_MAX_CAMERAS = 64
_SERVERS = 4
_SETTLE_S = 12.0
_MAX_LATENCY_S = 0.1
_MAX_DROPPED = 0.002
_PHASE_S = 60.0
_GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class Step:
    """Measurement at one number of cameras. Rates are per second, summed over all cameras.

    `faces` is the mean number of faces per result. `service` is the CPU usage as a share of the cores of the service;
    `generator` and `others` are shares of all cores. `roles` is the number of cores used by each role, `memory_mb`
    the final PSS of each role.
    """

    cameras: int
    results: float
    faces: float
    dropped_frames: float
    dropped_faces: float
    latency_s: dict[str, float]
    service: float
    generator: float
    others: float
    roles: dict[str, float]
    memory_mb: dict[str, float]

    @property
    def is_sustained(self) -> bool:
        """True if 95 % of the results are in time and at most 0.2 % are dropped."""
        dropped = self.dropped_frames + self.dropped_faces
        return self.latency_s.get("p95", 1) <= _MAX_LATENCY_S and dropped <= _MAX_DROPPED * self.cameras * FPS

    @property
    def is_lossless(self) -> bool:
        """True if 95 % of the results are in time, nothing is dropped and the result rate is complete."""
        complete = self.results >= (1 - _MAX_DROPPED) * self.cameras * FPS
        return (
            self.latency_s.get("p95", 1) <= _MAX_LATENCY_S
            and self.dropped_frames + self.dropped_faces == 0
            and complete
        )

    @property
    def is_overloaded(self) -> bool:
        """True if adding cameras is pointless."""
        return self.latency_s.get("p50", 1) > _MAX_LATENCY_S or self.dropped_frames > 0.1 * self.cameras * FPS

    def cells(self) -> list[str]:
        """Return the cells of a table row."""
        latency = [f"{1000 * self.latency_s.get(which, float('nan')):,.0f} ms" for which in ("p50", "p95", "p99")]
        shares = [f"{share:.0%}" for share in (self.service, self.generator, self.others)]
        drops = [f"{rate:.1f}" for rate in (self.dropped_frames, self.dropped_faces)]
        rate = f"{self.results / (self.cameras * FPS):.1%}"
        return [str(self.cameras), rate, *drops, *latency, *shares, f"{sum(self.memory_mb.values()):.0f} MB"]


HEAD = ["cameras", "of the rate", "frames dropped/s", "faces dropped/s", "p50", "p95", "p99", "service",
        "camera servers, subscriber", "others", "memory (PSS)"]  # fmt: skip


class Testbed:
    """A running service with a variable number of cameras, restricted to `cores` if given.

    `streams` are the videos that the cameras send, `settings` the settings of the service except its sources, `first`
    the initial number of cameras.
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
        # The servers start their videos at different times, so that the number of visible people is about constant.
        started_s = [time.time() - number * LOOP_S / _SERVERS for number in range(_SERVERS)]
        self._servers = [
            Camera(f"server-{number}", streams[number % len(streams)], since_s=since_s, fps=FPS)
            for number, since_s in enumerate(started_s)
        ]
        for server in self._servers:
            stack.callback(server.kill)
            server.start()
        self._cores = len(cores) if cores else os.cpu_count() or 1
        self._names = _names(self._cores)
        self.service = Service(folder, {"sources": self._sources(first), **settings}, cores=cores)
        stack.callback(self.service.kill)
        self.service.start()
        stop = Event()
        stack.callback(stop.set)
        self.subscriber = Subscriber(self.service, self._names, stop)
        self.watcher = Watcher(self.service, stop, every_s=1.0)
        self.subscriber.start()
        self.watcher.start()
        initial = self._names[:first]
        self.service.wait(lambda: all(self.subscriber.arrivals[name] for name in initial), "results of all cameras")

    def _sources(self, cameras: int) -> dict[str, Any]:
        return {
            name: {"url": self._servers[number % len(self._servers)].url}
            for number, name in enumerate(self._names[:cameras])
        }

    def set_cameras(self, cameras: int) -> None:
        """Change the number of cameras."""
        self.service.reload(self._sources(cameras))

    def measure(self, cameras: int, seconds: float) -> Step:
        """Measure for `seconds`."""
        before, used, busy = time.time(), self._used_s(), busy_s()
        time.sleep(seconds)
        window = before, time.time()
        duration_s = window[1] - before
        spent = {role: now - used.get(role, 0.0) for role, now in self._used_s().items()}
        generator = spent.pop(_GENERATOR)
        service = sum(spent.values())
        available_s = duration_s * (os.cpu_count() or 1)
        arrived = [one for some in self._arrived(window) for one in some]
        return Step(
            cameras=cameras,
            results=len(arrived) / duration_s,
            faces=sum(one.faces for one in arrived) / max(1, len(arrived)),
            dropped_frames=self._rise("fer_frames_dropped_total", window) / duration_s,
            dropped_faces=self._rise("fer_crops_dropped_total", window) / duration_s,
            latency_s=percentiles([one.latency_s for one in arrived]),
            service=service / (duration_s * self._cores),
            generator=generator / available_s,
            others=max(0.0, busy_s() - busy - service - generator) / available_s,
            roles={role: each / duration_s for role, each in spent.items()},
            memory_mb=self._memory_mb(),
        )

    def _arrived(self, window: Span) -> list[list[Any]]:
        return [
            [one for one in self.subscriber.since(name, window[0]) if one.received_s <= window[1]]
            for name in self._names
        ]

    def _rise(self, name: str, window: Span) -> float:
        series = [samples for (_, key), samples in self.watcher.observed.metrics.items() if key.startswith(name)]
        return sum(increase(list(samples), [window]) for samples in series)

    def _used_s(self) -> dict[str, float]:
        """Return the CPU time by role of the service, and of the load generator."""
        used: dict[str, float] = {_GENERATOR: cameras_cpu_s(self._servers) + time.process_time()}
        for member in self.service.processes():
            used[member.role] = used.get(member.role, 0.0) + member.cpu_s()
        return used

    def _memory_mb(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for member in self.service.processes():
            used[member.role] = used.get(member.role, 0.0) + member.pss_mb()
        return used


def _names(partitions: int) -> list[str]:
    """Return camera names that are assigned to the capture processes in turn."""
    fresh = count()
    found: list[str] = []
    while len(found) < _MAX_CAMERAS:
        name = f"camera-{next(fresh)}"
        if shard_of(name, partitions) == len(found) % partitions:
            found.append(name)
    return found


def ramp(bench: Testbed, step: int, seconds: float) -> list[Step]:
    """Add cameras until the service is overloaded."""
    steps: list[Step] = []
    for cameras in range(2, _MAX_CAMERAS // 2, step):
        bench.set_cameras(cameras)
        time.sleep(_SETTLE_S)
        steps.append(bench.measure(cameras, seconds))
        print("| " + " | ".join(steps[-1].cells()) + " |", flush=True)
        if steps[-1].is_overloaded:
            break
    return steps


def overload(bench: Testbed, cameras: int) -> list[list[str]]:
    """Measure the load, twice the load, and the load again, each starting 12 s after the change."""
    rows = []
    for phase, number in (("before", cameras), ("doubled", 2 * cameras), ("halved again", cameras)):
        bench.set_cameras(number)
        time.sleep(_SETTLE_S)
        rows.append([phase, *bench.measure(number, _PHASE_S).cells()])
        print("| " + " | ".join(rows[-1]) + " |", flush=True)
    return rows


def _crowd(folder: Path, clips: Path, weights: Path, stack: ExitStack) -> Testbed:
    """Create a testbed on the whole machine with one capture process per core and up to two people per camera."""
    extract_heads(clips, weights, folder / "sprites")
    films = [encode_scene(folder / "sprites", folder, seed=seed, people=2) for seed in (1, 2)]
    settings = {"detector": {"type": "yunet", "weights": str(weights)}, "workers": {"cameras_per_capture": 2}}
    return Testbed(folder, [film.stream for film in films], settings, stack, first=2 * (os.cpu_count() or 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--limit", type=int, help="skip the search and use this number of cameras as the limit")
    parser.add_argument("--clips", type=Path, default=FOLDER / "clips", help="videos from which heads are cropped")
    parser.add_argument(
        "--weights", type=Path, default=FOLDER / "detectors" / "face_detection_yunet_2023mar.onnx", help="YuNet, ONNX"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        bench = _crowd(Path(folder), options.clips, options.weights, stack)
        print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
        steps = [] if options.limit else ramp(bench, options.step, options.seconds)
        limit = options.limit or next((step.cameras for step in steps if not step.is_sustained), steps[-1].cameras)
        rows = overload(bench, limit)
    print(table(HEAD, [step.cells() for step in steps]))
    print(f"\nLimit: {limit} cameras\n")
    print(table(["phase", *HEAD], rows))


if __name__ == "__main__":
    main()
