"""Smoothing of the emotion probabilities of one face over time, without delay and at any frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from fer_stream.records import F32, F64, LABELS, UNKNOWN, QualityReason, UnknownReason

# Radius of the kernel in time constants. Beyond it the weight is below 5 %, too little to change a label.
_RADIUS = 3.0

UNIFORM = np.full(len(LABELS), 1 / len(LABELS), np.float32)
"""Probabilities of a face without any classified neighbour."""

MIN_EVIDENCE = 0.5
"""Minimum evidence of an emotion: with less, most classified faces nearby failed the quality check."""

_TINY = 1e-12

_LOW_QUALITY: tuple[UnknownReason, ...] = tuple(one for one in get_args(UnknownReason) if one != "undecided")


@dataclass(slots=True, eq=False)
class Sample:
    """One face at one time. The smoother sets `smoothed`, `evidence` and `low_quality`, the labeller sets `label`.

    `probs` and `smoothed` are float32 (7,); `probs` is None if the face was not classified. `quality` is the result
    of the quality check; `evidence` is the share, 0 to 1, of faces that passed it among the classified ones nearby.
    `low_quality` is the most frequent reason of the others if the evidence is below `MIN_EVIDENCE`, otherwise None.
    """

    time_s: float
    probs: F32 | None
    quality: QualityReason
    smoothed: F32 | None = None
    evidence: float = 0.0
    low_quality: UnknownReason | None = None
    label: str | None = None

    @property
    def unknown_reason(self) -> UnknownReason | None:
        """Why the label is `unknown`; None for an emotion and while there is no label."""
        return self.low_quality or "undecided" if self.label == UNKNOWN else None


@dataclass(slots=True, eq=False)
class SmootherState:
    """Samples within the kernel radius, the first `done` of which are smoothed."""

    samples: list[Sample] = field(default_factory=list)
    done: int = 0


class KernelSmoother:
    """Smoother with the weight exp(-|Δt| / `tau_s`) for past and future samples.

    A symmetric kernel does not shift the start of an emotion. In return, a sample can be smoothed only once the
    following `radius_s` seconds are available. Weights depend on seconds instead of frames, so the result does not
    depend on the frame rate.
    """

    def __init__(self, tau_s: float, state: SmootherState) -> None:
        self._tau_s = tau_s
        self.radius_s = _RADIUS * tau_s
        self._state = state

    def push(self, sample: Sample) -> None:
        """Add the next sample; times must not decrease."""
        self._state.samples.append(sample)

    def pop(self, complete_until_s: float) -> list[Sample]:
        """Smooth and return the samples whose neighbourhood is complete, if all faces up to that time are added."""
        last_s = complete_until_s - self.radius_s
        ready = self._state.done
        while ready < len(self._state.samples) and self._state.samples[ready].time_s <= last_s:
            ready += 1
        return self._smooth(ready)

    def flush(self) -> list[Sample]:
        """Smooth and return the remaining samples at the end."""
        return self._smooth(len(self._state.samples))

    def peek(self, sample: Sample) -> Sample:
        """Return a copy of the last sample, smoothed as if no sample followed."""
        copy = replace(sample)
        smooth(self._state.samples, [copy], self._tau_s)
        return copy

    def _smooth(self, ready: int) -> list[Sample]:
        if ready == self._state.done:
            return []
        new = self._state.samples[self._state.done : ready]
        smooth(self._state.samples, new, self._tau_s)
        self._state.done = ready
        self._drop_before(new[-1].time_s - self.radius_s)
        return new

    def _drop_before(self, time_s: float) -> None:
        old = 0
        while old < self._state.done and self._state.samples[old].time_s < time_s:
            old += 1
        del self._state.samples[:old]
        self._state.done -= old


def smooth(samples: Sequence[Sample], at: Sequence[Sample], tau_s: float) -> None:
    """Set `smoothed`, `evidence` and `low_quality` of the k samples `at`, computed from `samples`.

    Only samples that are `ok` and classified contribute to the probabilities. If there are none, all classified ones
    contribute and the evidence is 0; if none is classified, the probabilities are uniform. Low quality is counted
    among the classified samples; if there are none, among all.
    """
    times = np.array([sample.time_s for sample in samples])
    quality = np.array([sample.quality for sample in samples])
    classified = np.array([sample.probs is not None for sample in samples])
    probs = np.stack([UNIFORM if sample.probs is None else sample.probs for sample in samples])
    distance = np.abs(np.array([sample.time_s for sample in at])[:, None] - times)
    weights = np.where(distance <= _RADIUS * tau_s, np.exp(-distance / tau_s), 0.0)
    all_classified, good = (weights * mask for mask in (classified, classified & (quality == "ok")))
    evidence = good.sum(axis=1) / np.maximum(all_classified.sum(axis=1), _TINY)
    weights = _first_nonzero(all_classified, weights)
    low_quality = _main_low_quality(weights, quality)
    weights = _first_nonzero(good, weights)
    smoothed = (weights @ probs / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    for sample, mean, share, reason in zip(at, smoothed, evidence.tolist(), low_quality, strict=True):
        sample.smoothed, sample.evidence = mean, share
        sample.low_quality = reason if share < MIN_EVIDENCE else None


def _first_nonzero(preferred: F64, fallback: F64) -> F64:
    """Return the weights (k, n) of `preferred`, with the rows of `fallback` where all are 0."""
    return np.where(preferred.any(axis=1, keepdims=True), preferred, fallback)


def _main_low_quality(weights: F64, quality: NDArray[np.str_]) -> list[UnknownReason | None]:
    """Return the reason other than `ok` with the largest sum of `weights` (k, n) in each row, or None."""
    if (quality == "ok").all():  # the usual case, and this runs for every frame
        return [None] * len(weights)
    sums = np.stack([weights[:, quality == reason].sum(axis=1) for reason in _LOW_QUALITY], axis=1)
    return [_LOW_QUALITY[row.argmax()] if row.any() else None for row in sums]
