"""The classify process: takes faces off the queue, whoever they are."""

from __future__ import annotations

import logging
import time

import numpy as np

from fer_stream import factory
from fer_stream.broker.protocols import DEAD_REASONS
from fer_stream.pipeline import run_classify
from fer_stream.records import CROP_SIZE_PX
from fer_stream.service.connections import open_queue, open_queue_link
from fer_stream.service.process import Process

_log = logging.getLogger(__name__)


def classify(process: Process) -> None:
    """Classify until told to stop; what is in work by then is finished."""
    settings = process.settings
    dead_letters = {reason: process.metrics.dead_letters.labels(reason) for reason in DEAD_REASONS}
    classifier = factory.make_classifier(settings.model)
    # Warm before work is taken: the first batch of a size costs the most.
    for faces in (1, settings.model.batch_size):
        classifier.predict(np.zeros((faces, CROP_SIZE_PX, CROP_SIZE_PX), np.uint8))
    link = process.link_to("queue", open_queue_link)
    # Under the name of the dead process in whose place we are, if any, so that its loans are ended.
    queue = open_queue(link, settings, consumer=process.owner.name, on_dead=lambda reason: dead_letters[reason].inc())
    _log.info("classifying with %s", classifier.spec.model_id)
    try:
        run_classify(
            queue,
            classifier,
            max_batch=settings.model.batch_size,
            min_agreement=settings.model.min_agreement,
            max_wait_s=settings.workers.batch_timeout_s / 1000,
            metrics=process.metrics,
            stop=process.stop,
            now=time.time,
            beat=process.health.beat,
        )
    finally:
        queue.close()
