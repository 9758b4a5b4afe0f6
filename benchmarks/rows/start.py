"""Time from a command to its first output: the help, and the first rows of a table on disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.goals import Goal, Line, NotMeasurable, Rounds
from benchmarks.rows import Options
from fer_stream.outputs.table import COLUMNS

_COMMAND = (sys.executable, "-m", "fer_stream.cli")
_HEADER = len(",".join(COLUMNS)) + 1
_POLL_INTERVAL_S = 0.002
_TIMEOUT_S = 60.0


def measure(options: Options) -> Iterator[Line]:
    """Measure both alternately, without the first round, which loads files into the page cache."""
    clip, weights = options.clip("one_face_crying"), options.weights
    tasks = {"help": show_help, "run": lambda: first_rows(clip, weights)}
    rounds = Rounds(tasks)
    rounds.run(2 * options.rounds)
    yield Line("`fer-stream --help`", tuple(rounds.seconds["help"]), "s", Goal(0.5, at_most=True))
    yield Line("`fer-stream run`: first rows on disk", tuple(rounds.seconds["run"]), "s", Goal(2.5, at_most=True))


def show_help() -> None:
    """Run `fer-stream --help` and discard its output."""
    subprocess.run([*_COMMAND, "--help"], check=True, capture_output=True)


def first_rows(clip: Path, weights: Path) -> None:
    """Run a clip until its table has rows. Raises `NotMeasurable` if it ends or times out before."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        options = ["--out", folder, "--no-video", "--no-report", "--weights", str(weights)]
        process = subprocess.Popen(
            [*_COMMAND, "run", str(clip), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline_s = time.monotonic() + _TIMEOUT_S
            while not any(path.stat().st_size > _HEADER for path in Path(folder).glob(".*.csv")):
                if process.poll() or time.monotonic() > deadline_s:
                    raise NotMeasurable("`fer-stream run` wrote no rows")
                time.sleep(_POLL_INTERVAL_S)
        finally:
            process.kill()
            process.wait()
