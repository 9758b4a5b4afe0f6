"""Smoothing kernel: no delay, any frame rate, faces of low quality are excluded."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.records import F32, LABELS, QualityReason
from fer_stream.timeline.smoothing import MIN_EVIDENCE, KernelSmoother, Sample, SmootherState

TAU_S = 0.2


def one_hot(label: str) -> F32:
    return np.array([float(label == other) for other in LABELS], np.float32)


def step(fps: float, at_s: float = 2.0, end_s: float = 4.0) -> list[Sample]:
    """Return samples that are neutral before `at_s` and happy afterwards."""
    times = np.arange(0, end_s, 1 / fps)
    return [Sample(float(t), one_hot("neutral" if t < at_s else "happy"), "ok") for t in times]


def smoothed(samples: list[Sample]) -> list[Sample]:
    smoother = KernelSmoother(TAU_S, SmootherState())
    done = []
    for sample in samples:
        smoother.push(sample)
        done += smoother.pop(sample.time_s)
    return done + smoother.flush()


def happy(sample: Sample) -> float:
    assert sample.smoothed is not None
    return float(sample.smoothed[LABELS.index("happy")])


@pytest.mark.parametrize("fps", [10.0, 25.0, 60.0])
def test_step_is_not_shifted(fps: float) -> None:
    crossing = next(sample.time_s for sample in smoothed(step(fps)) if happy(sample) >= 0.5)
    assert crossing == pytest.approx(2.0, abs=1 / fps)


@pytest.mark.parametrize("fps", [12.0, 30.0, 120.0])
def test_time_constant_does_not_depend_on_the_frame_rate(fps: float) -> None:
    # One time constant after a step, the symmetric kernel reaches 1 - exp(-1)/2 of the new value.
    after = min(smoothed(step(fps)), key=lambda sample: abs(sample.time_s - 2.0 - TAU_S))
    exact = 1 - np.exp(-(after.time_s - 2.0) / TAU_S) / 2
    assert happy(after) == pytest.approx(exact, abs=0.05 + 0.5 / fps)


def test_faces_of_low_quality_do_not_contribute() -> None:
    samples = [
        Sample(i / 25, one_hot("happy" if i % 2 else "angry"), "ok" if i % 2 else "blurred") for i in range(50)
    ]
    for sample in smoothed(samples):
        assert happy(sample) == pytest.approx(1.0)
        assert 0.3 < sample.evidence < 0.7


def test_evidence_is_0_without_faces_of_good_quality() -> None:
    for sample in smoothed([Sample(i / 25, one_hot("fear"), "small") for i in range(30)]):
        assert sample.evidence == 0
        assert sample.low_quality == "small"


def test_low_quality_is_the_most_frequent_reason_nearby() -> None:
    reasons: list[QualityReason] = ["truncated", "truncated", "ok", "unclear", "unclear", "unclear"]
    done = smoothed([Sample(i / 100, one_hot("sad"), reason) for i, reason in enumerate(reasons)])
    assert [sample.low_quality for sample in done] == ["unclear"] * 6  # also of the face that is `ok` itself


def test_low_quality_of_unclassified_faces_does_not_count_next_to_classified_ones() -> None:
    samples = [Sample(i / 100, None if i % 2 else one_hot("sad"), "small" if i % 2 else "blurred") for i in range(9)]
    assert {sample.low_quality for sample in smoothed(samples)} == {"blurred"}


def test_low_quality_is_only_set_if_it_prevails() -> None:
    done = smoothed([Sample(i / 100, one_hot("sad"), "small" if i in (4, 5) else "ok") for i in range(10)])
    assert {sample.low_quality for sample in done} == {None}
    (alone,) = smoothed([Sample(0.0, None, "small")])
    assert alone.low_quality == "small"


def test_peek_smooths_a_copy_as_if_nothing_followed() -> None:
    smoother = KernelSmoother(TAU_S, SmootherState())
    samples = [Sample(i / 25, one_hot("happy"), "small") for i in range(5)]
    for sample in samples:
        smoother.push(sample)
    peeked = smoother.peek(samples[-1])
    assert happy(peeked) == pytest.approx(1.0)
    assert (peeked.evidence, peeked.low_quality) == (0.0, "small")
    assert samples[-1].smoothed is None


probs = st.lists(st.floats(0.01, 1), min_size=7, max_size=7).map(
    lambda values: np.array(values, np.float32) / np.float32(sum(values))
)
samples = st.lists(
    st.tuples(st.floats(0, 1), probs, st.sampled_from(get_args(QualityReason))), min_size=1, max_size=40
)


@given(samples)
def test_result_does_not_depend_on_when_samples_are_popped(steps: list[tuple[float, F32, QualityReason]]) -> None:
    def make() -> list[Sample]:
        times = np.cumsum([gap for gap, _, _ in steps])
        return [Sample(float(t), p, quality) for t, (_, p, quality) in zip(times, steps, strict=True)]

    one_by_one, all_at_once = smoothed(make()), make()
    late = KernelSmoother(TAU_S, SmootherState())
    for sample in all_at_once:
        late.push(sample)
    late.flush()
    for a, b in zip(one_by_one, all_at_once, strict=True):
        assert a.smoothed is not None
        assert b.smoothed is not None
        np.testing.assert_allclose(a.smoothed, b.smoothed, atol=1e-5)
        assert a.smoothed.sum() == pytest.approx(1, abs=1e-4)
        assert a.evidence == pytest.approx(b.evidence)
        assert 0 <= a.evidence <= 1 + 1e-9
        if abs(a.evidence - MIN_EVIDENCE) > 1e-6:
            assert (a.low_quality is None) == (a.evidence > MIN_EVIDENCE)


def test_unclassified_face_is_interpolated_from_its_neighbours() -> None:
    sparse = [replace(one, probs=one.probs if n % 2 == 0 else None) for n, one in enumerate(step(25.0))]
    for one, other in zip(smoothed(sparse), smoothed(step(25.0)), strict=True):
        assert happy(one) == pytest.approx(happy(other), abs=0.06)
        assert one.evidence == other.evidence == 1.0


def test_probabilities_are_uniform_without_classified_faces() -> None:
    (alone,) = smoothed([Sample(0.0, None, "ok")])
    assert alone.smoothed is not None
    assert alone.smoothed.tolist() == pytest.approx([1 / 7] * 7)
    assert alone.evidence == 0.0
    assert alone.low_quality is None
