"""How many cameras one core captures: frames kept up with, end-to-end time, memory.

    python -m benchmarks.live_cameras CLIP [--cameras 1 4 8 12 16] [--seconds 20]

CLIP is played in real time by every camera for as long as the run lasts; a clip of 640×360 at 15 fps with one face is
the usual case. The capture process has one core, workers, timeline and servers the other. A camera that cannot be
kept up with shows as fewer frames than its rate.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import av

from benchmarks.scenes import repeated
from fer_stream.queues.embedded import EmbeddedServer

PORTS = {"capture": 19600, "recognize": 19601, "timeline": 19602}
WARM_UP_S = 8.0


def scrape(role: str) -> dict[str, float]:
    text = urlopen(f"http://127.0.0.1:{PORTS[role]}/metrics").read().decode()
    return {name: float(value) for name, value in re.findall(r"^(fer_\S+) (\S+)$", text, re.MULTILINE)}


def frames(samples: dict[str, float]) -> float:
    return sum(value for name, value in samples.items() if name.startswith("fer_frames_total"))


def p95_s(before: dict[str, float], after: dict[str, float]) -> float:
    """The upper bound of the bucket in which the 95th percentile of end-to-end times lies."""
    counts = {
        float(bound): after[name] - before.get(name, 0.0)
        for name in after
        for bound in re.findall(r'fer_end_to_end_seconds_bucket\{le="([^"]+)"\}', name)
    }
    total = max(counts.values())
    return min(bound for bound, count in counts.items() if count >= 0.95 * total)


def memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"Pss:\s+(\d+)", text)[0]) / 1024


def measure(clip: Path, cameras: int, seconds: float, weights: Path | None) -> None:
    fps, long = lengthened(clip, seconds + WARM_UP_S + 10)
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        config = Path(folder) / "live.yaml"
        sources = "".join(f"  camera-{number}: {{url: {long}}}\n" for number in range(cameras))
        detector = f"detector: {{weights: {weights}}}\n" if weights else ""
        config.write_text(f"sources:\n{sources}{detector}state_dir: {folder}/state\n")
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[-1]})
        for role in ("queue", "store"):
            stack.callback(EmbeddedServer(Path(folder) / "state", role).close)
        processes = {}
        for role, port in PORTS.items():
            core = cores[0] if role == "capture" else cores[-1]
            command = [sys.executable, "-m", "fer_stream.cli", "worker", role, "--config", str(config)]
            processes[role] = subprocess.Popen(
                ["taskset", "-c", str(core), *command, "--metrics-port", str(port)], stderr=subprocess.DEVNULL
            )
            stack.callback(processes[role].wait)
            stack.callback(processes[role].terminate)
        time.sleep(WARM_UP_S)
        began_s, capture, timeline = time.monotonic(), scrape("capture"), scrape("timeline")
        time.sleep(seconds)
        lasted_s = time.monotonic() - began_s
        done = frames(scrape("capture")) - frames(capture)
        late_s = p95_s(timeline, scrape("timeline"))
        memory = ", ".join(f"{role} {memory_mb(process.pid):.0f} MB" for role, process in processes.items())
        os.sched_setaffinity(0, set(cores))
        kept = done / (cameras * fps * lasted_s)
        print(f"{cameras:3} cameras: {done / lasted_s:4.0f} frames/s, {kept:6.1%} of the rate, p95 ≤ {late_s} s")
        print(f"    {memory}")


def lengthened(clip: Path, seconds: float) -> tuple[float, Path]:
    """The clip's frame rate, and a file that repeats the clip for at least `seconds`."""
    target = Path(tempfile.gettempdir()) / f"fer-bench-{clip.stem}.mp4"
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        assert stream.average_rate is not None
        length_s = sum(packet.pts is not None for packet in source.demux(stream)) / float(stream.average_rate)
    return repeated(clip, int(seconds / length_s) + 1, target), target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4, 8, 12, 16])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--weights", type=Path, help="YuNet's, where they are not in the cache")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, capture on one core, the rest on another")
    for cameras in options.cameras:
        measure(options.clip, cameras, options.seconds, options.weights)


if __name__ == "__main__":
    main()
