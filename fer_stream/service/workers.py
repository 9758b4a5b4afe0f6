"""The classify process, which classifies the face crops of all sources, and the jobs process, which processes
files."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np
import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from fer_stream import factory
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.protocols import DEAD_REASONS
from fer_stream.errors import QueueError
from fer_stream.log import get_logger
from fer_stream.pipeline import Predictor, run_classify
from fer_stream.records import CROP_SIZE_PX
from fer_stream.service.process import connect_queue, connect_store, open_queue, prepare_state_dir, store_url

if TYPE_CHECKING:
    from fer_stream.service.process import ServiceContext


_log = get_logger(__name__)


def classify(context: ServiceContext) -> None:
    """Classify until stopped; the current batch is finished."""
    settings = context.settings
    dead_letters = {reason: context.metrics.dead_letters.labels(reason) for reason in DEAD_REASONS}
    classifier = factory.make_classifier(settings.model)
    # Warm up first: the first batch of each size is the slowest.
    for faces in (1, settings.model.batch_size):
        classifier.predict(np.zeros((faces, CROP_SIZE_PX, CROP_SIZE_PX), np.uint8))
    client = context.connect("queue", connect_queue)
    # The consumer name of the process that this one replaces, so that its in-flight crops are reclaimed.
    consumer = ConsumerOptions(
        context.owner.name, poll_timeout_s=0.5, on_dead=lambda reason: dead_letters[reason].inc()
    )
    queue = open_queue(client, settings, consumer=consumer)
    _log.info("worker_ready", model=classifier.spec.model_id)
    try:
        run_classify(
            queue,
            Predictor(classifier, settings.model.batch_size, settings.model.min_agreement, context.metrics),
            batch_timeout_s=settings.workers.batch_timeout_s,
            stop=context.stop,
            now=time.time,
            heartbeat=context.health.heartbeat,
        )
    finally:
        queue.close()


# Retries of a Redis call, up to 1 s apart (18 s in total), before the worker gives up and is restarted.
_RETRIES = 20


def jobs(process: ServiceContext) -> None:
    """Run jobs until stopped; a job that is running then goes back to its queue.

    Raises `QueueError` if the store stays unreachable.
    """
    # Not at module level: only the image of this role contains rq.
    from fer_stream.jobs.worker import JobWorker

    settings = process.settings
    # rq logs every step; `fer_stream.jobs` logs what matters.
    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    prepare_state_dir(settings.state_dir)
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
