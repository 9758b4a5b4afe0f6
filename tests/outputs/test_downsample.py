"""Downsampling of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.records import LabelledFace, LabelledFrame, Quality


def _frame(index: int, time_s: float, *people: int, prob: float = 0.4) -> LabelledFrame:
    smoothed = np.full(7, (1 - prob) / 6, np.float32)
    smoothed[3] = prob
    box = np.zeros(4, np.float32)
    quality = Quality(1.0, "ok")
    faces = tuple(LabelledFace(person, box, 0.9, quality, smoothed, smoothed, "happy") for person in people)
    return LabelledFrame("s@1", index, time_s, faces)


def test_short_series_keeps_every_frame() -> None:
    series = ProbabilitySeries()
    series.add([_frame(i, i / 30, 1, prob=i / 100) for i in range(60)])
    points = series.points(1)
    assert points.time_s == pytest.approx(np.arange(60) / 30)
    assert points.probs[:, 3] == pytest.approx(np.arange(60) / 100)
    assert not points.after_gap.any()


def test_unknown_person_has_no_points() -> None:
    points = ProbabilitySeries().points(7)
    assert len(points.time_s) == 0
    assert points.probs.shape == (0, 7)


def test_frames_added_twice_count_once() -> None:
    series = ProbabilitySeries()
    frames = [_frame(0, 0.0, 1, prob=0.2), _frame(1, 0.001, 1, prob=0.8)]
    series.add(frames)
    series.add(frames)
    assert series.points(1).probs[:, 3] == pytest.approx([0.5])


def test_first_point_after_an_absence_is_marked() -> None:
    series = ProbabilitySeries(max_gap_s=0.5)
    series.add([_frame(i, i / 10, *([1] if i < 5 or i > 14 else [])) for i in range(20)])
    points = series.points(1)
    assert np.flatnonzero(points.after_gap).tolist() == [5]
    assert points.time_s[5] == pytest.approx(1.5)


def test_low_frame_rate_is_not_an_absence() -> None:
    series = ProbabilitySeries(max_gap_s=0.5)
    series.add([_frame(i, float(i), 1) for i in range(20)])
    assert not series.points(1).after_gap.any()


steps = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1), st.booleans()), min_size=1, max_size=300)


@given(steps, st.integers(2, 40))
def test_points_are_bounded_and_ordered_and_their_probabilities_sum_to_1(
    steps: list[tuple[float, float, bool]], max_points: int
) -> None:
    series = ProbabilitySeries(max_points=max_points)
    times_s = np.cumsum([step for step, _, _ in steps])
    for index, (time_s, (_, prob, seen)) in enumerate(zip(times_s.tolist(), steps, strict=True)):
        series.add([_frame(index, time_s, *([1] if seen else []), prob=prob)])
    points = series.points(1)
    seen_s = [time_s for time_s, (_, _, seen) in zip(times_s, steps, strict=True) if seen]
    assert len(points.time_s) <= max_points
    assert bool(len(points.time_s)) == bool(seen_s)
    assert (np.diff(points.time_s) > 0).all()
    assert points.probs.sum(axis=1) == pytest.approx(np.ones(len(points.time_s)), abs=1e-5)
    if seen_s:
        assert seen_s[0] - 1e-9 <= points.time_s[0] <= points.time_s[-1] <= seen_s[-1] + 1e-9
        assert not points.after_gap[0]


@given(st.integers(1, 3000))
def test_points_of_a_long_series_are_within_the_range_of_the_probabilities(count: int) -> None:
    series = ProbabilitySeries(max_points=64)
    probs = np.random.default_rng(count).random(count)
    series.add([_frame(i, i * 0.04, 1, prob=float(prob)) for i, prob in enumerate(probs)])
    points = series.points(1)
    width_s = np.diff(points.time_s).min() if len(points.time_s) > 1 else 1.0
    assert count < 64 or width_s > 0.03
    assert points.probs[:, 3].min() >= probs.min() - 1e-6
    assert points.probs[:, 3].max() <= probs.max() + 1e-6
