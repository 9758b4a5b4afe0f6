"""One person of a stream, and their visits: from when they come until they are gone for longer than a gap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from typing import Any

from fer_stream.config import TimelineSettings
from fer_stream.records import F32, Face, PersonSummary, Segment
from fer_stream.timeline.labelling import Labeller, Segmenter
from fer_stream.timeline.smoothing import KernelSmoother, Sample, SampleBook


class Visit:
    """Smooths, labels and joins the samples of one person while they stay."""

    def __init__(self, stream_id: str, person_id: int, settings: TimelineSettings) -> None:
        self.smoother = KernelSmoother(settings.smoothing_s)
        self._labeller = Labeller(settings)
        self._segmenter = Segmenter(stream_id, person_id)

    @property
    def segment_start_s(self) -> float | None:
        """Where the segment begins that is not closed yet; None while nothing is labelled."""
        return self._segmenter.start_s

    def settle(self, known_until_s: float) -> list[Segment]:
        """Label what can be labelled; return the segments that end thereby."""
        return self._label(self.smoother.pop(known_until_s))

    def end(self) -> list[Segment]:
        """Label the rest; return the last segments."""
        ended = self._label(self.smoother.flush())
        ended += self._segmenter.push(self._labeller.flush())
        return ended + self._segmenter.flush()

    def provisional(self, sample: Sample) -> Sample:
        """A copy of the last sample, smoothed over the past alone and labelled without waiting."""
        probs, evidence = self.smoother.peek(sample)
        seen = replace(sample, smoothed=probs, evidence=evidence)
        return replace(seen, label=self._labeller.wanted(seen))

    def state(self, samples: SampleBook) -> list[Any]:
        """What `restore` needs, in terms of JSON."""
        return [self.smoother.state(samples), self._labeller.state(samples), self._segmenter.state(samples)]

    @classmethod
    def restore(
        cls, key: tuple[str, int], state: Sequence[Any], samples: Sequence[Sample], settings: TimelineSettings
    ) -> Visit:
        """The visit again."""
        visit = cls(*key, settings)
        visit.smoother.restore(state[0], samples)
        visit._labeller.restore(state[1], samples)
        visit._segmenter.restore(state[2], samples)
        return visit

    def _label(self, samples: Iterable[Sample]) -> list[Segment]:
        return [segment for sample in samples for segment in self._segmenter.push(self._labeller.push(sample))]


class Person:
    """All visits of one person, summed up as segments."""

    def __init__(self, stream_id: str, person_id: int, first_s: float, settings: TimelineSettings) -> None:
        self.stream_id = stream_id
        self.person_id = person_id
        self.segments: list[Segment] = []
        self._first_s = self._last_s = first_s
        self._frames = 0
        self._visit: Visit | None = None
        self._settings = settings

    @property
    def present(self) -> bool:
        """Is a visit going on?"""
        return self._visit is not None

    @property
    def open_since_s(self) -> float:
        """Media time from which on this person's timeline is not told yet; infinity where all of it is."""
        if self._visit is None:
            return math.inf
        start_s = self._visit.segment_start_s
        return self._first_s if start_s is None else start_s

    def see(self, face: Face, probs: F32 | None) -> Sample:
        """Note one face; the sample gets its label when `settle` or `leave` come to it."""
        sample = Sample(face.time_s, probs, face.quality.ok)
        if sample.time_s - self._last_s > self._settings.max_gap_s:
            self.leave()
        self._visit = self._visit or Visit(self.stream_id, self.person_id, self._settings)
        self._visit.smoother.push(sample)
        self._last_s = sample.time_s
        self._frames += 1
        return sample

    def settle(self, now_s: float) -> None:
        """Label what can be labelled, all faces before `now_s` being known."""
        if now_s - self._last_s > self._settings.max_gap_s:
            self.leave()
        elif self._visit:
            self.segments += self._visit.settle(now_s)

    def leave(self) -> None:
        """End the visit, if there is one."""
        if self._visit:
            self.segments += self._visit.end()
            self._visit = None

    def provisional(self, sample: Sample) -> Sample:
        """The person's last sample with the label that can be told at once."""
        return self._visit.provisional(sample) if self._visit and sample.label is None else sample

    def summary(self) -> PersonSummary:
        """What is final so far."""
        told = tuple(self.segments)
        return PersonSummary(self.person_id, self._first_s, self._last_s, self._frames, told, shares(told))

    def state(self, samples: SampleBook) -> list[Any]:
        """What `restore` needs, in terms of JSON."""
        visit = self._visit.state(samples) if self._visit else None
        segments = [astuple(segment) for segment in self.segments]
        return [self.stream_id, self.person_id, self._first_s, self._last_s, self._frames, visit, segments]

    @classmethod
    def restore(cls, state: Sequence[Any], samples: Sequence[Sample], settings: TimelineSettings) -> Person:
        """The person again."""
        stream_id, person_id, first_s, last_s, frames, visit, segments = state
        person = cls(stream_id, person_id, first_s, settings)
        person._last_s, person._frames = last_s, frames
        person._visit = Visit.restore((stream_id, person_id), visit, samples, settings) if visit else None
        person.segments = [Segment(*segment) for segment in segments]
        return person


def shares(segments: Iterable[Segment]) -> dict[str, float]:
    """Each label's part of the time, 0..1. Where all segments are moments (a still image), each counts the same."""
    lengths = [(segment.label, segment.end_s - segment.start_s) for segment in segments]
    if not any(length for _, length in lengths):
        lengths = [(label, 1.0) for label, _ in lengths]
    total = sum(length for _, length in lengths)
    parts: dict[str, float] = {}
    for label, length in lengths:
        parts[label] = parts.get(label, 0.0) + length / total
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
