"""Faces through Redis: what a worker gets done with all of it around, and what a second worker adds.

Workers run the loop of `fer-stream worker classify` (`pipeline.run_classify`), each on a core of its own.
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
from benchmarks.rows import Options, cores, pinned
from benchmarks.scaling import BATCH, crop
from fer_stream import factory
from fer_stream.broker.client import open_client
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import JOURNAL_START, Overflow
from fer_stream.broker.queue import RedisQueue
from fer_stream.classify.classifier import ClassifierOutput, EmotionClassifier
from fer_stream.config import ModelSettings
from fer_stream.metrics import Metrics
from fer_stream.pipeline import run_classify
from fer_stream.records import LABELS, U8, Prediction

_CONSUMER = ConsumerOptions(poll_timeout_s=0.1)
_SOURCE = "camera"
_A_CALL = 3
_WARM_UP_S = 1.0
_NO_OP_FACES = Goal(3000)
_OF_ITS_RATE = Goal(90)
_SECOND_WORKER = Goal(1.8)


def one_worker(options: Options) -> Iterator[Line]:
    """A feeder puts three faces a call; their predictions are read from the journal. The worker has a core alone."""
    mine, other = cores(2)
    window_s = 2.0 if options.quick else 4.0
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        stack.enter_context(pinned([other]))
        url = stack.enter_context(EmbeddedServer(Path(folder), "queue")).url
        idle, real = (stack.enter_context(Worker(url, mine, no_op=no_op)) for no_op in (True, False))
        stack.enter_context(Feeder(url))
        no_op, through, alone = [], [], []
        for _ in range(options.rounds):
            no_op.append(_through(url, idle, window_s))
            through.append(_through(url, real, window_s))
            alone.append(real.alone(window_s))
    shares = tuple(100 * got / own for got, own in zip(through, alone, strict=True))
    yield Line("faces/s with a no-op classifier", tuple(no_op), "", _NO_OP_FACES)
    yield Line("faces/s with the real one", tuple(through), "")
    yield Line("… of the classifier's own rate", shares, "%", _OF_ITS_RATE)


def two_workers(options: Options) -> Iterator[Line]:
    """One worker and two in turn, each on a core of its own, on faces that wait already: putting takes no time."""
    window_s = 2.0 if options.quick else 5.0
    with tempfile.TemporaryDirectory(prefix="fer-") as folder, ExitStack() as stack:
        url = stack.enter_context(EmbeddedServer(Path(folder), "queue")).url
        workers = [stack.enter_context(Worker(url, core, no_op=False)) for core in cores(2)]
        alone_rate = workers[0].alone(window_s)
        queue = RedisQueue(open_client(url), overflow=Overflow.file(1_000_000), consumer=_CONSUMER)
        one: list[float] = []
        two: list[float] = []
        for _ in range(options.rounds):
            for rates, at_work in ((one, workers[:1]), (two, workers)):
                _wait_in(queue, int(3 * alone_rate * window_s))
                rates.append(_drained(queue, at_work, window_s))
    yield Line("faces/s, one worker", tuple(one), "")
    ratios = tuple(more / less for more, less in zip(two, one, strict=True))
    yield Line("two workers to one", ratios, "×", _SECOND_WORKER)


class Worker:
    """A classify process on one core, which works when it is told to."""

    def __init__(self, url: str, core: int, *, no_op: bool) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, url, core, no_op), daemon=True)
        self._process.start()
        self._pipe.recv()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    def begin(self, seconds: float) -> None:
        """Take faces off the queue for so long; `wait` for its end."""
        self._pipe.send(("queue", seconds))

    def wait(self) -> float:
        """What came of the last task."""
        answer: float = self._pipe.recv()
        return answer

    def alone(self, seconds: float) -> float:
        """Faces a second of its classifier alone, in batches as from a full queue."""
        self._pipe.send(("alone", seconds))
        return self.wait()


class Feeder:
    """A process that puts faces whenever there is room."""

    def __init__(self, url: str) -> None:
        context = get_context("spawn")
        self._over = context.Event()
        self._process = context.Process(target=_feed, args=(url, self._over), daemon=True)

    def __enter__(self) -> Feeder:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.terminate()
        self._process.join()


class NoOp:
    """A classifier that takes no time."""

    def __init__(self, spec_of: EmotionClassifier) -> None:
        self.spec = spec_of.spec

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Everything is as likely as everything else, for faces of any number."""
        n = len(pixels)
        return ClassifierOutput(np.full((n, len(LABELS)), 1 / len(LABELS), np.float32))


class _Until:
    """A flag that sets itself."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() >= self._end_s


def _work(pipe: Connection, url: str, core: int, no_op: bool) -> None:
    """In the worker's process: (what, seconds) in, faces a second of it out."""
    with pinned([core]):
        classifier = factory.make_classifier(ModelSettings())
        faces = np.zeros((BATCH, 48, 48), np.uint8)
        classifier.predict(faces)
        shown: EmotionClassifier = NoOp(classifier) if no_op else classifier
        queue = RedisQueue(open_client(url), consumer=_CONSUMER)
        pipe.send("ready")
        while (task := pipe.recv()) is not None:
            what, seconds = task
            until, done = _Until(seconds), 0
            if what == "queue":
                metrics = Metrics(CollectorRegistry())
                run_classify(
                    queue,
                    shown,
                    max_batch=BATCH,
                    min_agreement=0.0,
                    max_wait_s=0.0,
                    metrics=metrics,
                    stop=until,
                    now=time.time,
                )
            while what == "alone" and not until.is_set():
                classifier.predict(faces)
                done += BATCH
            pipe.send(done / seconds)


def _feed(url: str, over: Event) -> None:
    """In the feeder's process: as many faces as there is room for."""
    queue = RedisQueue(open_client(url), overflow=Overflow.file(), consumer=_CONSUMER)
    made = [crop(_SOURCE, index) for index in range(1000)]
    for number in count():
        if over.is_set():
            return
        start = number * _A_CALL % (len(made) - _A_CALL)
        queue.enqueue(made[start : start + _A_CALL])


def _through(url: str, worker: Worker, seconds: float) -> float:
    """Predictions a second that come out of the journal while `worker` works."""
    journal, after, found = RedisJournal(open_client(url)), JOURNAL_START, 0
    worker.begin(seconds + 2 * _WARM_UP_S)
    began_s = time.monotonic() + _WARM_UP_S
    while (now_s := time.monotonic()) < began_s + seconds:
        entries = journal.read({_SOURCE: after}, 1000, 0.05)
        if entries:
            after = entries[-1].position
            journal.trim(_SOURCE, after)
            found += (now_s >= began_s) * sum(isinstance(entry.message, Prediction) for entry in entries)
    lasted_s = time.monotonic() - began_s
    worker.wait()
    return found / lasted_s


def _wait_in(queue: RedisQueue, faces: int) -> None:
    """Have so many faces wait."""
    made = [crop(_SOURCE, index) for index in range(BATCH)]
    for _ in range(max(0, faces - queue.depth()) // BATCH):
        queue.enqueue(made)


def _drained(queue: RedisQueue, workers: list[Worker], seconds: float) -> float:
    """Faces a second that go off the queue."""
    for worker in workers:
        worker.begin(seconds + 2 * _WARM_UP_S)
    time.sleep(_WARM_UP_S)
    before, began_s = queue.depth(), time.monotonic()
    time.sleep(seconds)
    left, lasted_s = queue.depth(), time.monotonic() - began_s
    for worker in workers:
        worker.wait()
    return (before - left) / lasted_s
