"""The jobs process: does recorded files, one after the other, beside the cameras."""

from __future__ import annotations

import logging

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fer_stream.errors import QueueError
from fer_stream.jobs.worker import JobWorker
from fer_stream.service.connections import open_store_link, store_url
from fer_stream.service.process import Process

_log = logging.getLogger(__name__)

# So often a call is tried again, after up to a second each time, before the worker gives up and is started again.
_RETRIES = 20


def jobs(process: Process) -> None:
    """Do jobs until told to stop; the one under way then goes back on the queue.

    Raises `QueueError` where the store stays away.
    """
    settings = process.settings
    # It tells of every step; what matters we say ourselves.
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    process.link_to("store", open_store_link)
    client = redis.Redis.from_url(
        store_url(settings), protocol=2, retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), _RETRIES)
    )
    worker = JobWorker(
        client,
        processes=max(1, settings.jobs.workers),
        metrics=process.metrics,
        told=process.told,
        beat=process.health.beat,
    )
    _log.info("waiting for recorded files")
    try:
        worker.work(logging_level=None)
    except RedisError as error:
        _log.error("the store stays away: %s", error)
    finally:
        client.close()
    if not process.stop.is_set():
        raise QueueError("The jobs cannot go on without the store: is its server up?")
