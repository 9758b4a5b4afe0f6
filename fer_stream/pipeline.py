"""Processing loops that connect the stages.

- `run_file`: FrameSource → FaceExtractor → Predictor → TimelineBuilder → sink, in one process

and the same as three loops with a queue between them:

- `run_capture`: FrameSource → FaceExtractor → MessageQueue (crops) and Journal (headers, gaps)
- `run_classify`: MessageQueue → Predictor → Journal (predictions)
- `run_timeline`: Journal → SourceTimeline → ResultStore and files
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fer_stream.classify.classifier import apply_agreement
from fer_stream.log import get_logger
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

if TYPE_CHECKING:
    from fer_stream.broker.protocols import Delivery, Journal, MessageQueue
    from fer_stream.capture.source import FrameSource
    from fer_stream.classify.classifier import EmotionClassifier
    from fer_stream.faces.extractor import FaceEvent, FaceExtractor
    from fer_stream.metrics import Metrics
    from fer_stream.timeline.builder import Message, TimelineBuilder
    from fer_stream.timeline.processor import TimelineProcessor
    from fer_stream.timeline.source_timeline import Watermark

_log = get_logger(__name__)

# Crops in the first batch of a file. Each further batch is twice as large, up to the batch size.
_FIRST_BATCH = 4
# Maximum number of frames in a batch, so that frames without faces do not accumulate.
_MAX_FRAMES_PER_BATCH = 64
# One batch is produced while another is classified; the second compensates for batches that take longer.
_PREFETCHED_BATCHES = 2

# A commit writes about 20 KB per source. After a crash, later entries are read again from the journal.
_COMMIT_INTERVAL_S = 1.0
_ENTRIES_PER_READ = 500
# Limit for a journal that grew without a reader. A busy core takes 10 s, and the health check allows 90 s.
MAX_ENTRIES_PER_PASS = 10_000
_READ_TIMEOUT_S = 0.05
# Every pass costs a round trip per source, so entries are collected in between.
POLL_INTERVAL_S = 0.02

Predict = Callable[[Sequence[FaceCrop]], list[Prediction]]
Sink = Callable[[Sequence[LabelledFrame]], object]
OnCrops = Callable[[Sequence[FaceCrop]], object]


class StopFlag(Protocol):
    """Flag that can be set from elsewhere: a `threading.Event` or a `multiprocessing.Event`."""

    def is_set(self) -> bool:
        """Return whether the run should stop."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run. `last_s` is the media time of the last frame, `stopped` is True if it ended early."""

    frames: int = 0
    last_s: float = 0.0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class RunControl:
    """Control of a file run: `stop` ends it early, `progress` is called after each batch."""

    stop: StopFlag = field(default_factory=Event)
    progress: Callable[[Progress], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Predictor:
    """Classifier of batches of crops, with metrics.

    Faces whose agreement is below `min_agreement` take the FER+ probabilities if those are highest for neutral;
    otherwise they get the quality reason `unclear`.
    """

    classifier: EmotionClassifier
    batch_size: int
    min_agreement: float
    metrics: Metrics

    def predict(self, crops: Sequence[FaceCrop]) -> list[Prediction]:
        """Classify one batch."""
        spec = self.classifier.spec
        with self.metrics.timed("inference"):
            output = self.classifier.predict(np.stack([crop.pixels for crop in crops])).with_calm(self.min_agreement)
        self.metrics.batch_size.observe(len(crops))
        for best in output.probs.argmax(axis=1):
            self.metrics.predictions.labels(spec.model_id, spec.labels[best]).inc()
        return [
            Prediction(self._with_agreement(crop.face, agreement), probs, spec.model_id)
            for crop, probs, agreement in zip(crops, output.probs, output.agreement.tolist(), strict=True)
        ]

    def predict_all(self, crops: Sequence[FaceCrop]) -> list[Prediction]:
        """Classify any number of crops in batches of `batch_size`."""
        starts = range(0, len(crops), self.batch_size)
        return [one for start in starts for one in self.predict(crops[start : start + self.batch_size])]

    def _with_agreement(self, face: Face, agreement: float) -> Face:
        return replace(face, quality=apply_agreement(face.quality, agreement, self.min_agreement))


@dataclass(frozen=True, slots=True)
class FileStages:
    """Stages of a file run. `sink` receives the final frames in order, `on_crops` the crops of each batch.

    If `pipelined`, faces are extracted in another thread while the previous batch is classified and written.
    """

    source: FrameSource
    extractor: FaceExtractor
    predictor: Predictor
    builder: TimelineBuilder
    sink: Sink
    on_crops: OnCrops = lambda _: None
    pipelined: bool = False


def run_file(stages: FileStages, control: RunControl) -> Progress:
    """Process every frame of a file with all stages.

    Ends with the source, or soon after `control.stop` is set; in both cases all frames read so far are labelled and
    passed to the sink.
    """
    progress, crops, faces = Progress(), 0, 0
    source, metrics = stages.source, stages.predictor.metrics
    batches = _batches(stages, control.stop)
    with closing(_prefetch(batches) if stages.pipelined else batches) as prefetched:
        for batch in prefetched:
            stages.on_crops(batch.crops)
            _deliver(stages, [*stages.predictor.predict_all(batch.crops), *batch.others])
            progress = Progress(progress.frames + batch.frames, batch.last_s, batch.stopped)
            crops, faces = crops + len(batch.crops), faces + batch.faces
            control.progress(progress)
    _deliver(stages, [EndOfStream(source.stream_id, progress.last_s, progress.frames, crops)])
    metrics.faces.labels(source.info.name).inc(faces)
    return progress


def run_capture(
    messages: Iterable[Frame | Gap],
    source: FrameSource,
    extractor: FaceExtractor,
    queue: MessageQueue,
    journal: Journal,
    *,
    metrics: Metrics,
) -> None:
    """Enqueue the faces of every frame until `messages`, those of `source`, end.

    The crops of a frame are enqueued before its header, so that a reader of the header can rely on them; faces that
    are not classified are appended to the journal with the header. A gap follows the first message after it, so that
    the session of the timeline has started.
    """
    name = source.info.name
    end = EndOfStream(source.stream_id, 0.0, 0, 0)
    gaps: list[Gap] = []
    frames, faces = metrics.frames.labels(name), metrics.faces.labels(name)
    enqueued, dropped = metrics.crops_enqueued.labels(name), metrics.crops_dropped.labels(name, "overflow")

    def publish(events: Sequence[FaceEvent]) -> int:
        crops = [event for event in events if isinstance(event, FaceCrop)]
        if crops:
            enqueued.inc(len(crops))
            dropped.inc(queue.enqueue(crops))
        if others := [event for event in events if not isinstance(event, FaceCrop)]:
            journal.append([*others, *gaps])
            gaps.clear()
        faces.inc(sum(not isinstance(event, FrameHeader) for event in events))
        return len(crops)

    for message in messages:
        if isinstance(message, Gap):
            gaps.append(message)
            continue
        frames.inc()
        crops = publish(extractor.process(message))
        end = EndOfStream(source.stream_id, message.time_s, end.frames + 1, end.crops + crops)
    crops = publish(extractor.flush())
    journal.append([replace(end, crops=end.crops + crops), *gaps])


def run_classify(
    queue: MessageQueue,
    predictor: Predictor,
    *,
    batch_timeout_s: float,
    stop: StopFlag,
    now: Callable[[], float],
    heartbeat: Callable[[], object] = lambda: None,
) -> None:
    """Classify the crops of the queue, batch by batch, until `stop` is set. `now` returns Unix time in seconds.

    `heartbeat` is called once per batch, and at least once per poll timeout of the queue.
    """
    metrics, spec = predictor.metrics, predictor.classifier.spec
    for label in spec.labels:
        metrics.predictions.labels(spec.model_id, label)
    while not stop.is_set():
        heartbeat()
        deliveries = queue.receive(predictor.batch_size, batch_timeout_s)
        for delivery in deliveries:
            metrics.queue_wait.observe(max(0.0, now() - delivery.crop.face.captured_at))
            if delivery.attempt > 1:
                metrics.redelivered.inc()
        if deliveries:
            queue.ack(_classify_bisecting(deliveries, predictor.predict))


def run_timeline(
    sources: Callable[[], Collection[str]],
    queue: MessageQueue,
    journal: Journal,
    processor: TimelineProcessor,
    *,
    stop: Event,
    maintain: Callable[[], object] = lambda: None,
) -> None:
    """Update the timelines of `sources` with the messages of captures and workers until `stop` is set.

    `maintain` is called before each pass. All entries that were read are committed at the end.
    """
    committed_s = time.monotonic()
    while not stop.is_set():
        maintain()
        for source in sources():
            processor.open(source)
        if not processor.positions:
            stop.wait(_READ_TIMEOUT_S)
        _consume_journal(queue, journal, processor)
        if time.monotonic() - committed_s >= _COMMIT_INTERVAL_S:
            committed_s = time.monotonic()
            _commit(processor, journal)
            for source, position in processor.positions.items():
                if not journal.is_valid_position(source, position):
                    processor.restart(source)
        stop.wait(POLL_INTERVAL_S)
    _consume_journal(queue, journal, processor)
    _commit(processor, journal)


def _consume_journal(queue: MessageQueue, journal: Journal, processor: TimelineProcessor) -> None:
    """Read the journal to its end or to the limit of a pass, and finalise the frames that were complete before."""
    watermarks = _watermarks(queue, processor)
    predictions: list[Prediction] = []
    read, at_end = 0, False
    while not at_end and read < MAX_ENTRIES_PER_PASS:
        entries = journal.read(processor.positions, _ENTRIES_PER_READ, 0 if read else _READ_TIMEOUT_S)
        processor.add(entries)
        predictions += [entry.message for entry in entries if isinstance(entry.message, Prediction)]
        read, at_end = read + len(entries), len(entries) < _ENTRIES_PER_READ
    with processor.metrics.timed("timeline"):
        for source, watermark in watermarks.items():
            processor.advance(source, watermark if at_end else None)
    processor.metrics.observe_latency(predictions)


def _watermarks(queue: MessageQueue, processor: TimelineProcessor) -> dict[str, Watermark | None]:
    """Return the time of each source before which all faces are in the journal; None if it is unknown."""
    oldest = queue.oldest_pending(processor.positions)
    unreadable = {source for source, crop in oldest.items() if crop is None}
    return {
        source: None if source in unreadable else processor.watermark(source, oldest.get(source))
        for source in processor.positions
    }


def _commit(processor: TimelineProcessor, journal: Journal) -> None:
    for source, position in processor.commit():
        journal.trim(source, position)


def _classify_bisecting(deliveries: Sequence[Delivery], predict: Predict) -> list[tuple[Delivery, Prediction]]:
    """Classify a batch; if it fails, halve it until the failing crop is alone, which is left for redelivery."""
    try:
        predictions = predict([delivery.crop for delivery in deliveries])
    except Exception:  # noqa: BLE001 - one crop that fails must not affect the others of its batch
        if len(deliveries) == 1:
            _log.exception("classification_failed", attempt=deliveries[0].attempt)
            return []
        middle = len(deliveries) // 2
        halves = (deliveries[:middle], deliveries[middle:])
        return [pair for half in halves for pair in _classify_bisecting(half, predict)]
    return list(zip(deliveries, predictions, strict=True))


@dataclass(slots=True)
class _Batch:
    """Events of some frames of a file, whose crops are classified together. `last_s` is the last frame's time."""

    crops: list[FaceCrop] = field(default_factory=list)
    others: list[Face | FrameHeader] = field(default_factory=list)
    frames: int = 0
    last_s: float = 0.0
    stopped: bool = False

    def extend(self, events: Sequence[FaceEvent]) -> None:
        for event in events:
            if isinstance(event, FaceCrop):
                self.crops.append(event)
            else:
                self.others.append(event)

    @property
    def faces(self) -> int:
        return len(self.crops) + sum(isinstance(event, Face) for event in self.others)


def _batches(stages: FileStages, stop: StopFlag) -> Generator[_Batch]:
    """Yield the frames of a file in batches of about the batch size; the first ones are small for early progress."""
    source, metrics = stages.source, stages.predictor.metrics
    max_crops = stages.predictor.batch_size
    batch, target = _Batch(), min(_FIRST_BATCH, max_crops)
    for frame in timed_frames(source.frames(), metrics):
        metrics.frames.labels(source.info.name).inc()
        batch.extend(stages.extractor.process(frame))
        batch.frames, batch.last_s = batch.frames + 1, frame.time_s
        if stop.is_set():
            batch.stopped = True
            break
        if len(batch.crops) >= target or batch.frames >= _MAX_FRAMES_PER_BATCH:
            yield batch
            batch, target = _Batch(last_s=frame.time_s), min(2 * target, max_crops)
    batch.extend(stages.extractor.flush())
    yield batch


def _prefetch(batches: Generator[_Batch]) -> Generator[_Batch]:
    """Yield `batches`, of which another thread produces up to `_PREFETCHED_BATCHES` in advance."""
    thread = ThreadPoolExecutor(1, "prefetch")
    pending = deque(thread.submit(next, batches, None) for _ in range(_PREFETCHED_BATCHES))
    try:
        while batch := pending.popleft().result():
            pending.append(thread.submit(next, batches, None))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)
        batches.close()


def _deliver(stages: FileStages, messages: Sequence[Message]) -> None:
    metrics = stages.predictor.metrics
    with metrics.timed("timeline"):
        frames = stages.builder.add(messages)
    with metrics.timed("write"):
        stages.sink(frames)


def timed_frames(frames: Iterator[Frame], metrics: Metrics) -> Iterator[Frame]:
    """Yield the frames of a file and measure the time to read each."""
    while True:
        with metrics.timed("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
