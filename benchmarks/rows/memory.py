"""Memory of a capture process and of a worker, and whether it grows over the frames that a camera sends in an hour.

A file that is played as fast as it goes stands in for the camera.
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
    "classify": ("a CPU worker", Goal(150, at_most=True)),
}


def measure(options: Options) -> Iterator[Line]:
    """PSS, and what memory other than files grows by."""
    with tempfile.TemporaryDirectory(prefix="fer-") as name, ExitStack() as stack:
        folder = Path(name)
        clip, _ = as_camera_stream(options.clip("one_face_crying"), folder)
        repeat_clip(clip, _LOOPS, folder / "long.mp4")
        source = {"url": str(folder / "long.mp4"), "playback": "fast"}
        detector = {"type": "yunet", "weights": str(options.weights)}
        service = Service(folder, {"sources": {"clip": source}, "detector": detector})
        stack.callback(service.kill)
        service.start()
        over = Event()
        stack.callback(over.set)
        watcher = Watcher(service, over, every_s=1.0)
        watcher.start()
        usage, frames = watched(watcher, 15.0 if options.quick else 120.0)
        service.stop()
    for role, (title, goal) in _PROCESSES.items():
        lives = [one for one in usage if one.role == role]
        yield Line(title, tuple(one.pss_mb for one in lives), "MB", goal)
        yield Line(f"… grows in {_HOUR_FRAMES:,} frames, an hour of a camera", (growth(lives, frames),), "MB")


def watched(watcher: Watcher, at_most_s: float) -> tuple[list[Usage], float]:
    """What the processes had once they were warm, and how many frames, at the most an hour's, went through then."""
    time.sleep(_WARM_UP_S)
    began_s, first = time.time(), _frames(watcher)
    while time.time() < began_s + at_most_s and _frames(watcher) < first + _HOUR_FRAMES:
        time.sleep(1)
    return [one for one in watcher.observed.usage if one.time_s >= began_s], _frames(watcher) - first


def growth(usage: Sequence[Usage], frames: float) -> float:
    """MB by which a process grows in the frames of an hour, where `frames` went through while it was looked at."""
    times = [one.time_s for one in usage]
    per_second = slope([(times, [one.anonymous_mb for one in usage])], warm_up_s=0.0)
    return (per_second or 0.0) * (times[-1] - times[0]) / frames * _HOUR_FRAMES


def _frames(watcher: Watcher) -> float:
    series = watcher.observed.metrics.items()
    return sum(increase(list(samples)) for (_, name), samples in series if name.startswith("fer_frames_total"))
