"""Maximum number of cameras with the whole service on one core. Another core sends streams and reads results."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.agreement import accuracy, full_size
from benchmarks.capacity import Step, Testbed
from benchmarks.goals import Goal, Line, largest_passing
from benchmarks.rows import Options, available_cores, pinned
from benchmarks.scenes import as_camera_stream

_FIRST, _MAX_CAMERAS = 8, 48
_GOAL = Goal(12)
_P95_MS = Goal(100, at_most=True)


def measure(options: Options) -> Iterator[Line]:
    """Measure the maximum number of cameras with results in time and without drops."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        clip, testbed = one_core_testbed(Path(folder), options, stack, first=2)
        settle_s, window_s = (4.0, 6.0) if options.quick else (6.0, 15.0)
        steps: dict[int, Step] = {}

        def passes(cameras: int) -> bool:
            steps[cameras] = measure_cameras(testbed, cameras, settle_s, window_s)
            if not steps[cameras].is_lossless:  # repeated: another program may have used the core
                steps[cameras] = testbed.measure(cameras, window_s)
            print("  " + ", ".join(steps[cameras].cells()), file=sys.stderr, flush=True)
            return steps[cameras].is_lossless

        maximum = largest_passing(passes, _FIRST, _MAX_CAMERAS)
        testbed.service.stop()
        measured_accuracy = accuracy(clip, options.settings, full_size(clip, options.weights))
        yield Line("cameras", (maximum,), "", _GOAL, accuracy=measured_accuracy)
        if maximum:
            step = steps[maximum]
            yield Line(
                "p95 latency at that number",
                (1000 * step.latency_s["p95"],),
                "ms",
                _P95_MS,
                f"{step.faces:.3f} faces per result",
            )
            shares = [f"{role} {share / maximum:.1%}" for role, share in sorted(step.roles.items())]
            yield Line(
                "share of the core per camera", (100 * step.service / maximum,), "%", accuracy=", ".join(shares)
            )


def one_core_testbed(folder: Path, options: Options, stack: ExitStack, *, first: int) -> tuple[Path, Testbed]:
    """Return the clip that the cameras send, with one real face, and a service pinned to one core."""
    core, other = available_cores(2)
    stack.enter_context(pinned([other]))
    clip, stream = as_camera_stream(options.clip("one_face_crying"), folder)
    settings = {"detector": options.settings.detector.model_dump(mode="json"), "workers": {"cameras_per_capture": 64}}
    return clip, Testbed(folder, [stream], settings, stack, first=first, cores=[core])


def measure_cameras(testbed: Testbed, cameras: int, settle_s: float, window_s: float) -> Step:
    """Change the number of cameras, wait `settle_s`, and measure for `window_s`."""
    testbed.set_cameras(cameras)
    time.sleep(settle_s)
    return testbed.measure(cameras, window_s)
