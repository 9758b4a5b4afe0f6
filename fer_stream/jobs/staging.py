"""What is done for one job, in a process of its own: `fer-stream run`, in a folder out of sight."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fer_stream.errors import OutputError, OutputExists
from fer_stream.files import Engine, FileJob, FileResult, make_folder, run_job
from fer_stream.pipeline import FileRun
from fer_stream.records import SourceInfo

Report = Callable[[float | None, int], object]
"""Told now and then which part of the file was read, 0..1 or None, and how many frames."""


def do(
    job: FileJob, engine: Callable[[], Engine], *, folder: Path, report: Report, before_placing: Callable[[], object]
) -> FileResult:
    """Run `job` in `folder`, which is made and removed, and put its results in place when all of them are whole.

    `before_placing` is called before the first of them is; what it raises gives them up. Raises what `run_job`
    raises, and `OutputExists` before any work where a result would replace another one without `force`.
    """
    _refuse_existing(job)
    make_folder(folder)
    hidden = FileJob(job.path, job.name, folder)
    try:
        result = run_job(engine(), hidden, progress=lambda info, run: report(_part(info, run), run.frames))
        before_placing()
        return replace(result, outputs=_put(result.outputs, job))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_existing(job: FileJob) -> None:
    there = job.existing()
    if there and not job.force:
        raise OutputExists(f"{there[0]} exists. Use --force to replace it, or name another folder with --out.")


def _put(outputs: Sequence[Path], job: FileJob) -> tuple[Path, ...]:
    _refuse_existing(job)
    for path in outputs:
        try:
            path.replace(job.out / path.name)
        except OSError as error:
            raise OutputError(
                f"Cannot write {job.out / path.name}: {error.strerror}. Name another folder with --out."
            ) from error
    return tuple(job.out / path.name for path in outputs)


def _part(info: SourceInfo, run: FileRun) -> float | None:
    """By time rather than by frames, which containers often do not count."""
    return min(1.0, run.last_s / info.duration_s) if info.duration_s else None
