"""The work of one job in its own process: `fer-stream run` into a hidden directory, then moving the results."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from fer_stream.errors import OutputError
from fer_stream.files import FileProcessor, FileResult, FileTask, process_file
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import create_output_dir

if TYPE_CHECKING:
    from fer_stream.jobs.record import FileRqJob
    from fer_stream.pipeline import Progress
    from fer_stream.records import SourceInfo

_log = get_logger(__name__)

OnProgress = Callable[[float | None, int], object]
"""Called from time to time with the fraction of the file that was read, 0..1 or None, and the number of frames."""

# Minimum interval between two progress updates in the store.
_PROGRESS_INTERVAL_S = 0.5


class ProgressReporter:
    """Stores the progress of a job every 0.5 s, after `check`, which raises an exception to abort the job."""

    def __init__(self, job: FileRqJob, check: Callable[[], object]) -> None:
        self._job = job
        self._check = check
        self._reported_s = -_PROGRESS_INTERVAL_S

    def __call__(self, progress: float | None, frames: int) -> None:
        """Store the fraction of the file that was read, 0..1 or None, and the number of frames."""
        now_s = time.monotonic()
        if now_s - self._reported_s < _PROGRESS_INTERVAL_S:
            return
        self._reported_s = now_s
        try:
            self._check()
            self._job.update_meta(progress=progress, frames=frames)
        except RedisError as error:
            _log.warning("store_unreachable", job=self._job.id, action="the job continues", error=str(error))


def run_staged(
    job: FileTask,
    engine: Callable[[], FileProcessor],
    *,
    staging_dir: Path,
    on_progress: OnProgress,
    before_publish: Callable[[], object],
) -> FileResult:
    """Process `job` in `staging_dir`, which is created and removed, and move complete results into place.

    `before_publish` is called before the first result is moved and may raise to discard all of them. Raises the
    errors of `run_job`, and `OutputExists` before any work if a result exists and the job may not replace it.
    """
    processor = engine()
    job.refuse_existing(processor.settings.outputs.export)
    create_output_dir(staging_dir)
    staged = FileTask(job.path, job.name, staging_dir)
    try:
        result = process_file(
            processor, staged, progress=lambda info, run: on_progress(_fraction(info, run), run.frames)
        )
        if result.failures:
            raise result.failures[0]
        before_publish()
        job.refuse_existing(processor.settings.outputs.export)
        return replace(result, outputs=_publish(result.outputs, job))
    finally:
        shutil.rmtree(staging_dir, ignore_errors=True)


def _publish(outputs: Sequence[Path], job: FileTask) -> tuple[Path, ...]:
    for path in outputs:
        try:
            path.replace(job.output_dir / path.name)
        except OSError as error:
            raise OutputError(
                f"Cannot write {job.output_dir / path.name}: {error.strerror}. Choose another directory with --out."
            ) from error
    return tuple(job.output_dir / path.name for path in outputs)


def _fraction(info: SourceInfo, progress: Progress) -> float | None:
    """Return the fraction of the analysed part by time, because many containers have no frame count."""
    return min(1.0, max(0.0, progress.last_s - info.start_s) / info.length_s) if info.length_s else None
