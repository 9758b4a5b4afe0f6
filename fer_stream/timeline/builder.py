"""Predictions and frame marks → final labels, frame by frame, and one list of segments per person.

The builder keeps what is not settled yet and a short list of segments; nothing in it grows with the number of
frames. A frame is complete when all the faces its mark counts have arrived, in whatever order; time runs up to the
last frame before which every frame is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from fer_stream.config import TimelineSettings
from fer_stream.records import (
    EmotionSegment,
    EndOfStream,
    FrameMark,
    LabelledFace,
    LabelledFrame,
    PersonSummary,
    Prediction,
)
from fer_stream.timeline.segments import Labeller, Segmenter
from fer_stream.timeline.smoothing import KernelSmoother, Sample

Message = FrameMark | Prediction | EndOfStream


class TimelineBuilder:
    """Builds the timelines of one stream.

    The label of a frame is final after at most 3 × `smoothing_s` (the reach of the kernel) + 2 × `min_segment_s` (one
    for a label that is given up, one for the next) + `max_gap_s` (a face that may come back) of media time.
    """

    def __init__(self, settings: TimelineSettings) -> None:
        self._settings = settings
        self._early: dict[int, list[Prediction]] = {}
        self._incomplete: deque[FrameMark] = deque()
        self._unlabelled: deque[_Pending] = deque()
        self._people: dict[int, _Person] = {}

    def add(self, messages: Iterable[Message]) -> list[LabelledFrame]:
        """Take messages; return the frames whose labels they made final, in order."""
        ended = False
        for message in messages:
            match message:
                case Prediction():
                    self._early.setdefault(message.key.frame_index, []).append(message)
                case FrameMark():
                    self._incomplete.append(message)
                case EndOfStream():
                    ended = True
        self._take_complete_frames()
        if ended:
            self._close_all()
        else:
            self._settle()
        return self._labelled_frames()

    def people(self) -> tuple[PersonSummary, ...]:
        """Everybody seen so far, with the segments that are final."""
        return tuple(_summary(person) for _, person in sorted(self._people.items()))

    def _take_complete_frames(self) -> None:
        while self._incomplete:
            mark = self._incomplete[0]
            if mark.faces > len(self._early.get(mark.index, ())):
                return
            self._incomplete.popleft()
            predictions = sorted(self._early.pop(mark.index, ()), key=lambda prediction: prediction.key.track_id)
            faces = tuple((prediction, self._see(prediction)) for prediction in predictions)
            self._unlabelled.append(_Pending(mark, faces))

    def _see(self, prediction: Prediction) -> Sample:
        track_id, time_s = prediction.key.track_id, prediction.time_s
        person = self._people.setdefault(track_id, _Person(track_id, first_s=time_s))
        if person.visit and time_s - person.last_s > self._settings.max_gap_s:
            person.end_visit()
        person.visit = person.visit or _Visit(self._settings)
        person.last_s = time_s
        person.frames += 1
        sample = Sample(time_s, prediction.probs, prediction.quality.ok)
        person.visit.smoother.push(sample)
        return sample

    def _settle(self) -> None:
        if not self._unlabelled:
            return
        now_s = self._unlabelled[-1].mark.time_s
        for person in self._people.values():
            if person.visit and now_s - person.last_s > self._settings.max_gap_s:
                person.end_visit()
            elif person.visit:
                person.segments += person.visit.settle(now_s)

    def _close_all(self) -> None:
        for person in self._people.values():
            person.end_visit()

    def _labelled_frames(self) -> list[LabelledFrame]:
        frames = []
        while self._unlabelled and all(sample.label for _, sample in self._unlabelled[0].faces):
            frames.append(_labelled_frame(self._unlabelled.popleft()))
        return frames


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    mark: FrameMark
    faces: tuple[tuple[Prediction, Sample], ...]


class _Visit:
    """One person from when they come until they are gone for longer than a gap."""

    def __init__(self, settings: TimelineSettings) -> None:
        self.smoother = KernelSmoother(settings.smoothing_s)
        self._labeller = Labeller(settings)
        self._segmenter = Segmenter()

    def settle(self, known_until_s: float) -> list[EmotionSegment]:
        return self._label(self.smoother.pop(known_until_s))

    def end(self) -> list[EmotionSegment]:
        ended = self._label(self.smoother.flush())
        ended += self._segmenter.push(self._labeller.flush())
        return ended + self._segmenter.flush()

    def _label(self, samples: Iterable[Sample]) -> list[EmotionSegment]:
        return [segment for sample in samples for segment in self._segmenter.push(self._labeller.push(sample))]


@dataclass(slots=True, eq=False)
class _Person:
    track_id: int
    first_s: float
    last_s: float = 0.0
    frames: int = 0
    visit: _Visit | None = None
    segments: list[EmotionSegment] = field(default_factory=list)

    def end_visit(self) -> None:
        if self.visit:
            self.segments += self.visit.end()
            self.visit = None


def _labelled_frame(pending: _Pending) -> LabelledFrame:
    mark = pending.mark
    faces = tuple(_labelled_face(prediction, sample) for prediction, sample in pending.faces)
    return LabelledFrame(mark.stream_id, mark.index, mark.time_s, faces)


def _labelled_face(prediction: Prediction, sample: Sample) -> LabelledFace:
    assert sample.smoothed is not None
    assert sample.label is not None
    return LabelledFace(
        prediction.key.track_id,
        prediction.xyxy,
        prediction.confidence,
        prediction.quality,
        prediction.probs,
        sample.smoothed,
        sample.label,
    )


def _summary(person: _Person) -> PersonSummary:
    return PersonSummary(
        person.track_id, person.first_s, person.last_s, person.frames, tuple(person.segments), shares(person.segments)
    )


def shares(segments: Iterable[EmotionSegment]) -> dict[str, float]:
    """Each label's part of the time, 0..1. Where all segments are moments (a still image), each counts the same."""
    lengths = [(segment.label, segment.end_s - segment.start_s) for segment in segments]
    if not any(length for _, length in lengths):
        lengths = [(label, 1.0) for label, _ in lengths]
    total = sum(length for _, length in lengths)
    parts: dict[str, float] = {}
    for label, length in lengths:
        parts[label] = parts.get(label, 0.0) + length / total
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
