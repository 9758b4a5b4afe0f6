"""The loops that join the stages; nothing else.

- `run_file`: FrameSource → FaceExtractor → EmotionClassifier → TimelineBuilder → Writers, in one process

and the same as three, with a queue between them:

- `run_capture`: FrameSource → FaceExtractor → MessageQueue (crops) and Journal (marks, gaps)
- `run_classify`: MessageQueue → EmotionClassifier → Journal (predictions)
- `run_timeline`: Journal → SourceTimeline → ResultStore and files
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from threading import Event
from typing import Protocol

import numpy as np

from fer_stream.broker.protocols import Delivery, Journal, MessageQueue
from fer_stream.capture.source import FrameSource
from fer_stream.classify.classifier import EmotionClassifier
from fer_stream.faces.extractor import FaceEvent, FaceExtractor
from fer_stream.faces.quality import apply_agreement
from fer_stream.metrics import Metrics
from fer_stream.records import (
    EndOfStream,
    Face,
    FaceCrop,
    Frame,
    FrameHeader,
    Gap,
    LabelledFrame,
    Prediction,
)
from fer_stream.timeline.builder import Message, TimelineBuilder
from fer_stream.timeline.metrics import TimelineCounts
from fer_stream.timeline.processor import TimelineKeeper
from fer_stream.timeline.source_timeline import Horizon

_log = logging.getLogger(__name__)

# The first batch of a file; each has twice as many crops as the one before, up to the most.
_FIRST_BATCH = 4
# A batch also ends after so many frames, so that a film without faces does not pile up.
_MAX_FRAMES_PER_BATCH = 64
# One batch is made while one is classified; a second evens out batches that take longer.
_AHEAD = 2

# A commit costs a state of about 20 KB per source; what a crash loses is read again from the journal.
_COMMIT_S = 1.0
_MAX_ENTRIES = 500
# Of a journal that grew while nobody read it. A busy core takes 10 s for so many, a loop is taken to hang after 90 s.
_MOST_A_TURN = 10_000
_IDLE_S = 0.05
# A turn costs a round trip for every source, whatever it finds. So each waits for what comes meanwhile.
_BETWEEN_TURNS_S = 0.02

_Judge = Callable[[Sequence[FaceCrop]], list[Prediction]]


class StopFlag(Protocol):
    """Something that may be set from elsewhere, as a `threading.Event` or a `multiprocessing.Event`."""

    def is_set(self) -> bool:
        """Is it set?"""
        ...


@dataclass(frozen=True, slots=True)
class FileRun:
    """How far a run is."""

    frames: int = 0
    last_s: float = 0.0
    stopped: bool = False


def run_file(
    source: FrameSource,
    follower: FaceExtractor,
    classifier: EmotionClassifier,
    builder: TimelineBuilder,
    sink: Callable[[Sequence[LabelledFrame]], None],
    *,
    max_batch: int,
    min_agreement: float,
    metrics: Metrics,
    stop: StopFlag,
    progress: Callable[[FileRun], object],
    look: Callable[[Sequence[FaceCrop]], object],
    ahead: bool = False,
) -> FileRun:
    """Take every frame of `source` through all stages; `sink` gets the final frames, in order, `look` the crops.

    Ends when the source does, or soon after `stop` is set; either way all that was read is labelled and given out.
    With `ahead`, faces are looked for in another thread while those found before are classified and written.
    """
    judge = partial(classify, classifier=classifier, min_agreement=min_agreement, metrics=metrics)
    run, put, faces = FileRun(), 0, 0
    batches = _batches(source, follower, max_batch, metrics, stop)
    with closing(_read_ahead(batches) if ahead else batches) as taken:
        for batch in taken:
            look(batch.crops)
            _deliver(batch.classify(judge, max_batch), builder, sink, metrics)
            run = FileRun(run.frames + batch.frames, batch.last_s, batch.stopped)
            put, faces = put + len(batch.crops), faces + batch.faces
            progress(run)
    _deliver([EndOfStream(source.stream_id, run.last_s, run.frames, put)], builder, sink, metrics)
    metrics.faces.labels(source.info.name).inc(faces)
    return run


def run_capture(
    messages: Iterable[Frame | Gap],
    source: FrameSource,
    follower: FaceExtractor,
    queue: MessageQueue,
    journal: Journal,
    *,
    metrics: Metrics,
) -> None:
    """Put the faces of every frame on the queue until `messages`, those of `source`, end.

    The crops of a frame are put before its mark, so that whoever has read the mark knows that its crops were put; the
    faces that need not be classified go to the journal with it. A gap follows the first message after it, which tells
    the epoch that it belongs to.
    """
    name = source.info.name
    end = EndOfStream(source.stream_id, 0.0, 0, 0)
    gaps: list[Gap] = []
    frames, faces = metrics.frames.labels(name), metrics.faces.labels(name)
    put, dropped = metrics.crops_enqueued.labels(name), metrics.crops_dropped.labels(name, "overflow")

    def tell(items: Sequence[FaceEvent]) -> int:
        crops = [item for item in items if isinstance(item, FaceCrop)]
        if crops:
            put.inc(len(crops))
            dropped.inc(queue.enqueue(crops))
        if rest := [item for item in items if not isinstance(item, FaceCrop)]:
            journal.append([*rest, *gaps])
            gaps.clear()
        faces.inc(sum(not isinstance(item, FrameHeader) for item in items))
        return len(crops)

    for message in messages:
        if isinstance(message, Gap):
            gaps.append(message)
            continue
        frames.inc()
        crops = tell(follower.process(message))
        end = EndOfStream(source.stream_id, message.time_s, end.frames + 1, end.crops + crops)
    crops = tell(follower.flush())
    journal.append([replace(end, crops=end.crops + crops), *gaps])


def run_classify(
    queue: MessageQueue,
    classifier: EmotionClassifier,
    *,
    max_batch: int,
    min_agreement: float,
    max_wait_s: float,
    metrics: Metrics,
    stop: StopFlag,
    now: Callable[[], float],
    beat: Callable[[], object] = lambda: None,
) -> None:
    """Classify what is on the queue, batch by batch, until `stop` is set. `now` is Unix time.

    `beat` is called once a batch, and at least as often as the queue was told to idle.
    """
    judge = partial(classify, classifier=classifier, min_agreement=min_agreement, metrics=metrics)
    for label in classifier.spec.labels:
        metrics.predictions.labels(classifier.spec.model_id, label)
    while not stop.is_set():
        beat()
        deliveries = queue.receive(max_batch, max_wait_s)
        for delivery in deliveries:
            metrics.queue_wait.observe(max(0.0, now() - delivery.crop.face.captured_at))
            if delivery.attempt > 1:
                metrics.redelivered.inc()
        if deliveries:
            queue.ack(_classify_what_can_be(deliveries, judge))


def run_timeline(
    sources: Callable[[], Collection[str]],
    queue: MessageQueue,
    journal: Journal,
    keeper: TimelineKeeper,
    counts: TimelineCounts,
    *,
    stop: Event,
    monotonic: Callable[[], float],
    heartbeat: Callable[[], object] = lambda: None,
) -> None:
    """Update the timelines of `sources` until `stop` is set, calling `heartbeat` in every pass.

    Everything that was read is committed at the end.
    """
    committed_s = monotonic()
    while not stop.is_set():
        heartbeat()
        for source in sources():
            keeper.open(source)
            counts.begin(source, *keeper.lost(source))
        if not keeper.positions:
            stop.wait(_IDLE_S)
        _follow_journal(queue, journal, keeper, counts)
        if monotonic() - committed_s >= _COMMIT_S:
            committed_s = monotonic()
            _commit(keeper, journal)
            for source, position in keeper.positions.items():
                if not journal.is_valid_position(source, position):
                    keeper.start_over(source)
        stop.wait(_BETWEEN_TURNS_S)
    _follow_journal(queue, journal, keeper, counts)
    _commit(keeper, journal)


def _follow_journal(queue: MessageQueue, journal: Journal, keeper: TimelineKeeper, counts: TimelineCounts) -> None:
    """Read the journal to its end, or a turn's share of it, and settle what was complete before."""
    horizons = _horizons(queue, keeper)
    predictions: list[Prediction] = []
    taken, at_end = 0, False
    while not at_end and taken < _MOST_A_TURN:
        entries = journal.read(keeper.positions, _MAX_ENTRIES, 0 if taken else _IDLE_S)
        keeper.add(entries)
        predictions += [entry.message for entry in entries if isinstance(entry.message, Prediction)]
        taken, at_end = taken + len(entries), len(entries) < _MAX_ENTRIES
    with counts.metrics.timed("timeline"):
        for source, horizon in horizons.items():
            counts.labelled(source, keeper.settle(source, horizon if at_end else None))
            counts.lost(source, *keeper.lost(source))
    counts.kept_back(keeper.unreadable, keeper.unpublished)
    counts.published(predictions)


def _horizons(queue: MessageQueue, keeper: TimelineKeeper) -> dict[str, Horizon | None]:
    """Up to when all faces of each source are in, once the journal is read to its end; None where nobody can tell."""
    oldest = queue.oldest_pending(keeper.positions)
    unreadable = {source for source, crop in oldest.items() if crop is None}
    return {
        source: None if source in unreadable else keeper.horizon(source, oldest.get(source))
        for source in keeper.positions
    }


def _commit(keeper: TimelineKeeper, journal: Journal) -> None:
    for source, position in keeper.commit():
        journal.trim(source, position)


def _classify_what_can_be(deliveries: Sequence[Delivery], judge: _Judge) -> list[tuple[Delivery, Prediction]]:
    """A batch that fails is halved until the crop that fails stands alone; that one is left to be tried again."""
    try:
        predictions = judge([delivery.crop for delivery in deliveries])
    except Exception:  # noqa: BLE001 - whatever one crop does to a classifier, its batch must not suffer
        if len(deliveries) == 1:
            _log.exception("a crop cannot be classified, attempt %d", deliveries[0].attempt)
            return []
        middle = len(deliveries) // 2
        halves = (deliveries[:middle], deliveries[middle:])
        return [pair for half in halves for pair in _classify_what_can_be(half, judge)]
    return list(zip(deliveries, predictions, strict=True))


@dataclass(slots=True)
class _Batch:
    """What came of some frames of a file, whose crops are classified together; `last_s` is the time of the last."""

    crops: list[FaceCrop] = field(default_factory=list)
    others: list[Face | FrameHeader] = field(default_factory=list)
    frames: int = 0
    last_s: float = 0.0
    stopped: bool = False

    def extend(self, messages: Sequence[FaceEvent]) -> None:
        for message in messages:
            if isinstance(message, FaceCrop):
                self.crops.append(message)
            else:
                self.others.append(message)

    @property
    def faces(self) -> int:
        return len(self.crops) + sum(isinstance(message, Face) for message in self.others)

    def classify(self, judge: _Judge, max_crops: int) -> list[Message]:
        starts = range(0, len(self.crops), max_crops)
        return [*chain.from_iterable(judge(self.crops[start : start + max_crops]) for start in starts), *self.others]


def _batches(
    source: FrameSource, follower: FaceExtractor, max_crops: int, metrics: Metrics, stop: StopFlag
) -> Generator[_Batch]:
    """The frames of a file in batches of about `max_crops` crops; the first are small, to have something to show."""
    batch, enough = _Batch(), min(_FIRST_BATCH, max_crops)
    for frame in decoded(source.frames(), metrics):
        metrics.frames.labels(source.info.name).inc()
        batch.extend(follower.process(frame))
        batch.frames, batch.last_s = batch.frames + 1, frame.time_s
        if stop.is_set():
            batch.stopped = True
            break
        if len(batch.crops) >= enough or batch.frames >= _MAX_FRAMES_PER_BATCH:
            yield batch
            batch, enough = _Batch(last_s=frame.time_s), min(2 * enough, max_crops)
    batch.extend(follower.flush())
    yield batch


def _read_ahead(batches: Generator[_Batch]) -> Generator[_Batch]:
    """`batches`, of which another thread makes up to `_AHEAD` while one is used."""
    thread = ThreadPoolExecutor(1, "read-ahead")
    waiting = deque(thread.submit(next, batches, None) for _ in range(_AHEAD))
    try:
        while batch := waiting.popleft().result():
            waiting.append(thread.submit(next, batches, None))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)
        batches.close()


def classify(
    crops: Sequence[FaceCrop], *, classifier: EmotionClassifier, min_agreement: float, metrics: Metrics
) -> list[Prediction]:
    """One batch of crops → their predictions; faces of less agreement than `min_agreement` are `unclear`."""
    spec = classifier.spec
    with metrics.timed("inference"):
        judged = classifier.predict(np.stack([crop.pixels for crop in crops]))
    metrics.batch_size.observe(len(crops))
    for best in judged.probs.argmax(axis=1):
        metrics.predictions.labels(spec.model_id, spec.labels[best]).inc()
    return [
        Prediction(
            replace(crop.face, quality=apply_agreement(crop.face.quality, share, min_agreement)), row, spec.model_id
        )
        for crop, row, share in zip(crops, judged.probs, judged.agreement.tolist(), strict=True)
    ]


def _deliver(
    messages: Sequence[Message],
    builder: TimelineBuilder,
    sink: Callable[[Sequence[LabelledFrame]], None],
    metrics: Metrics,
) -> None:
    with metrics.timed("timeline"):
        frames = builder.add(messages)
    with metrics.timed("write"):
        sink(frames)


def decoded(frames: Iterator[Frame], metrics: Metrics) -> Iterator[Frame]:
    """The frames of a file, whose reading is timed."""
    while True:
        with metrics.timed("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
