"""Smoothing of the emotion probabilities of one face over time, without delay and at any frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_stream.records import F32, F64, LABELS

# Radius of the kernel in time constants. Beyond it the weight is below 5 %, too little to change a label.
_RADIUS = 3.0

UNIFORM = np.full(len(LABELS), 1 / len(LABELS), np.float32)
"""Probabilities of a face without any classified neighbour."""

_TINY = 1e-12


@dataclass(slots=True, eq=False)
class Sample:
    """One face at one time. `smoothed`, `evidence` and `label` are set one after the other.

    `probs` and `smoothed` are float32 (7,); `probs` is None if the face was not classified. `ok` is the result of the
    quality check; `evidence` is the share, 0 to 1, of faces that passed it among the classified ones nearby.
    """

    time_s: float
    probs: F32 | None
    ok: bool
    smoothed: F32 | None = None
    evidence: float = 0.0
    label: str | None = None


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

    def peek(self, sample: Sample) -> tuple[F32, float]:
        """Return the smoothed probabilities and the evidence of the last sample if no sample followed."""
        smoothed, evidence = smooth(self._state.samples, [sample], self._tau_s)
        return smoothed[0], float(evidence[0])

    def _smooth(self, ready: int) -> list[Sample]:
        if ready == self._state.done:
            return []
        new = self._state.samples[self._state.done : ready]
        smoothed, evidence = smooth(self._state.samples, new, self._tau_s)
        for sample, probs, share in zip(new, smoothed, evidence, strict=True):
            sample.smoothed, sample.evidence = probs, float(share)
        self._state.done = ready
        self._drop_before(new[-1].time_s - self.radius_s)
        return new

    def _drop_before(self, time_s: float) -> None:
        old = 0
        while old < self._state.done and self._state.samples[old].time_s < time_s:
            old += 1
        del self._state.samples[:old]
        self._state.done -= old


def smooth(samples: Sequence[Sample], at: Sequence[Sample], tau_s: float) -> tuple[F32, F64]:
    """Return probabilities float32 (k, 7) and evidence float64 (k,) at the k times of `at`, computed from `samples`.

    Only samples that are `ok` and classified contribute. If there are none, all classified ones contribute and the
    evidence is 0; if none is classified, the probabilities are uniform.
    """
    times = np.array([sample.time_s for sample in samples])
    ok = np.array([sample.ok for sample in samples])
    classified = np.array([sample.probs is not None for sample in samples])
    probs = np.stack([UNIFORM if sample.probs is None else sample.probs for sample in samples])
    distance = np.abs(np.array([sample.time_s for sample in at])[:, None] - times)
    weights = np.where(distance <= _RADIUS * tau_s, np.exp(-distance / tau_s), 0.0)
    all_classified, good = (weights * mask for mask in (classified, classified & ok))
    evidence = good.sum(axis=1) / np.maximum(all_classified.sum(axis=1), _TINY)
    for contributing in (all_classified, good):
        weights = np.where(contributing.any(axis=1, keepdims=True), contributing, weights)
    return (weights @ probs / weights.sum(axis=1, keepdims=True)).astype(np.float32), evidence
