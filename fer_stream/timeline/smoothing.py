"""Noisy probabilities → smooth ones, with no delay in time and at any frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_stream.records import F32, F64, LABELS

# The kernel is cut off where it has fallen to 5 %; what lies further away could not change a label.
_REACH = 3.0

_SILENCE = np.full(len(LABELS), 1 / len(LABELS), np.float32)
"""What a face says that was not classified, where nobody near it was."""

_TINY = 1e-12


@dataclass(slots=True, eq=False)
class Sample:
    """What is known of one face at one time; `smoothed`, `evidence` and `label` are filled in one after the other.

    `probs` and `smoothed` are float32 (7,), `probs` None where the face was not classified. `ok` says whether the
    face was good enough to judge; `evidence` is the share, 0..1, of such faces among those classified nearby.
    """

    time_s: float
    probs: F32 | None
    ok: bool
    smoothed: F32 | None = None
    evidence: float = 0.0
    label: str | None = None


class SampleBook:
    """Writes down each sample once, however many hold it, so that a restored state shares what the old one shared."""

    def __init__(self) -> None:
        self.rows: list[list[object]] = []
        self._numbers: dict[int, int] = {}

    def number(self, sample: Sample) -> int:
        """The number of `sample` in `rows`."""
        if id(sample) not in self._numbers:
            self._numbers[id(sample)] = len(self.rows)
            probs, smoothed = _listed(sample.probs), _listed(sample.smoothed)
            self.rows.append([sample.time_s, probs, sample.ok, smoothed, sample.evidence, sample.label])
        return self._numbers[id(sample)]

    @staticmethod
    def read(rows: Sequence[Sequence[Any]]) -> list[Sample]:
        """The samples again, by number."""
        return [
            Sample(time_s, _f32(probs), ok, _f32(smoothed), evidence, label)
            for time_s, probs, ok, smoothed, evidence, label in rows
        ]


class KernelSmoother:
    """Weights the samples around a time t by exp(-|Δt| / `tau_s`), the past and the future alike.

    A symmetric kernel does not shift what it smooths: an emotion begins when it began. The price is that a
    sample can be smoothed only once the time `reach_s` behind it is known. Weights depend on seconds, not on
    frames, so the result holds for any frame rate.
    """

    def __init__(self, tau_s: float) -> None:
        self._tau_s = tau_s
        self.reach_s = _REACH * tau_s
        self._samples: list[Sample] = []
        self._done = 0

    def push(self, sample: Sample) -> None:
        """Add the next sample; times must not go backwards."""
        self._samples.append(sample)

    def pop(self, known_until_s: float) -> list[Sample]:
        """Smooth and return the samples whose whole neighbourhood lies before `known_until_s`."""
        last_s = known_until_s - self.reach_s
        ready = self._done
        while ready < len(self._samples) and self._samples[ready].time_s <= last_s:
            ready += 1
        return self._smooth(ready)

    def flush(self) -> list[Sample]:
        """Smooth and return all that is left: nothing more will come."""
        return self._smooth(len(self._samples))

    def peek(self, sample: Sample) -> tuple[F32, float]:
        """What `sample`, the last one, would be smoothed to if nothing more came: probabilities and evidence."""
        smoothed, evidence = smooth(self._samples, [sample], self._tau_s)
        return smoothed[0], float(evidence[0])

    def state(self, samples: SampleBook) -> list[int]:
        """What `restore` needs: how many samples are done, then the numbers of all that are kept."""
        return [self._done, *map(samples.number, self._samples)]

    def restore(self, state: Sequence[int], samples: Sequence[Sample]) -> None:
        """Go on from `state`."""
        self._done, *numbers = state
        self._samples = [samples[number] for number in numbers]

    def _smooth(self, ready: int) -> list[Sample]:
        if ready == self._done:
            return []
        fresh = self._samples[self._done : ready]
        smoothed, evidence = smooth(self._samples, fresh, self._tau_s)
        for sample, probs, share in zip(fresh, smoothed, evidence, strict=True):
            sample.smoothed, sample.evidence = probs, float(share)
        self._done = ready
        self._drop_before(fresh[-1].time_s - self.reach_s)
        return fresh

    def _drop_before(self, time_s: float) -> None:
        old = 0
        while old < self._done and self._samples[old].time_s < time_s:
            old += 1
        del self._samples[:old]
        self._done -= old


def _listed(values: F32 | None) -> list[float] | None:
    return None if values is None else values.tolist()


def _f32(values: Sequence[float] | None) -> F32 | None:
    return None if values is None else np.array(values, np.float32)


def smooth(samples: Sequence[Sample], at: Sequence[Sample], tau_s: float) -> tuple[F32, F64]:
    """Probabilities float32 (k, 7) and evidence float64 (k,) at the k times of `at`, from all `samples`.

    Only samples that are `ok` and were classified speak; where none does, the probabilities are those of all that
    were classified, the same for every emotion where none was, and the evidence is 0.
    """
    times = np.array([sample.time_s for sample in samples])
    ok = np.array([sample.ok for sample in samples])
    said = np.array([sample.probs is not None for sample in samples])
    probs = np.stack([_SILENCE if sample.probs is None else sample.probs for sample in samples])
    distance = np.abs(np.array([sample.time_s for sample in at])[:, None] - times)
    weights = np.where(distance <= _REACH * tau_s, np.exp(-distance / tau_s), 0.0)
    judged, good = (weights * speaks for speaks in (said, said & ok))
    evidence = good.sum(axis=1) / np.maximum(judged.sum(axis=1), _TINY)
    for speaking in (judged, good):
        weights = np.where(speaking.any(axis=1, keepdims=True), speaking, weights)
    return (weights @ probs / weights.sum(axis=1, keepdims=True)).astype(np.float32), evidence
