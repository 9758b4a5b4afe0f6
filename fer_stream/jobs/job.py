"""The public view of a job: its state, and the operations that clients use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from fer_stream.config.settings import FileSettings

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Highest first. Jobs of a higher priority start before all jobs of a lower one; within a priority, FIFO."""

JobState = Literal["queued", "running", "retrying", "done", "failed", "cancelled"]
"""`retrying` waits for the next attempt after a temporary failure. The last three are terminal."""

TERMINAL_STATES: frozenset[JobState] = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobInfo:
    """Snapshot of a job.

    The results are files in the directory `out` named `name` plus a suffix. `outputs` lists those that were written;
    it is empty unless the job is done. `progress` is the fraction of the file that was read, 0..1, or None if the
    duration of the file is unknown; `frames` is the number of frames analysed so far. Times are Unix seconds;
    `retry_at` is the earliest start of the next attempt. `attempts` counts how often the job was started. `error` is
    the reason of the last failure in plain text, without secrets.
    """

    job_id: str
    name: str
    path: Path
    out: Path
    state: JobState
    priority: Priority
    submitted_at: float
    progress: float | None = None
    frames: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    retry_at: float | None = None
    attempts: int = 0
    error: str | None = None
    outputs: tuple[Path, ...] = ()

    @property
    def ended(self) -> bool:
        """True if the state is terminal: only `Jobs.retry` changes it."""
        return self.state in TERMINAL_STATES


class Jobs(Protocol):
    """The jobs of one store, for clients that submit and manage them.

    Every method raises `QueueError` if the store is unreachable. Methods that take a `job_id` raise `JobNotFound` if
    the job does not exist, was deleted, or ended more than `jobs.retention_days` ago.
    """

    def submit(
        self,
        path: Path,
        *,
        out: Path,
        settings: FileSettings,
        priority: Priority = "normal",
        force: bool = False,
        name: str | None = None,
    ) -> JobInfo:
        """Queue a video or still image, to be processed like `fer-stream run`.

        Results are written to the directory `out`, which is created, under `name` (default: the stem of `path`). The
        file must stay in place until the job has ended. `force` allows results to replace existing files.

        Raises a `SourceError` if the file does not exist, `ConfigError` if `name` is not a plain file name,
        `OutputExists` if a result exists or an unfinished job will write it (`force` only overrides the former), and
        `OutputError` if the directory cannot be created.
        """
        ...

    def check(
        self, path: Path, *, out: Path, settings: FileSettings, force: bool = False, name: str | None = None
    ) -> None:
        """Raise the errors that `submit` would raise, without submitting anything or creating a directory."""
        ...

    def get(self, job_id: str) -> JobInfo:
        """Return one job."""
        ...

    def list(self) -> Sequence[JobInfo]:
        """Return all jobs, newest first."""
        ...

    def cancel(self, job_id: str) -> JobInfo:
        """Cancel an unfinished job; it leaves no results. A running job stops within one or two seconds.

        Raises `InvalidJobState` if the job has already ended.
        """
        ...

    def retry(self, job_id: str) -> JobInfo:
        """Queue a failed or cancelled job again with all its attempts.

        Raises `InvalidJobState` if the job is neither failed nor cancelled, and `OutputExists` like `submit`.
        """
        ...

    def delete(self, job_id: str, *, outputs: bool = False) -> None:
        """Delete the record of a job that has ended and, with `outputs`, its results. The input file is kept.

        Raises `InvalidJobState` if the job has not ended, and `OutputError` if a result cannot be deleted.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
