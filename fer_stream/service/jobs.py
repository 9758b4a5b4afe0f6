"""The jobs process: processes recorded files, one after the other, beside the cameras."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fer_stream.errors import QueueError
from fer_stream.jobs.worker import JobWorker
from fer_stream.log import get_logger
from fer_stream.service.process import connect_store, store_url

if TYPE_CHECKING:
    from fer_stream.service.process import ServiceContext

_log = get_logger(__name__)

# Retries of a Redis call, up to 1 s apart (18 s in total), before the worker gives up and is restarted.
_RETRIES = 20


def jobs(process: ServiceContext) -> None:
    """Run jobs until stopped; a job that is running then goes back to its queue.

    Raises `QueueError` if the store stays unreachable.
    """
    settings = process.settings
    # rq logs every step; `fer_stream.jobs` logs what matters.
    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    process.connect("store", connect_store)
    client = redis.Redis.from_url(
        store_url(settings), protocol=2, retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), _RETRIES)
    )
    worker = JobWorker(
        client,
        workers=max(1, settings.jobs.workers),
        metrics=process.metrics,
        stop=process.stop,
        heartbeat=process.health.heartbeat,
    )
    _log.info("worker_ready", worker=worker.name)
    try:
        worker.run()
    except RedisError as error:
        raise QueueError("The jobs worker lost its store. Check that the Redis server runs.") from error
    finally:
        client.close()
