"""Client of the job queues: submits, lists, cancels and retries jobs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import redis
from redis.client import Pipeline
from rq.job import JobStatus, Retry
from rq.serializers import JSONSerializer
from rq.utils import now

from fer_stream.capture.discovery import ensure_readable
from fer_stream.errors import CodecError, ConfigError, InvalidJobState, JobNotFound, OutputError, OutputExists
from fer_stream.jobs.job import TERMINAL_STATES, JobInfo, Priority
from fer_stream.jobs.record import (
    FUNCTION,
    IDS,
    NAMES,
    FileRqJob,
    Task,
    days_to_seconds,
    fetch_jobs,
    priority_of,
    queue_for,
    validate_name,
)
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import create_output_dir, refuse_existing
from fer_stream.outputs.registry import result_paths

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient
    from fer_stream.config.live import JobSettings
    from fer_stream.config.settings import FileSettings

R = TypeVar("R")

_log = get_logger(__name__)


class RqJobs:
    """`Jobs` in rq queues on the server of `client`, with the timeout, retries and retention of `settings`."""

    def __init__(self, client: RedisClient, settings: JobSettings) -> None:
        self._client = client
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
        task = _make_task(path, out, settings, force=force, name=name)
        create_output_dir(task.out)
        _refuse_existing(task)
        job_id = secrets.token_hex(6)
        return self._call(lambda client: self._enqueue(client, job_id, task, priority))

    def check(
        self, path: Path, *, out: Path, settings: FileSettings, force: bool = False, name: str | None = None
    ) -> None:
        """See `Jobs.check`."""
        task = _make_task(path, out, settings, force=force, name=name)
        _refuse_existing(task)
        self._call(lambda client: _refuse_reserved(client, client, task))

    def get(self, job_id: str) -> JobInfo:
        """See `Jobs.get`."""
        return self._call(lambda client: _fetch(client, job_id).info())

    def list(self) -> Sequence[JobInfo]:
        """See `Jobs.list`."""

        def operation(client: redis.Redis) -> Sequence[JobInfo]:
            job_ids = [job_id.decode() for job_id in cast("list[bytes]", client.zrevrange(IDS, 0, -1))]
            return [info for job in fetch_jobs(client, job_ids) if job is not None for info in _valid_info(job)]

        return self._call(operation)

    def cancel(self, job_id: str) -> JobInfo:
        """See `Jobs.cancel`."""

        def operation(client: redis.Redis) -> JobInfo:
            job = _fetch(client, job_id)
            if job.state in TERMINAL_STATES:
                raise InvalidJobState(f"Job {job_id} is already {job.state} and cannot be cancelled.")
            # The request comes first: if the job starts right now, its worker stops it.
            job.request_cancel()
            if job.state != "running":
                _cancel_waiting(job)
            return _fetch(client, job_id).info()

        return self._call(operation)

    def retry(self, job_id: str) -> JobInfo:
        """See `Jobs.retry`."""

        return self._call(lambda client: self._enqueue_again(client, job_id))

    def delete(self, job_id: str, *, outputs: bool = False) -> None:
        """See `Jobs.delete`."""

        def operation(client: redis.Redis) -> JobInfo:
            job = _fetch(client, job_id)
            if job.state not in TERMINAL_STATES:
                raise InvalidJobState(f"Job {job_id} is {job.state}: cancel it before deleting it.")
            info = job.info()
            job.delete()
            client.zrem(IDS, job_id)
            return info

        info = self._call(operation)
        for path in info.outputs if outputs else ():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"Cannot delete {path}: {error.strerror}. Delete it manually.") from error

    def close(self) -> None:
        """See `Jobs.close`."""
        self._client.close()

    def _call(self, operation: Callable[[redis.Redis], R]) -> R:
        # The store is never a Redis Cluster.
        return self._client.call(lambda client: operation(cast("redis.Redis", client)))

    def _enqueue(self, client: redis.Redis, job_id: str, task: Task, priority: Priority) -> JobInfo:
        """Queue a job. Idempotent, because the call is repeated if the reply to the first one was lost."""
        if client.exists(FileRqJob.key_for(job_id)):
            return _fetch(client, job_id).info()
        delays, retention_s = list(self._settings.retry_delays_s), days_to_seconds(self._settings.retention_days)
        job = FileRqJob.create(
            FUNCTION,
            kwargs=task.to_json(),
            id=job_id,
            connection=client,
            serializer=JSONSerializer,
            description=task.output_prefix,
            timeout=self._settings.timeout_s,
            retry=Retry(len(delays), delays) if delays else None,
            result_ttl=retention_s,
            failure_ttl=retention_s,
        )

        def change(pipeline: Pipeline) -> None:
            _refuse_reserved(client, pipeline, task)
            pipeline.multi()
            pipeline.hset(NAMES, task.output_prefix, job_id)
            pipeline.zadd(IDS, {job_id: time.time()})
            queue_for(priority, client).enqueue_job(job, pipeline=pipeline)

        client.transaction(change, NAMES)
        return _fetch(client, job_id).info()

    def _enqueue_again(self, client: redis.Redis, job_id: str) -> JobInfo:
        def change(pipeline: Pipeline) -> None:
            job = _fetch(client, job_id)
            if job.state not in ("failed", "cancelled"):
                raise InvalidJobState(f"Job {job_id} is {job.state}: only failed and cancelled jobs can be retried.")
            task = job.task()
            ensure_readable(task.path)
            if not job.publishing:
                _refuse_existing(task)
            _refuse_reserved(client, pipeline, task)
            pipeline.multi()
            pipeline.hset(NAMES, task.output_prefix, job_id)
            pipeline.persist(job.key)
            job.reset(len(self._settings.retry_delays_s), pipeline)
            job.failed_job_registry.remove(job, pipeline=pipeline)
            queue_for(priority_of(job.origin), client).enqueue_job(job, pipeline=pipeline)

        client.transaction(change, NAMES, FileRqJob.key_for(job_id))
        return _fetch(client, job_id).info()


def _fetch(client: redis.Redis, job_id: str) -> FileRqJob:
    """Return the record of a job. Raises `JobNotFound`."""
    (job,) = fetch_jobs(client, [job_id])
    if job is None:
        raise JobNotFound(f"Job {job_id} does not exist: list all jobs with `fer-stream jobs`.")
    return job


def _valid_info(job: FileRqJob) -> Iterator[JobInfo]:
    try:
        yield job.info()
    except CodecError as error:
        _log.warning("job_invalid", job=job.id, error=str(error))


def _make_task(path: Path, out: Path, settings: FileSettings, *, force: bool, name: str | None) -> Task:
    path = path.absolute()
    ensure_readable(path)
    try:
        name = validate_name(name or path.stem)
    except ValueError as error:
        raise ConfigError(f"Invalid result name: {error}.") from None
    return Task(path, out.absolute(), name, force, _with_absolute_paths(settings))


def _refuse_reserved(client: redis.Redis, names: redis.Redis, task: Task) -> None:
    """Raise `OutputExists` if an unfinished job will write the same results.

    `names` reads the owner of the results; in a transaction it is the pipeline.
    """
    owner = cast("bytes | None", names.hget(NAMES, task.output_prefix))
    (job,) = fetch_jobs(client, [owner.decode()]) if owner else [None]
    if job is not None and job.state not in TERMINAL_STATES:
        raise OutputExists(
            f"Job {job.id} will write {task.output_prefix}.*: wait for it, cancel it, or name another folder with "
            f"--out."
        )


def _refuse_existing(task: Task) -> None:
    if not task.force:
        refuse_existing(result_paths(Path(task.output_prefix), task.settings.outputs.export))


def _cancel_waiting(job: FileRqJob) -> None:
    """Take a job off its queue, or off the list of scheduled retries, and mark it as ended."""
    queue = queue_for(priority_of(job.origin), job.connection)
    with job.connection.pipeline() as pipeline:
        queue.remove(job, pipeline=pipeline)
        queue.scheduled_job_registry.remove(job, pipeline=pipeline)
        job.ended_at = now()
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        queue.failed_job_registry.add(job, ttl=job.failure_ttl, pipeline=pipeline)
        pipeline.execute()


def _with_absolute_paths(settings: FileSettings) -> FileSettings:
    """Return `settings` with absolute model paths, because the worker runs in another directory."""
    paths = {"detector.weights": settings.detector.weights, "model.path": settings.model.path}
    return settings.with_values({key: path.absolute() if path else None for key, path in paths.items()})
