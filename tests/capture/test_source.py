"""Sampling to a lower frame rate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.source import Sampler

RATES = st.floats(0.1, 120)


def test_keeps_every_frame_without_a_rate() -> None:
    sampler = Sampler(None)
    assert all(sampler.keep(time_s) for time_s in (0.0, 0.0, 0.001, 5.0))


@pytest.mark.parametrize("fps", [0, -1, -0.5])
def test_refuses_a_rate_that_is_not_above_zero(fps: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Sampler(fps)


@pytest.mark.parametrize(
    ("fps", "kept"),
    [(30.0, list(range(30))), (15.0, list(range(0, 30, 2))), (10.0, list(range(0, 30, 3))), (1.0, [0])],
)
def test_takes_every_nth_frame_of_a_steady_rate(fps: float, kept: list[int]) -> None:
    sampler = Sampler(fps)
    assert [i for i in range(30) if sampler.keep(i / 30)] == kept


@pytest.mark.parametrize("source_fps", [24, 25, 30, 60, 120])
def test_times_rounded_to_a_millisecond_cost_no_frame(source_fps: int) -> None:
    sampler = Sampler(source_fps)
    assert all(sampler.keep(round(i / source_fps, 3)) for i in range(1000))


@given(fps=RATES, times=st.lists(st.floats(0, 3600), max_size=200).map(sorted))
def test_what_is_dropped_follows_a_kept_frame_within_a_slot(fps: float, times: list[float]) -> None:
    sampler = Sampler(fps)
    last_kept_s = -math.inf
    for time_s in times:
        if sampler.keep(time_s):
            last_kept_s = time_s
        assert time_s - last_kept_s < 1 / fps + 1e-6


@given(fps=RATES, seconds=st.floats(0, 20), source_fps=RATES)
def test_never_keeps_more_than_the_rate(fps: float, seconds: float, source_fps: float) -> None:
    sampler = Sampler(fps)
    kept = sum(sampler.keep(i / source_fps) for i in range(int(seconds * source_fps)))
    assert kept <= math.floor((seconds + 0.0012) * fps) + 1


@given(fps=RATES, times=st.lists(st.floats(0, 100), min_size=1, max_size=50).map(sorted), data=st.data())
def test_a_frame_lost_before_changes_nothing_in_later_slots(
    fps: float, times: list[float], data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, len(times) - 1))
    whole, lossy = Sampler(fps), Sampler(fps)
    kept = [whole.keep(time_s) for time_s in times]
    kept_of_the_rest = [lossy.keep(time_s) for index, time_s in enumerate(times) if index != lost]
    later = [index for index, time_s in enumerate(times) if time_s > times[lost] + 1 / fps + 1e-6]
    assert [kept_of_the_rest[index - 1] for index in later] == [kept[index] for index in later]


@given(rate=st.integers(1, 240), frames=st.integers(1, 500))
def test_keeps_all_frames_of_a_source_at_its_own_rate(rate: int, frames: int) -> None:
    sampler = Sampler(float(rate))
    assert all(sampler.keep(i / rate) for i in range(frames))
