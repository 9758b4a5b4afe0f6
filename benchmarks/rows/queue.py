"""Throughput of one classification worker through Redis, and the speed-up by a second worker.

Workers run the loop of `fer-stream worker classify` (`pipeline.run_classify`), each on its own core.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.goals import Goal, Line
from benchmarks.rows import Options, available_cores, pinned
from benchmarks.scaling import BATCH, crop
from fer_stream import factory
from fer_stream.broker.client import open_client
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import JOURNAL_START, Overflow
from fer_stream.broker.queue import RedisQueue
from fer_stream.classify.classifier import ClassifierOutput, EmotionClassifier
from fer_stream.config.settings import ModelSettings
from fer_stream.metrics import Metrics
from fer_stream.pipeline import Predictor, run_classify
from fer_stream.records import LABELS, U8, Prediction

_CONSUMER = ConsumerOptions(poll_timeout_s=0.1)
_SOURCE = "camera"
_CROPS_PER_CALL = 3
_WARM_UP_S = 1.0
_NO_OP_RATE = Goal(3000)
_CLASSIFIER_SHARE = Goal(90)
_SPEED_UP = Goal(1.8)


def one_worker(options: Options) -> Iterator[Line]:
    """Measure one worker on its own core. A producer enqueues three crops per call; the journal is read here."""
    worker_core, other_core = available_cores(2)
    window_s = 2.0 if options.quick else 4.0
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        stack.enter_context(pinned([other_core]))
        url = stack.enter_context(EmbeddedServer(Path(folder), "queue")).url
        no_op_worker, worker = (stack.enter_context(Worker(url, worker_core, no_op=no_op)) for no_op in (True, False))
        stack.enter_context(Producer(url))
        no_op, throughput, alone = [], [], []
        for _ in range(options.rounds):
            no_op.append(_throughput(url, no_op_worker, window_s))
            throughput.append(_throughput(url, worker, window_s))
            alone.append(worker.classifier_rate(window_s))
    shares = tuple(100 * queued / direct for queued, direct in zip(throughput, alone, strict=True))
    yield Line("faces/s with a no-op classifier", tuple(no_op), "", _NO_OP_RATE)
    yield Line("faces/s with the real classifier", tuple(throughput), "")
    yield Line("… share of the classifier's own rate", shares, "%", _CLASSIFIER_SHARE)


def two_workers(options: Options) -> Iterator[Line]:
    """Measure one worker and two in turn, each on its own core, on crops that are already enqueued."""
    window_s = 2.0 if options.quick else 5.0
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        url = stack.enter_context(EmbeddedServer(Path(folder), "queue")).url
        workers = [stack.enter_context(Worker(url, core, no_op=False)) for core in available_cores(2)]
        alone_rate = workers[0].classifier_rate(window_s)
        queue = RedisQueue(open_client(url), overflow=Overflow.file(1_000_000), consumer=_CONSUMER)
        one: list[float] = []
        two: list[float] = []
        for _ in range(options.rounds):
            for rates, active in ((one, workers[:1]), (two, workers)):
                _fill(queue, int(3 * alone_rate * window_s))
                rates.append(_drain_rate(queue, active, window_s))
    yield Line("faces/s, one worker", tuple(one), "")
    ratios = tuple(more / less for more, less in zip(two, one, strict=True))
    yield Line("speed-up by a second worker", ratios, "×", _SPEED_UP)


class Worker:
    """A classification process on one core that runs tasks on request."""

    def __init__(self, url: str, core: int, *, no_op: bool) -> None:
        context = get_context("spawn")
        self._pipe, remote = context.Pipe()
        self._process = context.Process(target=_work, args=(remote, url, core, no_op), daemon=True)
        self._process.start()
        self._pipe.recv()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    def start(self, seconds: float) -> None:
        """Classify crops of the queue for `seconds`; `wait` returns at the end."""
        self._pipe.send(("queue", seconds))

    def wait(self) -> float:
        """Return the faces per second of the last task."""
        rate: float = self._pipe.recv()
        return rate

    def classifier_rate(self, seconds: float) -> float:
        """Return the faces per second of its classifier without a queue, in full batches."""
        self._pipe.send(("classifier", seconds))
        return self.wait()


class Producer:
    """A process that enqueues crops whenever capacity is free."""

    def __init__(self, url: str) -> None:
        context = get_context("spawn")
        self._stop = context.Event()
        self._process = context.Process(target=_produce, args=(url, self._stop), daemon=True)

    def __enter__(self) -> Producer:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.terminate()
        self._process.join()


class NoOp:
    """A classifier without computation."""

    def __init__(self, classifier: EmotionClassifier) -> None:
        self.spec = classifier.spec

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Return uniform probabilities."""
        n = len(pixels)
        return ClassifierOutput(np.full((n, len(LABELS)), 1 / len(LABELS), np.float32))


class _Timer:
    """A stop flag that is set after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() >= self._end_s


def _work(pipe: Connection, url: str, core: int, no_op: bool) -> None:
    """Run in the worker process: receive (task, seconds), send faces per second."""
    with pinned([core]):
        classifier = factory.make_classifier(ModelSettings())
        faces = np.zeros((BATCH, 48, 48), np.uint8)
        classifier.predict(faces)
        used: EmotionClassifier = NoOp(classifier) if no_op else classifier
        queue = RedisQueue(open_client(url), consumer=_CONSUMER)
        pipe.send("ready")
        while (request := pipe.recv()) is not None:
            task, seconds = request
            timer, classified = _Timer(seconds), 0
            if task == "queue":
                metrics = Metrics(CollectorRegistry())
                run_classify(
                    queue,
                    Predictor(used, BATCH, 0.0, metrics),
                    batch_timeout_s=0.0,
                    stop=timer,
                    now=time.time,
                )
            while task == "classifier" and not timer.is_set():
                classifier.predict(faces)
                classified += BATCH
            pipe.send(classified / seconds)


def _produce(url: str, stop: Event) -> None:
    """Run in the producer process: enqueue crops as capacity allows."""
    queue = RedisQueue(open_client(url), overflow=Overflow.file(), consumer=_CONSUMER)
    crops = [crop(_SOURCE, index) for index in range(1000)]
    for number in count():
        if stop.is_set():
            return
        start = number * _CROPS_PER_CALL % (len(crops) - _CROPS_PER_CALL)
        queue.enqueue(crops[start : start + _CROPS_PER_CALL])


def _throughput(url: str, worker: Worker, seconds: float) -> float:
    """Return the predictions per second that arrive in the journal while `worker` runs."""
    journal, after, predictions = RedisJournal(open_client(url)), JOURNAL_START, 0
    worker.start(seconds + 2 * _WARM_UP_S)
    started_s = time.monotonic() + _WARM_UP_S
    while (now_s := time.monotonic()) < started_s + seconds:
        entries = journal.read({_SOURCE: after}, 1000, 0.05)
        if entries:
            after = entries[-1].position
            journal.trim(_SOURCE, after)
            predictions += (now_s >= started_s) * sum(isinstance(entry.message, Prediction) for entry in entries)
    elapsed_s = time.monotonic() - started_s
    worker.wait()
    return predictions / elapsed_s


def _fill(queue: RedisQueue, depth: int) -> None:
    """Enqueue crops until about `depth` are pending."""
    crops = [crop(_SOURCE, index) for index in range(BATCH)]
    for _ in range(max(0, depth - queue.depth()) // BATCH):
        queue.enqueue(crops)


def _drain_rate(queue: RedisQueue, workers: list[Worker], seconds: float) -> float:
    """Return the faces per second that leave the queue."""
    for worker in workers:
        worker.start(seconds + 2 * _WARM_UP_S)
    time.sleep(_WARM_UP_S)
    before, started_s = queue.depth(), time.monotonic()
    time.sleep(seconds)
    after, elapsed_s = queue.depth(), time.monotonic() - started_s
    for worker in workers:
        worker.wait()
    return (before - after) / elapsed_s
