"""Labels without flicker from smoothed probabilities, and the segments they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fer_stream.config.settings import TimelineSettings
from fer_stream.records import LABELS, UNKNOWN, Segment
from fer_stream.timeline.smoothing import Sample

# More than half of the classified faces near a time must have passed the quality check, otherwise it is `unknown`.
_MIN_EVIDENCE = 0.5


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
        if sample.evidence < _MIN_EVIDENCE:
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
    """Last sample, interval before it, and start, sum of probabilities and number of samples of the open segment."""

    last: Sample | None = None
    interval_s: float = 0.0
    start_s: float = 0.0
    prob_sum: float = 0.0
    count: int = 0


class Segmenter:
    """Joins the labelled samples of one visit of a person to adjacent segments."""

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
                if sample.label != state.last.label:
                    ended.append(self._end(sample.time_s))
            self._extend(sample)
        return ended

    def flush(self) -> list[Segment]:
        """Return the last segment, which includes the interval of its last frame."""
        last = self._state.last
        return [] if last is None else [self._end(last.time_s + self._state.interval_s)]

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
        state.prob_sum, state.count = 0.0, 0
        return Segment(self._stream_id, self._person_id, state.last.label, state.start_s, end_s, mean_prob)


def _prob(sample: Sample) -> float:
    """Return the smoothed probability of the sample's own label; 0 for `unknown`."""
    if sample.label not in LABELS or sample.smoothed is None:
        return 0.0
    return float(sample.smoothed[LABELS.index(sample.label)])
