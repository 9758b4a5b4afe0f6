"""The process that fuzzes, guided by what of our code, PyYAML's and Pillow's an input reaches (atheris, libFuzzer).

A native crash, a hang or too much memory ends it; the parent begins another. An exception does not: its input is
kept, the shortest for each place where one was raised.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["fer_stream", "yaml", "PIL"]):
    from benchmarks.fuzz.targets import TARGETS, Check

# In memory where there is such a place: every input of a file reader is written once.
_FAST = "/dev/shm"


def keep(error: Exception, data: bytes, findings: Path) -> None:
    """Keep `data` in the folder `findings`, with what it led to, unless there is a shorter input for the same."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    path = findings / f"{type(error).__name__}-{Path(at.filename).stem}-{at.lineno}.bin"
    if path.exists() and path.stat().st_size <= len(data):
        return
    path.write_bytes(data)
    path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="backslashreplace")


def guarded(check: Check, findings: Path) -> Check:
    def run(data: bytes) -> None:
        try:
            check(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we are looking for
            keep(error, data, findings)

    return run


def main() -> None:
    target, findings, *arguments = sys.argv[1:]
    place = _FAST if Path(_FAST).is_dir() else None
    with TemporaryDirectory(dir=place) as folder:
        check = TARGETS[target].prepare(Path(folder))
        atheris.Setup([sys.argv[0], *arguments], guarded(check, Path(findings)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
