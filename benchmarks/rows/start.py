"""From a command to what it first shows: the help, and the first rows of a table on the disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.goals import Goal, Line, Rounds, NotMeasurable
from benchmarks.rows import Options
from fer_stream.outputs.tables import COLUMNS

_COMMAND = (sys.executable, "-m", "fer_stream.cli")
_HEADER = len(",".join(COLUMNS)) + 1
_LOOK_S = 0.002
_PATIENCE_S = 60.0


def measure(options: Options) -> Iterator[Line]:
    """Both in turn, the first time uncounted: then the files lie in the system's cache."""
    clip, weights = options.clip("one_face_crying"), options.weights
    works = {"help": show_help, "run": lambda: first_rows(clip, weights)}
    rounds = Rounds(works)
    rounds.go(2 * options.rounds)
    yield Line("`fer-stream --help`", tuple(rounds.seconds["help"]), "s", Goal(0.5, at_most=True))
    yield Line("`fer-stream run`: first rows on the disk", tuple(rounds.seconds["run"]), "s", Goal(2.5, at_most=True))


def show_help() -> None:
    """The help, to nobody."""
    subprocess.run([*_COMMAND, "--help"], check=True, capture_output=True)


def first_rows(clip: Path, weights: Path) -> None:
    """Run a clip until its table has rows."""
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:
        options = ["--out", folder, "--no-video", "--no-report", "--weights", str(weights)]
        process = subprocess.Popen(
            [*_COMMAND, "run", str(clip), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline_s = time.monotonic() + _PATIENCE_S
            while not any(path.stat().st_size > _HEADER for path in Path(folder).glob(".*.csv")):
                if process.poll() or time.monotonic() > deadline_s:
                    raise NotMeasurable("`fer-stream run` wrote no rows")
                time.sleep(_LOOK_S)
        finally:
            process.kill()
            process.wait()
