"""Cost of more cameras, faces, pixels and length, as PNG plots and tables.

    python -m benchmarks.growth [--only cameras faces pixels length] [--longest 3600] [--out docs/images]

Runs on the first core available to this process; cameras are sent from the second one. A point is the median of three
alternating runs, except for cameras and lengths, which are measured once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

from benchmarks.file_job import decode
from benchmarks.goals import NotMeasurable, Rounds
from benchmarks.material import ROOT, clip_frames, table
from benchmarks.plot import Curve, Panel, draw
from benchmarks.rows import Options, available_cores, pinned
from benchmarks.rows.live import measure_cameras, one_core_testbed
from benchmarks.rows.recorded import run
from benchmarks.scenes import (
    MAX_FACES,
    as_camera_stream,
    encode_video,
    face_grid,
    frame_rate,
    moving_faces,
    repeat_clip,
    resized,
)
from benchmarks.soak.report import machine
from fer_stream import analyze
from fer_stream.files import FileProcessor

CAMERAS = (1, 2, 4, 8, 16)
FACES = (1, 2, 4, 8, 12, 16, MAX_FACES)
SIZES = ((640, 360), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
LENGTHS_S = (10, 60, 600, 3600)

_ROLES = ("capture", "classify", "timeline", "queue", "store")
_FRAMES = 90
_POLL_INTERVAL_S = 0.05
_FPS = 15


def cameras(options: Options) -> tuple[str, list[Panel]]:
    """Measure increasing numbers of cameras with the whole service on one core."""
    steps = []
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        _, testbed = one_core_testbed(Path(folder), options, stack, first=CAMERAS[0])
        for number in CAMERAS:
            steps.append(measure_cameras(testbed, number, 8.0, 20.0))
            print("  " + ", ".join(steps[-1].cells()), file=sys.stderr, flush=True)
        testbed.service.stop()
    head = ["cameras", "share of the core", *(f"{role}, per camera" for role in _ROLES), "p50", "p95", "dropped/s",
            "capture, PSS", "service, PSS"]  # fmt: skip
    rows = [
        [
            str(step.cameras),
            f"{step.service:.0%}",
            *(f"{step.roles[role] / step.cameras:.1%}" for role in _ROLES),
            *(f"{1000 * step.latency_s.get(which, float('nan')):,.0f} ms" for which in ("p50", "p95")),
            f"{step.dropped_frames + step.dropped_faces:.1f}",
            f"{step.memory_mb['capture']:.0f} MB",
            f"{sum(step.memory_mb.values()):.0f} MB",
        ]
        for step in steps
    ]
    x = [float(step.cameras) for step in steps]
    p95 = [1000 * step.latency_s.get("p95", float("nan")) for step in steps]
    panels = [
        Panel("share of one core", "cameras", [Curve("service", x, [100 * s.service for s in steps])], "%"),
        Panel("frame to result, p95", "cameras", [Curve("p95", x, p95)], "ms", line=100, log=True),
        Panel(
            "memory (PSS)", "cameras",
            [Curve(role, x, [step.memory_mb[role] for step in steps]) for role in ("capture", "classify")],
            "MB",
        ),
    ]  # fmt: skip
    return table(head, rows), panels


def faces(options: Options) -> tuple[str, list[Panel]]:
    """Measure a file of 1280×720 px with increasing numbers of real faces of the same size."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        tiles = moving_faces(options.material / "clips", options.weights)
        clips = {}
        for number in FACES:
            clips[number] = Path(folder) / f"{number}.mp4"
            frames = (face_grid(tiles[:number], index) for index in range(_FRAMES))
            encode_video(frames, clips[number], _FPS, as_camera=False)
        detected = {number: _faces_per_frame(clip, options) for number, clip in clips.items()}
        rounds = _alternate({str(number): clip for number, clip in clips.items()}, options)
    ms = [1000 * median(rounds.seconds[f"run {number}"]) / _FRAMES for number in FACES]
    decoding = [1000 * median(rounds.seconds[f"decode {number}"]) / _FRAMES for number in FACES]
    rows = [
        [
            str(number),
            f"{detected[number]:.1f}",
            f"{decode_ms:.2f}",
            f"{run_ms:.2f}",
            f"{(run_ms - decode_ms) / number:.2f}",
        ]
        for number, run_ms, decode_ms in zip(FACES, ms, decoding, strict=True)
    ]
    head = [
        "faces",
        "detected per frame",
        "decoding, ms per frame",
        "run, ms per frame",
        "run without decoding, ms per face",
    ]
    x = [float(number) for number in FACES]
    panel = Panel("time per frame", "faces in view", [Curve("run", x, ms), Curve("decoding", x, decoding)], "ms")
    return table(head, rows), [panel]


def pixels(options: Options) -> tuple[str, list[Panel]]:
    """Measure one clip with one face, from 360p to 4K."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        clips = {}
        for size in SIZES:
            clips[f"{size[1]}p"] = Path(folder) / f"{size[1]}.mp4"
            images = islice(resized(options.clip("one_face_crying"), _FPS, size), _FRAMES)
            encode_video(images, clips[f"{size[1]}p"], _FPS, as_camera=False)
        rounds = _alternate(clips, options)
        peaks = [_run(clip, options)[1] for clip in clips.values()]
    ms = [1000 * median(rounds.seconds[f"run {name}"]) / _FRAMES for name in clips]
    decoding = [1000 * median(rounds.seconds[f"decode {name}"]) / _FRAMES for name in clips]
    rows = [
        [name, f"{decode_ms:.2f}", f"{run_ms:.2f}", f"{decode_ms / run_ms:.2f}", f"{peak:.0f} MB"]
        for name, decode_ms, run_ms, peak in zip(clips, decoding, ms, peaks, strict=True)
    ]
    head = ["", "decoding, ms per frame", "run, ms per frame", "share of decoding speed", "peak memory (RSS)"]
    x = [width * height / 1e6 for width, height in SIZES]
    return table(head, rows), [
        Panel("time per frame", "megapixels", [Curve("run", x, ms), Curve("decoding", x, decoding)], "ms"),
        Panel("peak memory (RSS)", "megapixels", [Curve("run", x, peaks)], "MB"),
    ]


def length(options: Options, longest_s: float) -> tuple[str, list[Panel]]:
    """Measure `fer-stream run` on 10 s to one hour of a repeated clip."""
    rows, x, durations, peaks = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        clip, _ = as_camera_stream(options.clip("one_face_crying"), Path(folder))
        loop_s = sum(1 for _ in clip_frames(clip, every=1)) / frame_rate(clip)
        for seconds in (each for each in LENGTHS_S if each <= longest_s):
            long = Path(folder) / "long.mp4"
            times = max(1, round(seconds / loop_s))
            repeat_clip(clip, times, long)
            run_s, peak_mb = _run(long, options)
            video_s = times * loop_s
            rows.append([f"{video_s:,.0f} s", f"{run_s:.1f} s", f"{video_s / run_s:.1f} ×", f"{peak_mb:.0f} MB"])
            x.append(video_s / 60)
            durations.append(run_s)
            peaks.append(peak_mb)
            print("  " + ", ".join(rows[-1]), file=sys.stderr, flush=True)
    return table(["video", "duration", "× real time", "peak memory (RSS)"], rows), [
        Panel("duration of the command", "minutes of video", [Curve("run", x, durations)], "s"),
        Panel("peak memory (RSS)", "minutes of video", [Curve("run", x, peaks)], "MB"),
    ]


def _faces_per_frame(clip: Path, options: Options) -> float:
    frames = analyze(clip, options.settings).frames
    return sum(len(frame.faces) for frame in frames) / len(frames)


def _alternate(clips: dict[str, Path], options: Options) -> Rounds:
    """Decode and process the clips alternately on one core."""
    with pinned(available_cores(1)):
        processor = FileProcessor(options.settings, threads=1)
        works: dict[str, Callable[[], object]] = {}
        for name, clip in clips.items():
            works[f"decode {name}"] = partial(decode, clip)
            works[f"run {name}"] = partial(run, processor, clip)
        rounds = Rounds(works)
        rounds.run(3)
    return rounds


def _run(clip: Path, options: Options) -> tuple[float, float]:
    """Return the duration of `fer-stream run` on one core in seconds, and its peak memory (RSS) in MB."""
    peak_mb = 0.0
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, pinned(available_cores(1)):
        command = [sys.executable, "-m", "fer_stream.cli", "run", str(clip), "--out", folder, "--no-video",
                   "--no-report", "--weights", str(options.weights)]  # fmt: skip
        started_s = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak_mb = max(peak_mb, _peak_mb(process.pid))
            time.sleep(_POLL_INTERVAL_S)
        run_s = time.monotonic() - started_s
    if process.returncode:
        raise NotMeasurable(f"`fer-stream run` ended with exit code {process.returncode}")
    return run_s, peak_mb


def _peak_mb(pid: int) -> float:
    """Return the peak memory of a process, 0 if it has ended.

    ru_maxrss of children includes the memory of the parent that forked them.
    """
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return 0.0


CURVES: dict[str, Callable[[Options, float], tuple[str, list[Panel]]]] = {
    "cameras": lambda options, _: cameras(options),
    "faces": lambda options, _: faces(options),
    "pixels": lambda options, _: pixels(options),
    "length": length,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--longest", type=float, default=LENGTHS_S[-1], help="seconds of the longest video")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="directory for growth-NAME.png")
    chosen = parser.parse_args()
    options = Options()
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    for name in chosen.only:
        numbers, panels = CURVES[name](options, chosen.longest)
        draw(panels, chosen.out / f"growth-{name}.png")
        print(f"\n{name}\n\n{numbers}", flush=True)


if __name__ == "__main__":
    main()
