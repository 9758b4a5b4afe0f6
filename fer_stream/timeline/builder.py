"""Timelines of one stream: labelled frames and the segments of each person, from frame headers and predictions.

The builder keeps only what is not final; its size does not depend on the number of frames. A frame is complete when
all faces that its header counts have arrived, in any order, or when `finalize_before` ends the wait. Time advances to
the last frame before which every frame is complete.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_stream.records import (
    F32,
    EndOfStream,
    Face,
    FrameHeader,
    LabelledFace,
    LabelledFrame,
    PersonSummary,
    Prediction,
    Segment,
)
from fer_stream.timeline.labelling import Person, PersonState
from fer_stream.timeline.smoothing import Sample  # noqa: TC001 - checkpoint.py evaluates the annotations

if TYPE_CHECKING:
    from fer_stream.config.settings import TimelineSettings

Message = FrameHeader | Face | Prediction | EndOfStream


@dataclass(frozen=True, slots=True)
class OnLoss:
    """Callbacks for lost faces, with their number.

    `missing` is called for expected faces that never arrived, `late` for faces that arrived after their frame was
    final.
    """

    missing: Callable[[int], object] = lambda _: None
    late: Callable[[int], object] = lambda _: None


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A face and its probabilities, float32 (7,); None if it was not classified."""

    face: Face
    probs: F32 | None


@dataclass(frozen=True, slots=True, eq=False)
class ObservedSample:
    """An observation and its sample, which has a label once it is final."""

    observation: Observation
    sample: Sample


@dataclass(frozen=True, slots=True, eq=False)
class PendingFrame:
    """A complete frame whose labels are not final."""

    header: FrameHeader
    faces: list[ObservedSample]


@dataclass(slots=True, eq=False)
class BuilderState:
    """State of a builder.

    `early` contains the faces whose frame is not complete, by frame index and person id; `incomplete` the headers of
    these frames. `header_index` is the last frame with a header, `complete_index` the last complete one.
    """

    people: dict[int, PersonState] = field(default_factory=dict)
    early: dict[int, dict[int, Observation]] = field(default_factory=dict)
    incomplete: deque[FrameHeader] = field(default_factory=deque)
    unlabelled: deque[PendingFrame] = field(default_factory=deque)
    header_index: int = -1
    complete_index: int = -1
    newest_s: float | None = None


class TimelineBuilder:
    """Builds the timelines of one stream.

    The label of a frame is final after at most 3 × `smoothing_s` (radius of the kernel) + 2 × `min_segment_s` (one
    for a label that expires, one for the next) + `max_gap_s` (a face that may return) of media time.
    """

    def __init__(
        self, settings: TimelineSettings, *, on_loss: OnLoss | None = None, state: BuilderState | None = None
    ) -> None:
        self._settings = settings
        self._on_loss = on_loss or OnLoss()
        self.state = state or BuilderState()
        self._people = {number: Person(person, settings) for number, person in self.state.people.items()}
        self._provisional_index = self.state.complete_index

    def add(self, messages: Iterable[Message]) -> list[LabelledFrame]:
        """Add messages; return the frames whose labels thereby are final, in order. Duplicates are ignored."""
        ended = False
        for message in messages:
            match message:
                case Prediction():
                    self._add_face(message.face, message.probs)
                case Face():
                    self._add_face(message, None)
                case FrameHeader() if message.index > self.state.header_index:
                    self.state.incomplete.append(message)
                    self.state.header_index, self.state.newest_s = message.index, message.time_s
                case EndOfStream():
                    ended = True
        self._take_complete_frames()
        if ended:
            return self.close()
        self._advance()
        return self._take_labelled_frames()

    @property
    def newest_s(self) -> float:
        """Media time of the last header; minus infinity before the first."""
        return -math.inf if self.state.newest_s is None else self.state.newest_s

    @property
    def open_since_s(self) -> float:
        """Media time from which faces are expected or segments are not final; infinity if there are none."""
        early = (one.face.time_s for faces in self.state.early.values() for one in faces.values())
        expected = (header.time_s for header in self.state.incomplete if header.faces)
        people = (person.open_since_s for person in self._people.values())
        return min([*early, *expected, *people], default=math.inf)

    def finalize_before(self, time_s: float) -> list[LabelledFrame]:
        """Stop waiting for the faces of frames before `time_s`; return the frames whose labels thereby are final.

        The faces are reported as missing. One that arrives afterwards is discarded and reported as late.
        """
        self._take_complete_frames(finalize_before_s=time_s)
        self._advance()
        return self._take_labelled_frames()

    def close(self) -> list[LabelledFrame]:
        """End the stream; return the remaining frames, with the faces that have arrived."""
        self._take_complete_frames(finalize_before_s=math.inf)
        for person in self._people.values():
            person.end_visit()
        return self._take_labelled_frames()

    def provisional(self, final: Sequence[LabelledFrame]) -> list[LabelledFrame]:
        """Return the frames completed since the last call, with provisional labels, which can change.

        `final` are the frames that became final since then; those never returned before are returned unchanged.
        """
        last, self._provisional_index = self._provisional_index, self.state.complete_index
        return [frame for frame in final if frame.index > last] + [
            _labelled_frame(pending.header, [self._provisional_face(one) for one in pending.faces])
            for pending in self.state.unlabelled
            if pending.header.index > last
        ]

    def drain_segments(self) -> list[Segment]:
        """Return and remove the final segments, and remove the people who have left."""
        segments = []
        for person_id, person in list(self._people.items()):
            segments += person.drain_segments()
            if not person.present:
                del self._people[person_id], self.state.people[person_id]
        return segments

    def people(self) -> tuple[PersonSummary, ...]:
        """Return summaries of all people, with the segments that are final."""
        return tuple(person.summary() for _, person in sorted(self._people.items()))

    def _add_face(self, face: Face, probs: F32 | None) -> None:
        """Keep a face until its frame is complete."""
        if face.key.frame_index <= self.state.complete_index:
            self._on_loss.late(1)
            return
        self.state.early.setdefault(face.key.frame_index, {})[face.key.person_id] = Observation(face, probs)

    def _take_complete_frames(self, finalize_before_s: float = -math.inf) -> None:
        while self.state.incomplete:
            header = self.state.incomplete[0]
            missing = header.faces - len(self.state.early.get(header.index, ()))
            if missing > 0 and header.time_s >= finalize_before_s:
                return
            if missing > 0:
                self._on_loss.missing(missing)
            self.state.incomplete.popleft()
            self.state.complete_index = header.index
            observations = [one for _, one in sorted(self.state.early.pop(header.index, {}).items())]
            faces = [ObservedSample(one, self._add_to_person(one)) for one in observations]
            self.state.unlabelled.append(PendingFrame(header, faces))

    def _add_to_person(self, one: Observation) -> Sample:
        key, time_s = one.face.key, one.face.time_s
        if key.person_id not in self._people:
            state = self.state.people[key.person_id] = PersonState(key.stream_id, key.person_id, time_s, time_s)
            self._people[key.person_id] = Person(state, self._settings)
        return self._people[key.person_id].add(one.face, one.probs)

    def _advance(self) -> None:
        if self.state.unlabelled:
            for person in self._people.values():
                person.advance(self.state.unlabelled[-1].header.time_s)

    def _take_labelled_frames(self) -> list[LabelledFrame]:
        frames, unlabelled = [], self.state.unlabelled
        while unlabelled and all(one.sample.label for one in unlabelled[0].faces):
            pending = unlabelled.popleft()
            faces = [_labelled_face(one.observation, one.sample) for one in pending.faces]
            frames.append(_labelled_frame(pending.header, faces))
        return frames

    def _provisional_face(self, one: ObservedSample) -> LabelledFace:
        person = self._people[one.observation.face.key.person_id]
        return _labelled_face(one.observation, person.provisional(one.sample))


def _labelled_frame(header: FrameHeader, faces: Sequence[LabelledFace]) -> LabelledFrame:
    return LabelledFrame(header.stream_id, header.index, header.time_s, tuple(faces))


def _labelled_face(observation: Observation, sample: Sample) -> LabelledFace:
    assert sample.smoothed is not None
    assert sample.label is not None
    face = observation.face
    return LabelledFace(
        person_id=face.key.person_id,
        xyxy=face.xyxy,
        confidence=face.confidence,
        quality=face.quality,
        probs=sample.smoothed if observation.probs is None else observation.probs,
        smoothed=sample.smoothed,
        label=sample.label,
        unknown_reason=sample.unknown_reason,
    )
