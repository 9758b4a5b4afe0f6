"""Fuzzing process, guided by the coverage of fer-stream, PyYAML and Pillow (atheris, libFuzzer).

A native crash, a hang or excessive memory ends the process, and the parent starts another. Exceptions do not end it:
the shortest input is saved for each place that raised one.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["fer_stream", "yaml", "PIL"]):
    from benchmarks.fuzz.targets import TARGETS, Check

# Inputs of file readers are written to memory if possible.
_MEMORY_DIR = "/dev/shm"


def save_finding(error: Exception, data: bytes, findings: Path) -> None:
    """Save `data` and the traceback in `findings`, unless a shorter input for the same place exists."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    path = findings / f"{type(error).__name__}-{Path(at.filename).stem}-{at.lineno}.bin"
    if path.exists() and path.stat().st_size <= len(data):
        return
    path.write_bytes(data)
    path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="backslashreplace")


def recording_errors(check: Check, findings: Path) -> Check:
    """Return a check that saves exceptions as findings instead of raising them."""

    def run(data: bytes) -> None:
        try:
            check(data)
        except Exception as error:  # noqa: BLE001 - every exception is a finding
            save_finding(error, data, findings)

    return run


def main() -> None:
    target, findings, *arguments = sys.argv[1:]
    parent = _MEMORY_DIR if Path(_MEMORY_DIR).is_dir() else None
    with TemporaryDirectory(dir=parent) as folder:
        check = TARGETS[target].prepare(Path(folder))
        atheris.Setup([sys.argv[0], *arguments], recording_errors(check, Path(findings)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
