"""Labels without flicker from smoothed probabilities, and the segments and visits of one person.

A visit ends when the person is absent for longer than `max_gap_s`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_stream.records import F32, LABELS, UNKNOWN, Face, PersonSummary, Segment, UnknownReason
from fer_stream.timeline.smoothing import MIN_EVIDENCE, KernelSmoother, Sample, SmootherState

if TYPE_CHECKING:
    from fer_stream.config.settings import TimelineSettings


@dataclass(slots=True, eq=False)
class LabellerState:
    """Current label, and the samples whose label is pending; the candidate starts at `candidate_start` of them."""

    current: str | None = None
    candidate: str | None = None
    candidate_start: int = 0
    pending: list[Sample] = field(default_factory=list)


class Labeller:
    """Assigns a label to every sample of one visit of one person.

    A new label is adopted if it leads the current one by `hysteresis` and persists for `min_segment_s`; it then
    applies from its first sample. If no label persists, the label is `unknown`. The probability of the best emotion
    must reach `min_prob`, and the faces must have passed the quality check; otherwise the candidate is `unknown`.
    """

    def __init__(self, settings: TimelineSettings, state: LabellerState) -> None:
        self._settings = settings
        self._state = state

    def push(self, sample: Sample) -> list[Sample]:
        """Add the next smoothed sample; return the samples that thereby have a final label, in order."""
        state, candidate = self._state, self.candidate(sample)
        if candidate == state.current:
            return [*self._release(len(state.pending), candidate), _with_label(sample, candidate)]
        if candidate != state.candidate or not state.pending:
            state.candidate, state.candidate_start = candidate, len(state.pending)
        state.pending.append(sample)
        if sample.time_s - state.pending[state.candidate_start].time_s >= self._settings.min_segment_s:
            return self._switch_to(candidate)
        return self._expire_current()

    def flush(self) -> list[Sample]:
        """Return the remaining samples with their labels at the end of the visit."""
        state, label = self._state, self._state.current
        if label is None:
            label = state.candidate if state.candidate_start == 0 and state.candidate else UNKNOWN
        return self._release(len(state.pending), label)

    def candidate(self, sample: Sample) -> str:
        """Return the label that this smoothed sample alone suggests, given the current one."""
        assert sample.smoothed is not None
        if sample.evidence < MIN_EVIDENCE:
            return UNKNOWN
        current, best = self._state.current, int(sample.smoothed.argmax())
        if current in LABELS:
            prob = float(sample.smoothed[LABELS.index(current)])
            leads = float(sample.smoothed[best]) - prob >= self._settings.hysteresis
            if not leads and prob >= self._settings.min_prob - self._settings.hysteresis:
                return current
        return LABELS[best] if sample.smoothed[best] >= self._settings.min_prob else UNKNOWN

    def _switch_to(self, label: str) -> list[Sample]:
        before = self._release(self._state.candidate_start, self._state.current or label)
        self._state.current = label
        return before + self._release(len(self._state.pending), label)

    def _expire_current(self) -> list[Sample]:
        """Change to `unknown` if candidates alternate for `min_segment_s` without any of them persisting."""
        state = self._state
        alternating_s = state.pending[state.candidate_start].time_s - state.pending[0].time_s
        if state.candidate_start == 0 or alternating_s < self._settings.min_segment_s:
            return []
        state.current = UNKNOWN
        return self._release(state.candidate_start, UNKNOWN)

    def _release(self, count: int, label: str) -> list[Sample]:
        released = [_with_label(sample, label) for sample in self._state.pending[:count]]
        del self._state.pending[:count]
        self._state.candidate_start = max(0, self._state.candidate_start - count)
        return released


def _with_label(sample: Sample, label: str) -> Sample:
    sample.label = label
    return sample


@dataclass(slots=True, eq=False)
class SegmenterState:
    """Last sample, interval before it, and start, sum of probabilities and number of samples of the open segment.

    `unknown_s` is the time in the open segment, in seconds, of each reason for `unknown`.
    """

    last: Sample | None = None
    interval_s: float = 0.0
    start_s: float = 0.0
    prob_sum: float = 0.0
    count: int = 0
    unknown_s: dict[UnknownReason, float] = field(default_factory=dict)


class Segmenter:
    """Joins the labelled samples of one visit of a person to adjacent segments.

    A segment of `unknown` is not split where its reason changes.
    """

    def __init__(self, stream_id: str, person_id: int, state: SegmenterState) -> None:
        self._stream_id = stream_id
        self._person_id = person_id
        self._state = state

    @property
    def start_s(self) -> float | None:
        """Start of the open segment; None before the first one."""
        return None if self._state.last is None else self._state.start_s

    def push(self, samples: Sequence[Sample]) -> list[Segment]:
        """Add the next labelled samples; return the segments that they end."""
        ended, state = [], self._state
        for sample in samples:
            if state.last is not None:
                state.interval_s = sample.time_s - state.last.time_s
                self._add_time(state.last)
                if sample.label != state.last.label:
                    ended.append(self._end(sample.time_s))
            self._extend(sample)
        return ended

    def flush(self) -> list[Segment]:
        """Return the last segment, which includes the interval of its last frame."""
        last = self._state.last
        if last is None:
            return []
        self._add_time(last)
        return [self._end(last.time_s + self._state.interval_s)]

    def _add_time(self, sample: Sample) -> None:
        """Count the interval that starts at `sample` for its reason."""
        if sample.unknown_reason:
            total_s = self._state.unknown_s.get(sample.unknown_reason, 0.0)
            self._state.unknown_s[sample.unknown_reason] = total_s + self._state.interval_s

    def _extend(self, sample: Sample) -> None:
        if self._state.count == 0:
            self._state.start_s = sample.time_s
        self._state.prob_sum += _prob(sample)
        self._state.count += 1
        self._state.last = sample

    def _end(self, end_s: float) -> Segment:
        state = self._state
        assert state.last is not None
        assert state.last.label is not None
        mean_prob = state.prob_sum / state.count
        reason = max(state.unknown_s, key=state.unknown_s.__getitem__, default=None)
        state.prob_sum, state.count, state.unknown_s = 0.0, 0, {}
        return Segment(self._stream_id, self._person_id, state.last.label, state.start_s, end_s, mean_prob, reason)


def _prob(sample: Sample) -> float:
    """Return the smoothed probability of the sample's own label; 0 for `unknown`."""
    if sample.label not in LABELS or sample.smoothed is None:
        return 0.0
    return float(sample.smoothed[LABELS.index(sample.label)])


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
        smoothed = self.smoother.peek(sample)
        return _with_label(smoothed, self._labeller.candidate(smoothed))

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
        sample = Sample(face.time_s, probs, face.quality.reason)
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
            person_id=state.person_id,
            first_s=state.first_s,
            last_s=state.last_s,
            frames=state.frames,
            segments=segments,
            shares=_shares(segments, [one.label for one in segments]),
            unknown_shares=_shares(segments, [one.unknown_reason for one in segments]),
        )


def _shares(segments: Sequence[Segment], keys: Sequence[str | None]) -> dict[str, float]:
    """Return the share of time, 0 to 1, of the segments with each of `keys` except None, largest first.

    If no segment has a duration, as in a still image, each counts the same.
    """
    durations = [segment.end_s - segment.start_s for segment in segments]
    if not any(durations):
        durations = [1.0] * len(segments)
    total = sum(durations)
    shares: dict[str, float] = {}
    for key, duration in zip(keys, durations, strict=True):
        if key is not None:
            shares[key] = shares.get(key, 0.0) + duration / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
