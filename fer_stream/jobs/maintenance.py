"""Maintenance of all jobs: start retries that are due, and recover jobs whose worker crashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import redis
from redis.client import Pipeline
from rq.job import Job, JobStatus
from rq.registry import clean_registries
from rq.worker_registration import clean_worker_registry

from fer_stream.jobs.record import (
    IDS,
    MAINTENANCE,
    NAMES,
    FileRqJob,
    all_queues,
    fetch_jobs,
    priority_of,
    queue_for,
)
from fer_stream.log import get_logger

if TYPE_CHECKING:
    from fer_stream.jobs.job import JobState
    from fer_stream.metrics import Metrics

_log = get_logger(__name__)

HEARTBEAT_TIMEOUT_S = 20
"""A worker without a heartbeat for this long is considered dead, and its job is given to another worker."""

_INTERVAL_S = 10


class Maintenance:
    """The share of one worker in the maintenance of all jobs."""

    def __init__(self, client: redis.Redis, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._orphans: set[str] = set()
        """Waiting jobs that were in no queue at the last check."""

    def enqueue_due(self) -> None:
        """Queue the jobs whose retry delay is over."""
        for queue in all_queues(self._client):
            registry = queue.scheduled_job_registry
            for job_id in registry.get_jobs_to_schedule():
                # The worker that removes the job from the registry queues it. If that worker dies in between, the job
                # becomes an orphan, which `recover_orphans` finds.
                (job,) = fetch_jobs(self._client, [job_id])
                if registry.remove(job_id) and job is not None and job.state == "retrying":
                    queue.enqueue_job(job)

    def run_if_due(self, worker_name: str) -> None:
        """Maintain all jobs, unless a worker did so within the last 10 s.

        The lock of rq's own `Worker.clean_registries` is held for 15 minutes if its holder dies.
        """
        if self._client.set(MAINTENANCE, worker_name, nx=True, ex=_INTERVAL_S):
            for queue in all_queues(self._client):
                clean_registries(queue, [self._on_abandoned])
                clean_worker_registry(queue)
            self.remove_expired()
            self.recover_orphans()

    def remove_expired(self) -> None:
        """Remove ids and result names of jobs whose records have expired."""
        jobs = self._all_jobs()
        if expired := [job_id for job_id, job in jobs.items() if job is None]:
            self._client.zrem(IDS, *expired)
        self._client.transaction(_remove_expired_names, NAMES)

    def recover_orphans(self) -> None:
        """Queue jobs that are waiting but in no queue.

        A worker that is killed after it took a job off its queue and before it recorded that leaves such a job. A job
        is recovered at the second check in a row, because a worker may be about to record it during the first.
        """
        orphans = {job.id: job for job in self._all_jobs().values() if job is not None and self._is_orphan(job)}
        for job_id in orphans.keys() & self._orphans:
            _log.warning("job_recovered", job=job_id, reason="it was in no queue")
            queue_for(priority_of(orphans[job_id].origin), self._client).enqueue_job(orphans[job_id])
        self._orphans = orphans.keys() - self._orphans

    def _all_jobs(self) -> dict[str, FileRqJob | None]:
        job_ids = [job_id.decode() for job_id in cast("list[bytes]", self._client.zrange(IDS, 0, -1))]
        return dict(zip(job_ids, fetch_jobs(self._client, job_ids), strict=True))

    def _is_orphan(self, job: FileRqJob) -> bool:
        queue, status = queue_for(priority_of(job.origin), self._client), job.get_status(refresh=False)
        if status == JobStatus.QUEUED:
            return self._client.lpos(queue.key, job.id) is None
        return status == JobStatus.SCHEDULED and job not in queue.scheduled_job_registry

    def _on_abandoned(self, job: Job, *_: object) -> None:
        """Record that the worker of a job died; rq then schedules the next attempt or fails the job."""
        assert isinstance(job, FileRqJob)
        job.clear_owner()
        job.remove_partial_outputs()
        job.record_failure(
            f"The worker sent no heartbeat for {HEARTBEAT_TIMEOUT_S} s: it was killed or lost the store.",
            retryable=True,
        )
        state: JobState = "retrying" if job.should_retry else "cancelled" if job.cancel_requested else "failed"
        self._metrics.jobs.labels(state).inc()
        _log.warning("job_abandoned", job=job.id, state=state)


def _remove_expired_names(pipeline: Pipeline) -> None:
    names = cast("dict[bytes, bytes]", pipeline.hgetall(NAMES))
    job_ids = set(cast("list[bytes]", pipeline.zrange(IDS, 0, -1)))
    pipeline.multi()
    if expired := [name for name, job_id in names.items() if job_id not in job_ids]:
        pipeline.hdel(NAMES, *expired)
