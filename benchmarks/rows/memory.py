"""Memory of a capture process and of a worker, and its growth over the number of frames of one camera in an hour.

A file with `playback: fast` replaces the camera, which shortens the measurement.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from benchmarks.goals import Goal, Line
from benchmarks.rows import Options
from benchmarks.scenes import FPS, as_camera_stream, repeat_clip
from benchmarks.service import Service
from benchmarks.soak.account import increase, slope
from benchmarks.watch import Usage, Watcher

_HOUR_FRAMES = 3600 * FPS
_LOOPS = 300
_WARM_UP_S = 10.0
_PROCESSES = {
    "capture": ("a capture process", Goal(230, at_most=True)),
    "classify": ("a classification worker", Goal(150, at_most=True)),
}


def measure(options: Options) -> Iterator[Line]:
    """Measure PSS, and the growth of memory without file-backed pages."""
    with tempfile.TemporaryDirectory(prefix="fer-") as name, ExitStack() as stack:
        folder = Path(name)
        clip, _ = as_camera_stream(options.clip("one_face_crying"), folder)
        repeat_clip(clip, _LOOPS, folder / "long.mp4")
        source = {"url": str(folder / "long.mp4"), "playback": "fast"}
        detector = {"type": "yunet", "weights": str(options.weights)}
        service = Service(folder, {"sources": {"clip": source}, "detector": detector})
        stack.callback(service.kill)
        service.start()
        done = Event()
        stack.callback(done.set)
        watcher = Watcher(service, done, every_s=1.0)
        watcher.start()
        usage, frames = collect_usage(watcher, 15.0 if options.quick else 120.0)
        service.stop()
    for role, (title, goal) in _PROCESSES.items():
        samples = [sample for sample in usage if sample.role == role]
        yield Line(title, tuple(sample.pss_mb for sample in samples), "MB", goal)
        yield Line(
            f"… growth in {_HOUR_FRAMES:,} frames (1 h of one camera)", (hourly_growth_mb(samples, frames),), "MB"
        )


def collect_usage(watcher: Watcher, max_duration_s: float) -> tuple[list[Usage], float]:
    """Return samples taken after the warm-up, and the number of frames processed meanwhile (at most one hour's)."""
    time.sleep(_WARM_UP_S)
    start_s, first = time.time(), _frames(watcher)
    while time.time() < start_s + max_duration_s and _frames(watcher) < first + _HOUR_FRAMES:
        time.sleep(1)
    return [sample for sample in watcher.observed.usage if sample.time_s >= start_s], _frames(watcher) - first


def hourly_growth_mb(usage: Sequence[Usage], frames: float) -> float:
    """Return the growth in MB per `_HOUR_FRAMES`, from samples taken while `frames` were processed."""
    times = [sample.time_s for sample in usage]
    per_second = slope([(times, [sample.anonymous_mb for sample in usage])], warm_up_s=0.0)
    return (per_second or 0.0) * (times[-1] - times[0]) / frames * _HOUR_FRAMES


def _frames(watcher: Watcher) -> float:
    series = watcher.observed.metrics.items()
    return sum(increase(list(samples)) for (_, name), samples in series if name.startswith("fer_frames_total"))
