"""The classify process: classifies the face crops of all sources."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from fer_stream import factory
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.protocols import DEAD_REASONS
from fer_stream.log import get_logger
from fer_stream.pipeline import Predictor, run_classify
from fer_stream.records import CROP_SIZE_PX
from fer_stream.service.process import connect_queue, open_queue

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
