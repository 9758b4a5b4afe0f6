"""Jobs on rq, on the store's server: what submits, lists, cancels and retries them."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import redis
from redis.client import Pipeline
from rq.job import JobStatus, Retry
from rq.serializers import JSONSerializer
from rq.utils import now

from fer_stream.broker.client import Link
from fer_stream.capture.discovery import check_file, output_names
from fer_stream.config import FileSettings, JobSettings
from fer_stream.errors import CodecError, ConfigError, JobNotFound, OutputError, OutputExists, WrongJobState
from fer_stream.jobs.job import ENDED, JobInfo, Priority
from fer_stream.jobs.record import (
    FUNCTION,
    IDS,
    NAMES,
    Record,
    Task,
    checked_name,
    days,
    priority_of,
    queue_of,
    records,
)

R = TypeVar("R")

_log = logging.getLogger(__name__)


class RqJobs:
    """`Jobs` on the server of `link`, with the time limit, retries and retention of `settings`."""

    def __init__(self, link: Link, settings: JobSettings) -> None:
        self._link = link
        self._settings = settings

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
        """See `Jobs.submit`."""
        from fer_stream.files import make_folder

        task = _task(path, out, settings, force=force, name=name)
        make_folder(task.out)
        _refuse_existing(task)
        job_id = secrets.token_hex(6)
        return self._call(lambda client: self._put(client, job_id, task, priority))

    def check(
        self, path: Path, *, out: Path, settings: FileSettings, force: bool = False, name: str | None = None
    ) -> None:
        """See `Jobs.check`."""
        task = _task(path, out, settings, force=force, name=name)
        _refuse_existing(task)
        self._call(lambda client: _check_place(client, client, task))

    def get(self, job_id: str) -> JobInfo:
        """See `Jobs.get`."""
        return self._call(lambda client: _fetch(client, job_id).info())

    def list(self) -> Sequence[JobInfo]:
        """See `Jobs.list`."""

        def operation(client: redis.Redis) -> Sequence[JobInfo]:
            job_ids = [job_id.decode() for job_id in cast("list[bytes]", client.zrevrange(IDS, 0, -1))]
            return [info for record in records(client, job_ids) if record is not None for info in _readable(record)]

        return self._call(operation)

    def cancel(self, job_id: str) -> JobInfo:
        """See `Jobs.cancel`."""

        def operation(client: redis.Redis) -> JobInfo:
            record = _fetch(client, job_id)
            if record.state in ENDED:
                raise WrongJobState(f"The job {job_id} is {record.state} already: there is nothing to cancel.")
            # Told first, in case that it begins just now: then its worker ends it.
            record.ask_to_cancel()
            if record.state != "running":
                _end_unbegun(record)
            return _fetch(client, job_id).info()

        return self._call(operation)

    def retry(self, job_id: str) -> JobInfo:
        """See `Jobs.retry`."""

        return self._call(lambda client: self._put_again(client, job_id))

    def delete(self, job_id: str, *, outputs: bool = False) -> None:
        """See `Jobs.delete`."""

        def operation(client: redis.Redis) -> JobInfo:
            record = _fetch(client, job_id)
            if record.state not in ENDED:
                raise WrongJobState(f"The job {job_id} is {record.state}: cancel it first.")
            info = record.info()
            record.delete()
            client.zrem(IDS, job_id)
            return info

        info = self._call(operation)
        for path in info.outputs if outputs else ():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"Cannot delete {path}: {error.strerror}. Delete it by hand.") from error

    def close(self) -> None:
        """See `Jobs.close`."""
        self._link.close()

    def _call(self, operation: Callable[[redis.Redis], R]) -> R:
        # The store is never a Cluster.
        return self._link.call(lambda client: operation(cast("redis.Redis", client)))

    def _put(self, client: redis.Redis, job_id: str, task: Task, priority: Priority) -> JobInfo:
        """Put the job on its queue; once, also where the reply to the first try was lost."""
        if client.exists(Record.key_for(job_id)):
            return _fetch(client, job_id).info()
        waits, kept_s = list(self._settings.retry_delays_s), days(self._settings.retention_days)
        record = Record.create(
            FUNCTION,
            kwargs=task.document(),
            id=job_id,
            connection=client,
            serializer=JSONSerializer,
            description=task.place,
            timeout=self._settings.timeout_s,
            retry=Retry(len(waits), waits) if waits else None,
            result_ttl=kept_s,
            failure_ttl=kept_s,
        )

        def change(pipeline: Pipeline) -> None:
            _check_place(client, pipeline, task)
            pipeline.multi()
            pipeline.hset(NAMES, task.place, job_id)
            pipeline.zadd(IDS, {job_id: time.time()})
            queue_of(priority, client).enqueue_job(record, pipeline=pipeline)

        client.transaction(change, NAMES)
        return _fetch(client, job_id).info()

    def _put_again(self, client: redis.Redis, job_id: str) -> JobInfo:
        def change(pipeline: Pipeline) -> None:
            record = _fetch(client, job_id)
            if record.state not in ("failed", "cancelled"):
                raise WrongJobState(
                    f"The job {job_id} is {record.state}: only one that failed or was cancelled can be tried again."
                )
            task = record.task()
            check_file(task.path)
            if not record.placing:
                _refuse_existing(task)
            _check_place(client, pipeline, task)
            pipeline.multi()
            pipeline.hset(NAMES, task.place, job_id)
            pipeline.persist(record.key)
            record.begin_anew(len(self._settings.retry_delays_s), pipeline)
            record.failed_job_registry.remove(record, pipeline=pipeline)
            queue_of(priority_of(record.origin), client).enqueue_job(record, pipeline=pipeline)

        client.transaction(change, NAMES, Record.key_for(job_id))
        return _fetch(client, job_id).info()


def _fetch(client: redis.Redis, job_id: str) -> Record:
    """The record of a job. Raises `JobNotFound`."""
    (record,) = records(client, [job_id])
    if record is None:
        raise JobNotFound(f"There is no job {job_id}: see `fer-stream jobs` for those that are known.")
    return record


def _readable(record: Record) -> Iterator[JobInfo]:
    try:
        yield record.info()
    except CodecError as error:
        _log.warning("%s", error)


def _task(path: Path, out: Path, settings: FileSettings, *, force: bool, name: str | None) -> Task:
    path = path.absolute()
    check_file(path)
    return Task(path, out.absolute(), _plain(name or output_names([path])[0]), force, _anywhere(settings))


def _check_place(client: redis.Redis, names: redis.Redis, task: Task) -> None:
    """Refuse results where an unfinished job will write its own; `names` reads who does, perhaps in a transaction."""
    holder = cast("bytes | None", names.hget(NAMES, task.place))
    (record,) = records(client, [holder.decode()]) if holder else [None]
    if record is not None and record.state not in ENDED:
        raise OutputExists(
            f"The job {record.id} will write {task.place}.*: wait for it, cancel it, or name another folder with "
            f"--out."
        )


def _refuse_existing(task: Task) -> None:
    from fer_stream.files import FileJob

    there = FileJob(task.path, task.name, task.out).existing()
    if there and not task.force:
        raise OutputExists(f"{there[0]} exists. Use --force to replace it, or name another folder with --out.")


def _end_unbegun(record: Record) -> None:
    """Take a job off the queue, or off the list of those that wait for another attempt."""
    queue = queue_of(priority_of(record.origin), record.connection)
    with record.connection.pipeline() as pipeline:
        queue.remove(record, pipeline=pipeline)
        queue.scheduled_job_registry.remove(record, pipeline=pipeline)
        record.ended_at = now()
        record.set_status(JobStatus.FAILED, pipeline=pipeline)
        queue.failed_job_registry.add(record, ttl=record.failure_ttl, pipeline=pipeline)
        pipeline.execute()


def _anywhere(settings: FileSettings) -> FileSettings:
    """The same settings for a process that runs in another folder."""
    paths = {"detector.weights": settings.detector.weights, "model.path": settings.model.path}
    return settings.with_values({key: path.absolute() if path else None for key, path in paths.items()})


def _plain(name: str) -> str:
    try:
        return checked_name(name)
    except ValueError as error:
        raise ConfigError(f"{error}: results are called so, with endings of their own.") from None
