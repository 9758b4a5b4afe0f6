"""What workers do for all jobs in turn: next attempts that are due, and jobs that a crash left in no queue."""

from __future__ import annotations

import logging
from typing import cast

import redis
from redis.client import Pipeline
from rq.job import JobStatus

from fer_stream.jobs.record import IDS, MAINTENANCE, NAMES, Record, priority_of, queue_of, queues, records

_log = logging.getLogger(__name__)

TURN_S = 10
"""So often all jobs are looked through, by one of the workers."""


class Upkeep:
    """The part of one worker in it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._adrift: set[str] = set()
        """Jobs that wait, and were in no queue when we looked last."""

    def put_back_due(self) -> None:
        """Put jobs on their queue whose wait for another attempt is over."""
        for queue in queues(self._client):
            registry = queue.scheduled_job_registry
            for job_id in registry.get_jobs_to_schedule():
                # Whoever takes it off the list puts it on the queue; `tidy` finds it if that one dies in between.
                (record,) = records(self._client, [job_id])
                if registry.remove(job_id) and record is not None and record.state == "retrying":
                    queue.enqueue_job(record)

    def turn(self, worker_name: str) -> bool:
        """Is it for this worker to look through all jobs now?"""
        return bool(self._client.set(MAINTENANCE, worker_name, nx=True, ex=TURN_S))

    def tidy(self) -> None:
        """Forget what Redis has forgotten, and put jobs on their queue that are in none.

        A worker that is killed after it took a job off its queue, and before it wrote that down, leaves such a job.
        It is adrift when it was so twice, because another worker may be about to write it down just now.
        """
        job_ids = [job_id.decode() for job_id in cast("list[bytes]", self._client.zrange(IDS, 0, -1))]
        found = dict(zip(job_ids, records(self._client, job_ids), strict=True))
        if gone := [job_id for job_id, record in found.items() if record is None]:
            self._client.zrem(IDS, *gone)
        self._client.transaction(_forget_names, NAMES)
        adrift = {record.id: record for record in found.values() if record is not None and self._is_adrift(record)}
        for job_id in adrift.keys() & self._adrift:
            _log.warning("the job %s was in no queue and is put back", job_id)
            queue_of(priority_of(adrift[job_id].origin), self._client).enqueue_job(adrift[job_id])
        self._adrift = adrift.keys() - self._adrift

    def _is_adrift(self, record: Record) -> bool:
        queue, status = queue_of(priority_of(record.origin), self._client), record.get_status(refresh=False)
        if status == JobStatus.QUEUED:
            return self._client.lpos(queue.key, record.id) is None
        return status == JobStatus.SCHEDULED and record not in queue.scheduled_job_registry


def _forget_names(pipeline: Pipeline) -> None:
    """Strike off what jobs were to write of which nothing is known any more."""
    names = cast("dict[bytes, bytes]", pipeline.hgetall(NAMES))
    known = set(cast("list[bytes]", pipeline.zrange(IDS, 0, -1)))
    pipeline.multi()
    if old := [name for name, job_id in names.items() if job_id not in known]:
        pipeline.hdel(NAMES, *old)
