"""The rq job of a recorded file, and the Redis keys of jobs.

rq imports and calls any function that the record of a job names, also as a callback, and unpickles its arguments.
`FileRqJob` accepts JSON arguments and a single function name, and ignores callbacks and webhooks. Write access to the
store therefore allows files to be read and written, but no code to be executed.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from pydantic import ValidationError
from redis.client import Pipeline
from rq.exceptions import DeserializationError
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import now

from fer_stream.config.settings import FileSettings
from fer_stream.errors import CodecError, DiskFull, FerStreamError, QueueError
from fer_stream.jobs.job import PRIORITIES, JobInfo, JobState, Priority
from fer_stream.log import redact_secrets

FUNCTION = "fer_stream.jobs"
"""Function name in the record of every job. It is compared, never imported."""

IDS = "fer:jobs:ids"
"""Sorted set: ids of all jobs, by the Unix time of submission."""

NAMES = "fer:jobs:names"
"""Hash: directory and name of results → id of the job that writes them or wrote them last."""

MAINTENANCE = "fer:jobs:maintenance"
"""String with a TTL: lock of the worker that currently maintains all jobs."""

_CANCEL = "cancel"
_ATTEMPTS = "attempts"

_STATES: dict[JobStatus, JobState] = {
    JobStatus.STARTED: "running",
    JobStatus.SCHEDULED: "retrying",
    JobStatus.FINISHED: "done",
    JobStatus.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Task:
    """The arguments of a job: process `path` with `settings` and write results called `name` into `out`."""

    path: Path
    out: Path
    name: str
    force: bool
    settings: FileSettings

    def to_json(self) -> dict[str, Any]:
        """Return the task as JSON-compatible values."""
        return {
            "path": str(self.path),
            "out": str(self.out),
            "name": self.name,
            "force": self.force,
            "settings": self.settings.model_dump(mode="json"),
        }

    @property
    def output_prefix(self) -> str:
        """Path of the results without suffix. Two unfinished jobs must not share it."""
        return str(self.out / self.name)


class Reassigned(Exception):  # noqa: N818 - a control-flow exception, never shown
    """Another worker owns the job now."""


class FileRqJob(Job):
    """An rq job that processes one recorded file. Callbacks are ignored; any other function is refused."""

    success_callback = None
    failure_callback = None
    stopped_callback = None

    cancel_requested = False
    """True if cancellation had been requested when the record was last read."""

    attempts = 0
    """Number of the attempt that the holder of this record makes; the first is 1."""

    work: Callable[[], None] | None = None
    """Processes the file; set by the worker that took the job."""

    def send_webhooks(self, *_: object, **__: object) -> None:
        """Ignore webhooks."""

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Load the fields of the Redis hash."""
        super().restore(raw_data)
        self.cancel_requested = _CANCEL.encode() in raw_data
        self.attempts = int(raw_data.get(_ATTEMPTS.encode(), 0))

    def prepare_for_execution(self, worker_name: str, pipeline: Pipeline) -> None:
        """Mark the job as started. Raises `Reassigned` if `worker_name` no longer owns it."""
        self.check_owned_by(worker_name)
        super().prepare_for_execution(worker_name, pipeline)

    @property
    def func(self) -> Callable[..., None]:
        """The function that processes the file. Raises `CodecError` if the record names any other function."""
        self.task()
        work = self.work
        if work is None:
            raise CodecError(f"Job {self.id} is refused: this process does not run jobs.")
        return lambda **_: work()

    def task(self) -> Task:
        """Return the arguments of the job. Raises `CodecError` if they are not valid."""
        try:
            if self.func_name != FUNCTION or self.instance is not None or self.args:
                raise CodecError(f"Job {self.id} is refused: it does not process a recorded file.")
            arguments = self.kwargs
            return Task(
                path=Path(arguments["path"]),
                out=Path(arguments["out"]),
                name=validate_name(arguments["name"]),
                force=arguments["force"] is True,
                settings=FileSettings.model_validate(arguments["settings"]),
            )
        except (DeserializationError, ValidationError, KeyError, TypeError, AttributeError, ValueError):
            raise CodecError(
                f"Job {self.id} is refused: it was written by another version of fer-stream or by another program. "
                f"Submit the file again."
            ) from None

    @property
    def is_valid(self) -> bool:
        """True if the job processes a recorded file."""
        try:
            return self.task() is not None
        except CodecError:
            return False

    def info(self) -> JobInfo:
        """Return the public view of the record. Raises `CodecError` like `task`."""
        task, state = self.task(), self.state
        started = state not in ("queued", "retrying")
        return JobInfo(
            job_id=self.id,
            name=task.name,
            path=task.path,
            out=task.out,
            state=state,
            priority=priority_of(self.origin),
            submitted_at=_unix(self.created_at) or 0.0,
            progress=1.0 if state == "done" else self.meta.get("progress"),
            frames=self.meta.get("frames", 0),
            started_at=_unix(self.started_at) if started else None,
            ended_at=_unix(self.ended_at) if started and state != "running" else None,
            retry_at=self.meta.get("retry_at") if state == "retrying" else None,
            attempts=self.attempts,
            error=None if state == "done" else self.meta.get("error"),
            outputs=tuple(map(Path, self.meta.get("outputs", ()))) if state == "done" else (),
        )

    @property
    def state(self) -> JobState:
        """State of the job when the record was last read."""
        state = _STATES.get(self.get_status(refresh=False), "queued")
        return "cancelled" if state == "failed" and self.cancel_requested else state

    @property
    def publishing(self) -> bool:
        """True if an attempt has started to move results into place: existing results may be replaced then."""
        return bool(self.meta.get("publishing"))

    def begin_attempt(self, worker_name: str) -> None:
        """Make `worker_name` the owner of the job and count an attempt."""
        # The store counts, and `reset` does not restart the count: each attempt needs a directory of its own, because
        # a suspended worker may still write to an older one.
        self.attempts = self.connection.hincrby(self.key, _ATTEMPTS)
        self._set_owner(worker_name)
        self.meta = {"publishing": self.publishing, "error": self.meta.get("error")}
        self.update_meta()

    def clear_owner(self) -> None:
        """Take the job away from its worker."""
        self._set_owner("")

    def _set_owner(self, name: str) -> None:
        self.worker_name = name
        self.connection.hset(self.key, "worker_name", name)

    def owned_by(self, worker_name: str) -> bool:
        """Return True if `worker_name` still owns the job. Reads the store."""
        return self.connection.hget(self.key, "worker_name") == worker_name.encode()

    def check_owned_by(self, worker_name: str) -> None:
        """Raise `Reassigned` if `worker_name` no longer owns the job."""
        if not self.owned_by(worker_name):
            raise Reassigned

    def staging_dir(self, task: Task) -> Path:
        """Return the hidden directory of this attempt, next to the results so that moving them is a rename."""
        return self._staging_dir(task, self.attempts)

    def remove_partial_outputs(self) -> None:
        """Remove the directories of this attempt and of earlier ones. Later attempts belong to other workers."""
        with suppress(CodecError):
            task = self.task()
            for attempt in range(1, self.attempts + 1):
                shutil.rmtree(self._staging_dir(task, attempt), ignore_errors=True)

    def _staging_dir(self, task: Task, attempt: int) -> Path:
        return task.out / f".partial-{self.id}-{attempt}"

    def update_meta(self, **fields: object) -> None:
        """Merge `fields` into the metadata and store it."""
        self.meta |= fields
        self.connection.hset(self.key, "meta", self.serializer.dumps(self.meta))

    def record_failure(self, reason: str, *, retryable: bool) -> None:
        """Store why an attempt failed. No further attempt is made unless the failure is `retryable`."""
        if not retryable or self.check_cancel_requested():
            self.retries_left = 0
        self.ended_at = now()
        self._keep_meta("publishing", "progress", "frames")
        retry_at = time.time() + self.get_retry_interval() if self.should_retry else None
        self.update_meta(error=None if self.cancel_requested else reason, retry_at=retry_at)

    def reset_progress(self) -> None:
        """Clear the progress of an attempt that was interrupted and did not fail."""
        self._keep_meta("publishing", "error")
        self.update_meta()

    def _keep_meta(self, *names: str) -> None:
        self.meta = {name: self.meta[name] for name in names if name in self.meta}

    def reset(self, retries: int, pipeline: Pipeline) -> None:
        """Clear the result of a job that has ended, and allow `retries` retries again."""
        self.cancel_requested = False
        pipeline.hdel(self.key, _CANCEL)
        self.meta = {"publishing": self.publishing}
        self.retries_left = retries

    def request_cancel(self) -> None:
        """Ask the worker of the job to stop it."""
        self.cancel_requested = True
        self.connection.hset(self.key, _CANCEL, "1")

    def check_cancel_requested(self) -> bool:
        """Return True if cancellation was requested. Reads the store."""
        self.cancel_requested = bool(self.connection.hexists(self.key, _CANCEL))
        return self.cancel_requested


def queue_for(priority: Priority, client: redis.Redis) -> Queue:
    """Return the rq queue of a priority."""
    return Queue(f"fer-jobs-{priority}", client, job_class=FileRqJob, serializer=JSONSerializer)


def all_queues(client: redis.Redis) -> list[Queue]:
    """Return the queues of all priorities, highest first."""
    return [queue_for(priority, client) for priority in PRIORITIES]


def priority_of(origin: str) -> Priority:
    """Return the priority of the rq queue named `origin`."""
    return next((priority for priority in PRIORITIES if origin == f"fer-jobs-{priority}"), "normal")


def fetch_jobs(client: redis.Redis, job_ids: Iterable[str]) -> list[FileRqJob | None]:
    """Return the records of `job_ids` in that order, with None for each that does not exist."""
    jobs = FileRqJob.fetch_many(list(job_ids), client, JSONSerializer)
    return [job if isinstance(job, FileRqJob) else None for job in jobs]


def validate_name(name: str) -> str:
    """Return `name` if it is a plain file name that does not start with a dot. Raises `ValueError`."""
    if not name or name != Path(name).name or name.startswith(".") or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def days_to_seconds(days: float) -> int:
    """Convert days to whole seconds, rounded up, as Redis expects them."""
    return math.ceil(86_400 * days)


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def classify_failure(error: BaseException | None, job: FileRqJob) -> tuple[str, bool]:
    """Return the reason of a failure as text without secrets, and whether another attempt may succeed."""
    if isinstance(error, JobTimeoutException):
        return timeout_message(job), False
    if isinstance(error, DeserializationError):
        return f"Job {job.id} is refused: only JSON payloads are accepted.", False
    if isinstance(error, FerStreamError):
        retryable = isinstance(error, DiskFull | QueueError) and not isinstance(error, CodecError)
        return redact_secrets(str(error)), retryable
    return redact_secrets(f"Unexpected error, see the log of the worker: {type(error).__name__}: {error}"), True


def timeout_message(job: FileRqJob) -> str:
    """Return the error message of an attempt that exceeded `jobs.timeout_s`."""
    return f"Processing took longer than {job.timeout} s: raise jobs.timeout_s, or analyse fewer frames (fps)."


def describe_exit(status: int | None) -> str:
    """Describe how a process ended, from its wait(2) status; None if the status is unknown."""
    if status is None:
        return "ended with an unknown status, see the log of the worker"
    if not os.WIFSIGNALED(status):
        return f"ended with code {os.waitstatus_to_exitcode(status)}, see the log of the worker"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"was killed ({name})" + (", possibly out of memory" if name == "SIGKILL" else "")
