"""A recorded file as a job: what is known of it, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from fer_stream.config import FileSettings

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""Jobs of a higher priority begin before all of a lower one; among equals, first come, first served."""

JobState = Literal["queued", "running", "retrying", "done", "failed", "cancelled"]
"""`retrying` waits for its next attempt after a fault that may pass. The last three are how a job ends."""

ENDED: frozenset[JobState] = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What is known of a job.

    Its outputs are called `name` with an ending and lie in the folder `out`; `outputs` are those that were written,
    empty unless the job is done. `progress` is the part of the file that was read, 0..1, or None where the file does
    not say how long it is; `frames` those looked at so far. Times are Unix seconds; `retry_at` is when the next
    attempt begins at the earliest. `attempts` counts how often the job was begun. `error` is why it failed, the last
    time, for a person to read and without any secret.
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
        """Will nothing change any more, unless somebody retries it?"""
        return self.state in ENDED


class Jobs(Protocol):
    """The jobs of one store, seen by those who submit them.

    Every method raises `QueueError` where the store cannot be reached, and those that take a `job_id` raise
    `JobNotFound` where there is no such job, because its record was deleted or is older than `jobs.retention_days`.
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
        """Put a video or still image on the queue, to be done as `fer-stream run` does it.

        Results go into the folder `out`, which is made, and are called `name`, by default the stem of `path`. The
        file must stay where it is until the job has ended. `force` lets results replace older ones.

        Raises a `SourceError` where there is no such file, `ConfigError` where `name` is no plain file name,
        `OutputExists` where a result of that name is there already or an unfinished job will write it (`force` does
        not help against the latter), and `OutputError` where the folder cannot be made.
        """
        ...

    def check(
        self, path: Path, *, out: Path, settings: FileSettings, force: bool = False, name: str | None = None
    ) -> None:
        """Raise what `submit` would raise of these, and submit nothing. It makes no folder."""
        ...

    def get(self, job_id: str) -> JobInfo:
        """What is known of one job."""
        ...

    def list(self) -> Sequence[JobInfo]:
        """All jobs that are known, the newest first."""
        ...

    def cancel(self, job_id: str) -> JobInfo:
        """End a job that has not ended, without results. One that runs ends within a second or two.

        Raises `WrongJobState` where it has ended already.
        """
        ...

    def retry(self, job_id: str) -> JobInfo:
        """Put a job that failed or was cancelled on the queue again, with all its attempts.

        Raises `WrongJobState` where it did not, `OutputExists` as `submit`.
        """
        ...

    def delete(self, job_id: str, *, outputs: bool = False) -> None:
        """Forget a job that has ended; with `outputs` delete its results too. The file itself stays.

        Raises `WrongJobState` where it has not ended, `OutputError` where a result cannot be deleted.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
