"""The loops that join the stages; nothing else.

run_file     FrameSource → FaceFollower → EmotionClassifier → TimelineBuilder → Writers, in one process
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fer_stream.capture.source import FrameSource
from fer_stream.faces.follow import FaceFollower
from fer_stream.metrics import Metrics
from fer_stream.recognize.classifier import EmotionClassifier
from fer_stream.records import (
    EndOfStream,
    FaceCrop,
    Frame,
    FrameMark,
    LabelledFrame,
    Prediction,
)
from fer_stream.timeline.builder import Message, TimelineBuilder

# A batch also ends after so many frames, so that a film without faces does not pile up.
_MAX_FRAMES_PER_BATCH = 64


class Flag(Protocol):
    """Something that may be set from elsewhere, as a `threading.Event` or a `multiprocessing.Event`."""

    def is_set(self) -> bool:
        """Is it set?"""
        ...


@dataclass(slots=True)
class FileRun:
    """How far a run is."""

    frames: int = 0
    last_s: float = 0.0
    faces: int = 0
    stopped: bool = False


def run_file(
    source: FrameSource,
    follower: FaceFollower,
    classifier: EmotionClassifier,
    builder: TimelineBuilder,
    sink: Callable[[Sequence[LabelledFrame]], None],
    *,
    max_batch: int,
    metrics: Metrics,
    stop: Flag,
    progress: Callable[[FileRun], object],
    look: Callable[[Sequence[FaceCrop]], object],
) -> FileRun:
    """Take every frame of `source` through all stages; `sink` gets the final frames, in order, `look` the crops.

    Ends when the source does, or soon after `stop` is set; either way all that was read is labelled and given out.
    """
    run = FileRun()
    batch = _Batch(classifier, max_batch, metrics)
    for frame in _timed(source.frames(), metrics):
        run.frames, run.last_s = run.frames + 1, frame.time_s
        metrics.frames.labels(source.info.name).inc()
        batch.extend(follower.follow(frame))
        if batch.full:
            look(batch.crops)
            _deliver(batch.classify(), builder, sink, metrics)
            progress(run)
        if stop.is_set():
            run.stopped = True
            break
    batch.extend(follower.finish())
    look(batch.crops)
    end = EndOfStream(source.stream_id, run.last_s, run.frames, batch.faces)
    _deliver([*batch.classify(), end], builder, sink, metrics)
    run.faces = batch.faces
    metrics.faces.labels(source.info.name).inc(batch.faces)
    progress(run)
    return run


class _Batch:
    """Messages on their way to the builder, whose crops are classified together."""

    def __init__(self, classifier: EmotionClassifier, max_crops: int, metrics: Metrics) -> None:
        self._classifier = classifier
        self._max_crops = max_crops
        self._metrics = metrics
        self.crops: list[FaceCrop] = []
        self._marks: list[FrameMark] = []
        self.faces = 0

    def extend(self, messages: Sequence[FaceCrop | FrameMark]) -> None:
        for message in messages:
            if isinstance(message, FaceCrop):
                self.crops.append(message)
                self.faces += 1
            else:
                self._marks.append(message)

    @property
    def full(self) -> bool:
        return len(self.crops) >= self._max_crops or len(self._marks) >= _MAX_FRAMES_PER_BATCH

    def classify(self) -> list[Message]:
        predictions = [
            prediction
            for start in range(0, len(self.crops), self._max_crops)
            for prediction in classify(self.crops[start : start + self._max_crops], self._classifier, self._metrics)
        ]
        messages: list[Message] = [*predictions, *self._marks]
        self.crops, self._marks = [], []
        return messages


def classify(crops: Sequence[FaceCrop], classifier: EmotionClassifier, metrics: Metrics) -> list[Prediction]:
    """One batch of crops → their predictions."""
    spec = classifier.spec
    with metrics.timed("inference"):
        probs = classifier.predict(np.stack([crop.pixels for crop in crops]))
    metrics.batch_size.observe(len(crops))
    for best in probs.argmax(axis=1):
        metrics.predictions.labels(spec.model_id, spec.labels[best]).inc()
    return [
        Prediction(
            crop.key, crop.time_s, crop.captured_at, crop.xyxy, crop.confidence, crop.quality, row, spec.model_id
        )
        for crop, row in zip(crops, probs, strict=True)
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


def _timed(frames: Iterator[Frame], metrics: Metrics) -> Iterator[Frame]:
    while True:
        with metrics.timed("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
