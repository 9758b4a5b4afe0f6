"""Reduction of the frame rate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.source import Sampler

RATES = st.floats(0.1, 120)


def test_all_frames_are_accepted_without_a_rate() -> None:
    sampler = Sampler(None)
    assert all(sampler.accept(time_s) for time_s in (0.0, 0.0, 0.001, 5.0))


@pytest.mark.parametrize("fps", [0, -1, -0.5])
def test_rate_must_be_above_zero(fps: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Sampler(fps)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(30.0, list(range(30))), (15.0, list(range(0, 30, 2))), (10.0, list(range(0, 30, 3))), (1.0, [0])],
)
def test_every_nth_frame_of_a_constant_rate_is_accepted(fps: float, expected: list[int]) -> None:
    sampler = Sampler(fps)
    assert [i for i in range(30) if sampler.accept(i / 30)] == expected


@pytest.mark.parametrize("source_fps", [24, 25, 30, 60, 120])
def test_times_rounded_to_a_millisecond_are_accepted(source_fps: int) -> None:
    sampler = Sampler(source_fps)
    assert all(sampler.accept(round(i / source_fps, 3)) for i in range(1000))


@given(fps=RATES, times=st.lists(st.floats(0, 3600), max_size=200).map(sorted))
def test_dropped_frame_follows_an_accepted_one_within_a_slot(fps: float, times: list[float]) -> None:
    sampler = Sampler(fps)
    last_accepted_s = -math.inf
    for time_s in times:
        if sampler.accept(time_s):
            last_accepted_s = time_s
        assert time_s - last_accepted_s < 1 / fps + 1e-6


@given(fps=RATES, seconds=st.floats(0, 20), source_fps=RATES)
def test_rate_is_never_exceeded(fps: float, seconds: float, source_fps: float) -> None:
    sampler = Sampler(fps)
    accepted = sum(sampler.accept(i / source_fps) for i in range(int(seconds * source_fps)))
    assert accepted <= math.floor((seconds + 0.0012) * fps) + 1


@given(fps=RATES, times=st.lists(st.floats(0, 100), min_size=1, max_size=50).map(sorted), data=st.data())
def test_lost_frame_does_not_affect_later_slots(fps: float, times: list[float], data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, len(times) - 1))
    complete, lossy = Sampler(fps), Sampler(fps)
    accepted = [complete.accept(time_s) for time_s in times]
    accepted_lossy = [lossy.accept(time_s) for index, time_s in enumerate(times) if index != lost]
    later = [index for index, time_s in enumerate(times) if time_s > times[lost] + 1 / fps + 1e-6]
    assert [accepted_lossy[index - 1] for index in later] == [accepted[index] for index in later]


@given(rate=st.integers(1, 240), frames=st.integers(1, 500))
def test_rate_of_the_source_accepts_all_frames(rate: int, frames: int) -> None:
    sampler = Sampler(float(rate))
    assert all(sampler.accept(i / rate) for i in range(frames))
