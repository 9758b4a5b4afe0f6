"""One person of a stream and their visits. A visit ends when the person is absent for longer than `max_gap_s`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fer_stream.config.settings import TimelineSettings
from fer_stream.records import F32, Face, PersonSummary, Segment
from fer_stream.timeline.labelling import Labeller, LabellerState, Segmenter, SegmenterState
from fer_stream.timeline.smoothing import KernelSmoother, Sample, SmootherState


@dataclass(slots=True, eq=False)
class VisitState:
    """State of a visit."""

    smoother: SmootherState = field(default_factory=SmootherState)
    labeller: LabellerState = field(default_factory=LabellerState)
    segmenter: SegmenterState = field(default_factory=SegmenterState)


@dataclass(slots=True, eq=False)
class PersonState:
    """State of a person; `segments` are the final ones that were not drained, `visit` is None while absent."""

    stream_id: str
    person_id: int
    first_s: float
    last_s: float
    frames: int = 0
    segments: list[Segment] = field(default_factory=list)
    visit: VisitState | None = None


class Visit:
    """Smooths, labels and segments the samples of one visit of a person."""

    def __init__(self, person: PersonState, state: VisitState, settings: TimelineSettings) -> None:
        self.smoother = KernelSmoother(settings.smoothing_s, state.smoother)
        self._labeller = Labeller(settings, state.labeller)
        self._segmenter = Segmenter(person.stream_id, person.person_id, state.segmenter)

    @property
    def segment_start_s(self) -> float | None:
        """Start of the open segment; None while no sample has a label."""
        return self._segmenter.start_s

    def advance(self, complete_until_s: float) -> list[Segment]:
        """Label the samples that can be labelled; return the segments that end thereby."""
        return self._label(self.smoother.pop(complete_until_s))

    def end(self) -> list[Segment]:
        """Label the remaining samples; return the last segments."""
        ended = self._label(self.smoother.flush())
        ended += self._segmenter.push(self._labeller.flush())
        return ended + self._segmenter.flush()

    def provisional(self, sample: Sample) -> Sample:
        """Return a copy of the last sample, smoothed over the past only and with a provisional label."""
        probs, evidence = self.smoother.peek(sample)
        smoothed = replace(sample, smoothed=probs, evidence=evidence)
        return replace(smoothed, label=self._labeller.candidate(smoothed))

    def _label(self, samples: Iterable[Sample]) -> list[Segment]:
        return [segment for sample in samples for segment in self._segmenter.push(self._labeller.push(sample))]


class Person:
    """All visits of one person, with their segments."""

    def __init__(self, state: PersonState, settings: TimelineSettings) -> None:
        self._state = state
        self._settings = settings
        self._visit = Visit(state, state.visit, settings) if state.visit else None

    @property
    def present(self) -> bool:
        """Whether a visit is in progress."""
        return self._visit is not None

    @property
    def open_since_s(self) -> float:
        """Media time from which this person's segments are not final; infinity if all are."""
        if self._visit is None:
            return math.inf
        start_s = self._visit.segment_start_s
        return self._state.first_s if start_s is None else start_s

    def add(self, face: Face, probs: F32 | None) -> Sample:
        """Add one face; return its sample, which `advance` or `end_visit` will label."""
        sample = Sample(face.time_s, probs, face.quality.ok)
        if sample.time_s - self._state.last_s > self._settings.max_gap_s:
            self.end_visit()
        if self._visit is None:
            self._state.visit = VisitState()
            self._visit = Visit(self._state, self._state.visit, self._settings)
        self._visit.smoother.push(sample)
        self._state.last_s = sample.time_s
        self._state.frames += 1
        return sample

    def advance(self, now_s: float) -> None:
        """Label the samples that can be labelled if all faces up to `now_s` were added."""
        if now_s - self._state.last_s > self._settings.max_gap_s:
            self.end_visit()
        elif self._visit:
            self._state.segments += self._visit.advance(now_s)

    def end_visit(self) -> None:
        """End the visit, if one is in progress."""
        if self._visit:
            self._state.segments += self._visit.end()
            self._visit = self._state.visit = None

    def drain_segments(self) -> list[Segment]:
        """Return and remove the final segments."""
        segments, self._state.segments = self._state.segments, []
        return segments

    def provisional(self, sample: Sample) -> Sample:
        """Return the person's last sample with a provisional label."""
        return self._visit.provisional(sample) if self._visit and sample.label is None else sample

    def summary(self) -> PersonSummary:
        """Return the summary of the final segments."""
        state, segments = self._state, tuple(self._state.segments)
        return PersonSummary(
            state.person_id, state.first_s, state.last_s, state.frames, segments, label_shares(segments)
        )


def label_shares(segments: Iterable[Segment]) -> dict[str, float]:
    """Return the share of time of each label, 0 to 1, largest first.

    If no segment has a duration, as in a still image, each counts the same.
    """
    durations = [(segment.label, segment.end_s - segment.start_s) for segment in segments]
    if not any(duration for _, duration in durations):
        durations = [(label, 1.0) for label, _ in durations]
    total = sum(duration for _, duration in durations)
    shares: dict[str, float] = {}
    for label, duration in durations:
        shares[label] = shares.get(label, 0.0) + duration / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
