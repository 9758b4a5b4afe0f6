"""The rq job that can be nothing but a recorded file, and what of it we keep under which key.

rq imports and calls whatever function the record of a job names, also as a callback, and unpickles its arguments.
Here arguments are JSON, one name of a function is known, and callbacks and webhooks do not exist, so that who can
write to the store can have files read and written, but no code run.
"""

from __future__ import annotations

import math
import shutil
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
from rq.utils import now

from fer_stream.config import FileSettings
from fer_stream.errors import CodecError
from fer_stream.jobs.job import PRIORITIES, JobInfo, JobState, Priority

FUNCTION = "fer_stream.jobs"
"""What the record of a job names as its function. Nothing is imported by it."""

IDS = "fer:jobs:ids"
"""Sorted set: the ids of all jobs, by the Unix time at which they were submitted."""

NAMES = "fer:jobs:names"
"""Hash: folder and name of results → the job that writes them, or wrote them last."""

MAINTENANCE = "fer:jobs:maintenance"
"""String with a time to live: a worker looks after jobs whose worker died."""

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
    """What a job is to do: the arguments of the one function."""

    path: Path
    out: Path
    name: str
    force: bool
    settings: FileSettings

    def document(self) -> dict[str, Any]:
        """The task as what JSON knows."""
        return {
            "path": str(self.path),
            "out": str(self.out),
            "name": self.name,
            "force": self.force,
            "settings": self.settings.model_dump(mode="json"),
        }

    @property
    def place(self) -> str:
        """What no two unfinished jobs may share."""
        return str(self.out / self.name)


class Record(Job):
    """An rq job whose callbacks are ignored, and whose function is ours or refused."""

    success_callback = None
    failure_callback = None
    stopped_callback = None

    cancel_asked = False
    """Was somebody told that this job will be cancelled?"""

    attempts = 0
    """How often the job was begun; the last of these attempts is the one of whoever holds this record."""

    work: Callable[[], None] | None = None
    """Does the task; set by the worker that took the job."""

    def send_webhooks(self, *_: object, **__: object) -> None:
        """Call nobody."""

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Take over what Redis holds."""
        super().restore(raw_data)
        self.cancel_asked = _CANCEL.encode() in raw_data
        self.attempts = int(raw_data.get(_ATTEMPTS.encode(), 0))

    @property
    def func(self) -> Callable[..., None]:
        """The one function there is, whatever the record names. Raises `CodecError` where it names another."""
        self.task()
        work = self.work
        if work is None:
            raise CodecError(f"The job {self.id} is refused: this process does none.")
        return lambda **_: work()

    def task(self) -> Task:
        """What is to be done. Raises `CodecError` where that is anything but a recorded file."""
        try:
            if self.func_name != FUNCTION or self.instance is not None or self.args:
                raise CodecError(f"The job {self.id} is refused: it asks for something else than to read a file.")
            given = self.kwargs
            return Task(
                path=Path(given["path"]),
                out=Path(given["out"]),
                name=checked_name(given["name"]),
                force=given["force"] is True,
                settings=FileSettings.model_validate(given["settings"]),
            )
        except (DeserializationError, ValidationError, KeyError, TypeError, AttributeError, ValueError):
            raise CodecError(
                f"The job {self.id} is refused: another version of fer-stream wrote it, or something else did. "
                f"Submit the file again."
            ) from None

    @property
    def is_ours(self) -> bool:
        """Is it a recorded file?"""
        try:
            return self.task() is not None
        except CodecError:
            return False

    def info(self) -> JobInfo:
        """The record as others see it. Raises `CodecError` as `task` does."""
        task, state = self.task(), self.state
        begun = state not in ("queued", "retrying")
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
            started_at=_unix(self.started_at) if begun else None,
            ended_at=_unix(self.ended_at) if begun and state != "running" else None,
            retry_at=self.meta.get("retry_at") if state == "retrying" else None,
            attempts=self.attempts,
            error=None if state == "done" else self.meta.get("error"),
            outputs=tuple(map(Path, self.meta.get("outputs", ()))) if state == "done" else (),
        )

    @property
    def state(self) -> JobState:
        """Where the job stands, as it was when the record was read."""
        state = _STATES.get(self.get_status(refresh=False), "queued")
        return "cancelled" if state == "failed" and self.cancel_asked else state

    @property
    def placing(self) -> bool:
        """Did an attempt begin to put its results in place? Then those that are there are ours to replace."""
        return bool(self.meta.get("placing"))

    def begin_attempt(self, worker_name: str) -> None:
        """Note that `worker_name` works on the job now, unless another one took it over later."""
        # Counted by the store, and never anew: no two attempts may share a folder, whoever slept meanwhile.
        self.attempts = self.connection.hincrby(self.key, _ATTEMPTS)
        self._name_worker(worker_name)
        self.meta = {"placing": self.placing, "error": self.meta.get("error")}
        self.report()

    def disown(self) -> None:
        """Take the job from the worker that has it."""
        self._name_worker("")

    def _name_worker(self, name: str) -> None:
        self.worker_name = name
        self.connection.hset(self.key, "worker_name", name)

    def is_of(self, worker_name: str) -> bool:
        """Is this still the worker that works on the job, or has another one been given it?"""
        return self.connection.hget(self.key, "worker_name") == worker_name.encode()

    def folder(self, task: Task) -> Path:
        """Where this attempt works out of sight: beside its results, so that they can be moved there as one."""
        return self._folder(task, self.attempts)

    def sweep(self) -> None:
        """Remove what this attempt and those before it left behind. Later ones are those of other workers."""
        with suppress(CodecError):
            task = self.task()
            for attempt in range(1, self.attempts + 1):
                shutil.rmtree(self._folder(task, attempt), ignore_errors=True)

    def _folder(self, task: Task, attempt: int) -> Path:
        return task.out / f".partial-{self.id}-{attempt}"

    def report(self, **facts: object) -> None:
        """Add to what is known of the job."""
        self.meta |= facts
        self.connection.hset(self.key, "meta", self.serializer.dumps(self.meta))

    def blame(self, reason: str, *, curable: bool) -> None:
        """Note why an attempt failed; unless that is `curable` there will be no other."""
        if not curable or self.is_to_cancel():
            self.retries_left = 0
        self.ended_at = now()
        self._keep("placing", "progress", "frames")
        retry_at = time.time() + self.get_retry_interval() if self.should_retry else None
        self.report(error=None if self.cancel_asked else reason, retry_at=retry_at)

    def give_back(self) -> None:
        """Forget how far an attempt came that was interrupted, and failed of nothing."""
        self._keep("placing", "error")
        self.report()

    def _keep(self, *names: str) -> None:
        self.meta = {name: self.meta[name] for name in names if name in self.meta}

    def begin_anew(self, retries: int, pipeline: Pipeline) -> None:
        """Forget how the job ended, to give it all its attempts again."""
        self.cancel_asked = False
        pipeline.hdel(self.key, _CANCEL)
        self.meta = {"placing": self.placing}
        self.retries_left = retries

    def ask_to_cancel(self) -> None:
        """Tell whoever works on the job that it is to end."""
        self.cancel_asked = True
        self.connection.hset(self.key, _CANCEL, "1")

    def is_to_cancel(self) -> bool:
        """Was that told by now?"""
        self.cancel_asked = bool(self.connection.hexists(self.key, _CANCEL))
        return self.cancel_asked


def queue_of(priority: Priority, client: redis.Redis) -> Queue:
    """The rq queue of a priority."""
    return Queue(f"fer-jobs-{priority}", client, job_class=Record, serializer=JSONSerializer)


def queues(client: redis.Redis, job_class: type[Record] = Record) -> list[Queue]:
    """The queues of all priorities, the highest first."""
    return [
        Queue(f"fer-jobs-{priority}", client, job_class=job_class, serializer=JSONSerializer)
        for priority in PRIORITIES
    ]


def priority_of(origin: str) -> Priority:
    """The priority of the rq queue that is called `origin`."""
    return next((priority for priority in PRIORITIES if origin == f"fer-jobs-{priority}"), "normal")


def records(client: redis.Redis, job_ids: Iterable[str]) -> list[Record | None]:
    """The records of these jobs, in that order; None for each that is gone."""
    found = Record.fetch_many(list(job_ids), client, JSONSerializer)
    return [record if isinstance(record, Record) else None for record in found]


def checked_name(name: str) -> str:
    """`name`, if it can be that of files in one folder. Raises `ValueError`."""
    if not name or name != Path(name).name or name.startswith(".") or "\0" in name:
        raise ValueError(f"{name!r} is no plain file name")
    return name


def days(number: float) -> int:
    """Days in seconds, as Redis wants them: whole, and at least one."""
    return math.ceil(86_400 * number)


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
