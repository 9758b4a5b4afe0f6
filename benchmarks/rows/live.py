"""How many cameras one core carries with all of the service on it. Another core sends them and reads the results."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.agreement import accuracy, full_size
from benchmarks.capacity import Step, Testbed
from benchmarks.goals import Goal, Line, largest
from benchmarks.rows import Options, cores, pinned
from benchmarks.scenes import as_camera_stream

_FIRST, _MOST = 8, 48
_GOAL = Goal(12)
_P95_MS = Goal(100, at_most=True)


def measure(options: Options) -> Iterator[Line]:
    """The largest number of cameras whose results come in time and of which nothing is dropped."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        clip, bench = one_core(Path(folder), options, stack, first=2)
        settle_s, window_s = (4.0, 6.0) if options.quick else (6.0, 15.0)
        steps: dict[int, Step] = {}

        def carried(cameras: int) -> bool:
            steps[cameras] = at(bench, cameras, settle_s, window_s)
            if not steps[cameras].is_lossless:  # once more: somebody else may have had the core
                steps[cameras] = bench.measure(cameras, window_s)
            print("  " + ", ".join(steps[cameras].cells()), file=sys.stderr, flush=True)
            return steps[cameras].is_lossless

        most = largest(carried, _FIRST, _MOST)
        bench.service.stop()
        told = accuracy(clip, options.settings, full_size(clip, options.weights))
        yield Line("cameras", (most,), "", _GOAL, accuracy=told)
        if most:
            step = steps[most]
            yield Line(
                "p95 of so many", (1000 * step.latency_s["p95"],), "ms", _P95_MS, f"{step.faces:.3f} faces a result"
            )
            shares = [f"{role} {share / most:.1%}" for role, share in sorted(step.roles.items())]
            yield Line("of the core, a camera", (100 * step.service / most,), "%", accuracy=", ".join(shares))


def one_core(folder: Path, options: Options, stack: ExitStack, *, first: int) -> tuple[Path, Testbed]:
    """A service on one core before cameras with a real face each, and the clip that they send."""
    core, other = cores(2)
    stack.enter_context(pinned([other]))
    clip, stream = as_camera_stream(options.clip("one_face_crying"), folder)
    settings = {"detector": options.settings.detector.model_dump(mode="json"), "workers": {"cameras_per_capture": 64}}
    return clip, Testbed(folder, [stream], settings, stack, first=first, cores=[core])


def at(bench: Testbed, cameras: int, settle_s: float, window_s: float) -> Step:
    """What so many cameras come to, from `settle_s` after the change on."""
    bench.set_cameras(cameras)
    time.sleep(settle_s)
    return bench.measure(cameras, window_s)
