"""Predictions and frame marks → final labels, frame by frame, and one list of segments per person.

The builder keeps what is not settled yet and a list of segments; nothing else in it grows with the number of
frames. A frame is complete when all the faces its mark counts have arrived, in whatever order, or when it is said
that no more will; time runs up to the last frame before which every frame is complete.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from fer_stream.config.settings import TimelineSettings
from fer_stream.records import (
    F32,
    EndOfStream,
    Face,
    FaceKey,
    FrameHeader,
    LabelledFace,
    LabelledFrame,
    PersonSummary,
    Prediction,
    Quality,
    Segment,
)
from fer_stream.timeline.person import Person
from fer_stream.timeline.smoothing import Sample, SampleBook

Message = FrameHeader | Face | Prediction | EndOfStream

_STATE_VERSION = 1


class TimelineBuilder:
    """Builds the timelines of one stream.

    The label of a frame is final after at most 3 × `smoothing_s` (the reach of the kernel) + 2 × `min_segment_s` (one
    for a label that is given up, one for the next) + `max_gap_s` (a face that may come back) of media time.

    `missing` counts the faces that were announced and never came, `late` those that came when their frame was done.
    """

    def __init__(self, settings: TimelineSettings) -> None:
        self._settings = settings
        self._early: dict[int, dict[int, _Observed]] = {}
        self._incomplete: deque[FrameHeader] = deque()
        self._unlabelled: deque[_Pending] = deque()
        self._people: dict[int, Person] = {}
        self._marked = self._taken = self._shown = -1
        self._newest_s = -math.inf
        self.late = 0
        self.missing = 0

    def add(self, messages: Iterable[Message]) -> list[LabelledFrame]:
        """Take messages; return the frames whose labels they made final, in order. What comes twice counts once."""
        ended = False
        for message in messages:
            match message:
                case Prediction():
                    self._wait_for_mark(message.face, message.probs)
                case Face():
                    self._wait_for_mark(message, None)
                case FrameHeader() if message.index > self._marked:
                    self._incomplete.append(message)
                    self._marked, self._newest_s = message.index, message.time_s
                case EndOfStream():
                    ended = True
        self._take_complete_frames()
        if ended:
            return self.close()
        self._settle()
        return self._labelled_frames()

    @property
    def newest_s(self) -> float:
        """Media time of the last mark; minus infinity before the first."""
        return self._newest_s

    @property
    def open_since_s(self) -> float:
        """Media time from which on somebody is kept or waited for here and not told yet; infinity for nobody."""
        early = (one.face.time_s for faces in self._early.values() for one in faces.values())
        awaited = (mark.time_s for mark in self._incomplete if mark.faces)
        people = (person.open_since_s for person in self._people.values())
        return min([*early, *awaited, *people], default=math.inf)

    def finalize_before(self, time_s: float) -> list[LabelledFrame]:
        """Wait no longer for the faces of frames before `time_s`; return the frames that this makes final.

        `missing` counts the faces that did not come. One that comes after all is left out and counted in `late`.
        """
        self._take_complete_frames(give_up_before=time_s)
        self._settle()
        return self._labelled_frames()

    def close(self) -> list[LabelledFrame]:
        """The stream is over: everything becomes final, with the faces that are here."""
        self._take_complete_frames(give_up_before=math.inf)
        for person in self._people.values():
            person.end_visit()
        return self._labelled_frames()

    def provisional(self, final: Sequence[LabelledFrame]) -> list[LabelledFrame]:
        """The frames that became complete since the last call, with the labels that can be told at once.

        Such a label may still change. `final` are the frames that became final since then; those that were never
        shown are shown as they are.
        """
        shown, self._shown = self._shown, self._taken
        return [frame for frame in final if frame.index > shown] + [
            _labelled_frame(pending.mark, [self._provisional(*face) for face in pending.faces])
            for pending in self._unlabelled
            if pending.mark.index > shown
        ]

    def drain_segments(self) -> list[Segment]:
        """The segments that became final since the last call, which are then forgotten, and who left with them."""
        taken = []
        for person_id, person in list(self._people.items()):
            taken += person.segments
            person.segments.clear()
            if not person.present:
                del self._people[person_id]
        return taken

    def state(self) -> bytes:
        """All that the builder keeps, for `restore`: JSON, so that reading it runs no code."""
        samples = SampleBook()
        document = {
            "version": _STATE_VERSION,
            "marked": self._marked,
            "taken": self._taken,
            "newest_s": self._newest_s if self._marked >= 0 else None,
            "late": self.late,
            "missing": self.missing,
            "people": [person.state(samples) for person in self._people.values()],
            "early": [_row(face) for faces in self._early.values() for face in faces.values()],
            "incomplete": [astuple(mark) for mark in self._incomplete],
            "unlabelled": [
                [astuple(pending.mark), [[_row(face), samples.number(sample)] for face, sample in pending.faces]]
                for pending in self._unlabelled
            ],
            "samples": samples.rows,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def restore(cls, settings: TimelineSettings, state: bytes) -> TimelineBuilder:
        """A builder that goes on from `state`. Raises `ValueError` where another version wrote it."""
        document = json.loads(state)
        if document["version"] != _STATE_VERSION:
            raise ValueError(f"Expected a timeline state of version {_STATE_VERSION}, received {document['version']}")
        builder = cls(settings)
        builder._taken, builder.late, builder.missing = document["taken"], document["late"], document["missing"]
        builder._marked, builder._shown = document["marked"], builder._taken
        builder._newest_s = -math.inf if document["newest_s"] is None else document["newest_s"]
        samples = SampleBook.read(document["samples"])
        people = [Person.restore(row, samples, settings) for row in document["people"]]
        builder._people = {person.person_id: person for person in people}
        for row in document["early"]:
            builder._wait_for_mark(*_read_row(row))
        builder._incomplete.extend(FrameHeader(*mark) for mark in document["incomplete"])
        for mark, faces in document["unlabelled"]:
            pairs = tuple((_Observed(*_read_row(row)), samples[number]) for row, number in faces)
            builder._unlabelled.append(_Pending(FrameHeader(*mark), pairs))
        return builder

    def people(self) -> tuple[PersonSummary, ...]:
        """Everybody seen so far, with the segments that are final."""
        return tuple(person.summary() for _, person in sorted(self._people.items()))

    def _wait_for_mark(self, face: Face, probs: F32 | None) -> None:
        """Keep a face until its frame is complete; one that comes twice counts once."""
        if face.key.frame_index <= self._taken:
            self.late += 1
            return
        self._early.setdefault(face.key.frame_index, {})[face.key.person_id] = _Observed(face, probs)

    def _take_complete_frames(self, give_up_before: float = -math.inf) -> None:
        while self._incomplete:
            mark = self._incomplete[0]
            missing = mark.faces - len(self._early.get(mark.index, ()))
            if missing > 0 and mark.time_s >= give_up_before:
                return
            self.missing += max(0, missing)
            self._incomplete.popleft()
            self._taken = mark.index
            predictions = [prediction for _, prediction in sorted(self._early.pop(mark.index, {}).items())]
            faces = tuple((prediction, self._see(prediction)) for prediction in predictions)
            self._unlabelled.append(_Pending(mark, faces))

    def _see(self, observed: _Observed) -> Sample:
        key = observed.face.key
        if key.person_id not in self._people:
            self._people[key.person_id] = Person(key.stream_id, key.person_id, observed.face.time_s, self._settings)
        return self._people[key.person_id].add(observed.face, observed.probs)

    def _settle(self) -> None:
        if self._unlabelled:
            for person in self._people.values():
                person.advance(self._unlabelled[-1].mark.time_s)

    def _labelled_frames(self) -> list[LabelledFrame]:
        frames = []
        while self._unlabelled and all(sample.label for _, sample in self._unlabelled[0].faces):
            pending = self._unlabelled.popleft()
            frames.append(_labelled_frame(pending.mark, [_labelled_face(*face) for face in pending.faces]))
        return frames

    def _provisional(self, prediction: _Observed, sample: Sample) -> LabelledFace:
        return _labelled_face(prediction, self._people[prediction.face.key.person_id].provisional(sample))


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    face: Face
    probs: F32 | None


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    mark: FrameHeader
    faces: tuple[tuple[_Observed, Sample], ...]


def _labelled_frame(mark: FrameHeader, faces: Sequence[LabelledFace]) -> LabelledFrame:
    return LabelledFrame(mark.stream_id, mark.index, mark.time_s, tuple(faces))


def _labelled_face(prediction: _Observed, sample: Sample) -> LabelledFace:
    assert sample.smoothed is not None
    assert sample.label is not None
    return LabelledFace(
        prediction.face.key.person_id,
        prediction.face.xyxy,
        prediction.face.confidence,
        prediction.face.quality,
        sample.smoothed if prediction.probs is None else prediction.probs,
        sample.smoothed,
        sample.label,
    )


def _row(observed: _Observed) -> list[Any]:
    """A prediction in terms of JSON. Its probabilities are float32, which JSON's doubles hold exactly."""
    face, probs = observed.face, observed.probs
    return [
        astuple(face.key), face.time_s, face.captured_at, face.xyxy.tolist(), face.confidence,
        astuple(face.quality), None if probs is None else probs.tolist(),
    ]  # fmt: skip


def _read_row(row: Sequence[Any]) -> tuple[Face, F32 | None]:
    key, time_s, captured_at, xyxy, confidence, quality, probs = row
    box, seven = np.array(xyxy, np.float32), None if probs is None else np.array(probs, np.float32)
    return Face(FaceKey(*key), time_s, captured_at, box, confidence, Quality(*quality)), seven
