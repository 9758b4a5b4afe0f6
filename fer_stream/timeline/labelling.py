"""Smooth probabilities → labels that do not flicker, and the segments they form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fer_stream.config import TimelineSettings
from fer_stream.records import LABELS, UNKNOWN, Segment
from fer_stream.timeline.smoothing import Sample, SampleBook

# More than half of what is near a time must have been good enough to judge, or no label is told.
_MIN_EVIDENCE = 0.5


class Labeller:
    """Gives every sample of one visit of one person a label.

    A new label is taken when it leads the present one by `hysteresis` and goes on for `min_segment_s`; it then
    counts from its first sample on. Where no label lasts so long, `unknown` is the label. What the best emotion
    reaches must be `min_prob`, and the faces must have been good enough to judge; else `unknown` is wanted.
    """

    def __init__(self, settings: TimelineSettings) -> None:
        self._settings = settings
        self._current: str | None = None
        self._candidate: str | None = None
        self._waiting: list[Sample] = []
        self._candidate_from = 0

    def push(self, sample: Sample) -> list[Sample]:
        """Take the next smoothed sample; return those whose label is settled by it, in order."""
        wanted = self.wanted(sample)
        if wanted == self._current:
            return [*self._settle(len(self._waiting), wanted), _labelled(sample, wanted)]
        if wanted != self._candidate or not self._waiting:
            self._candidate, self._candidate_from = wanted, len(self._waiting)
        self._waiting.append(sample)
        if sample.time_s - self._waiting[self._candidate_from].time_s >= self._settings.min_segment_s:
            return self._accept(wanted)
        return self._give_up_on_the_present()

    def flush(self) -> list[Sample]:
        """Settle the rest: the visit is over."""
        label = self._current
        if label is None:
            label = self._candidate if self._candidate_from == 0 and self._candidate else UNKNOWN
        return self._settle(len(self._waiting), label)

    def state(self, samples: SampleBook) -> list[Any]:
        """What `restore` needs, in terms of JSON."""
        return [self._current, self._candidate, self._candidate_from, [samples.number(one) for one in self._waiting]]

    def restore(self, state: Sequence[Any], samples: Sequence[Sample]) -> None:
        """Go on from `state`."""
        self._current, self._candidate, self._candidate_from, waiting = state
        self._waiting = [samples[number] for number in waiting]

    def wanted(self, sample: Sample) -> str:
        """The label that this smoothed sample alone asks for, given the present one."""
        assert sample.smoothed is not None
        if sample.evidence < _MIN_EVIDENCE:
            return UNKNOWN
        best = int(sample.smoothed.argmax())
        if self._current in LABELS:
            present = float(sample.smoothed[LABELS.index(self._current)])
            leads = float(sample.smoothed[best]) - present >= self._settings.hysteresis
            if not leads and present >= self._settings.min_prob - self._settings.hysteresis:
                return self._current
        return LABELS[best] if sample.smoothed[best] >= self._settings.min_prob else UNKNOWN

    def _accept(self, label: str) -> list[Sample]:
        before = self._settle(self._candidate_from, self._current or label)
        self._current = label
        return before + self._settle(len(self._waiting), label)

    def _give_up_on_the_present(self) -> list[Sample]:
        """Candidates that follow each other, none long enough: after a while nobody can tell."""
        waited_s = self._waiting[self._candidate_from].time_s - self._waiting[0].time_s
        if self._candidate_from == 0 or waited_s < self._settings.min_segment_s:
            return []
        self._current = UNKNOWN
        return self._settle(self._candidate_from, UNKNOWN)

    def _settle(self, count: int, label: str) -> list[Sample]:
        settled = [_labelled(sample, label) for sample in self._waiting[:count]]
        del self._waiting[:count]
        self._candidate_from = max(0, self._candidate_from - count)
        return settled


def _labelled(sample: Sample, label: str) -> Sample:
    sample.label = label
    return sample


class Segmenter:
    """Joins the labelled samples of one visit into segments that touch."""

    def __init__(self, stream_id: str, person_id: int) -> None:
        self._stream_id = stream_id
        self._person_id = person_id
        self._last: Sample | None = None
        self._interval_s = 0.0
        self._start_s = 0.0
        self._prob_sum, self._count = 0.0, 0

    @property
    def start_s(self) -> float | None:
        """Where the segment begins that is not closed yet; None before the first one."""
        return None if self._last is None else self._start_s

    def push(self, samples: Sequence[Sample]) -> list[Segment]:
        """Take the next labelled samples; return the segments that they end."""
        ended = []
        for sample in samples:
            if self._last is not None:
                self._interval_s = sample.time_s - self._last.time_s
                if sample.label != self._last.label:
                    ended.append(self._end(sample.time_s))
            self._extend(sample)
        return ended

    def flush(self) -> list[Segment]:
        """End the last segment: it lasts for as long as its last frame is shown."""
        return [] if self._last is None else [self._end(self._last.time_s + self._interval_s)]

    def state(self, samples: SampleBook) -> list[Any]:
        """What `restore` needs, in terms of JSON."""
        last = None if self._last is None else samples.number(self._last)
        return [last, self._interval_s, self._start_s, self._prob_sum, self._count]

    def restore(self, state: Sequence[Any], samples: Sequence[Sample]) -> None:
        """Go on from `state`."""
        last, self._interval_s, self._start_s, self._prob_sum, self._count = state
        self._last = None if last is None else samples[last]

    def _extend(self, sample: Sample) -> None:
        if self._count == 0:
            self._start_s = sample.time_s
        self._prob_sum += _prob(sample)
        self._count += 1
        self._last = sample

    def _end(self, end_s: float) -> Segment:
        assert self._last is not None
        assert self._last.label is not None
        mean_prob = self._prob_sum / self._count
        self._prob_sum, self._count = 0.0, 0
        return Segment(self._stream_id, self._person_id, self._last.label, self._start_s, end_s, mean_prob)


def _prob(sample: Sample) -> float:
    """The smoothed probability of the sample's own label; 0 for `unknown`."""
    if sample.label not in LABELS or sample.smoothed is None:
        return 0.0
    return float(sample.smoothed[LABELS.index(sample.label)])
