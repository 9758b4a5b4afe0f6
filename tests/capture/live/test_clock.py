"""Media time from PTS and arrival times, and pacing of bursts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.source import TOLERANCE_S, MediaClock, Pacer


class Recorder:
    """Media clock and the number of its discontinuities."""

    def __init__(self) -> None:
        self.discontinuities = 0
        self.clock = MediaClock(self._count)

    def _count(self) -> None:
        self.discontinuities += 1

    def times(self, *frames: tuple[float | None, float]) -> list[float]:
        """Return the media time of each frame, given as (PTS, arrival)."""
        return [self.clock.time_s(pts_s, arrived_s) for pts_s, arrived_s in frames]


def test_time_follows_pts_despite_network_jitter() -> None:
    recorder = Recorder()
    assert recorder.times((100.0, 1.0), (100.1, 1.3), (100.2, 1.31), (100.3, 1.32)) == pytest.approx(
        [1.0, 1.1, 1.2, 1.3]
    )
    assert recorder.discontinuities == 0


def test_backlog_does_not_advance_time() -> None:
    recorder = Recorder()
    assert recorder.times((0.0, 5.0), (0.5, 5.0), (1.0, 5.1), (1.5, 5.6)) == pytest.approx([5.0, 5.0, 5.1, 5.6])
    assert recorder.discontinuities == 0


@pytest.mark.parametrize(
    ("pts_s", "discontinuities"),
    [
        ([7.0, 7.1, 0.0, 0.1], 1),
        ([7.0, 7.1, 90.0, 90.1], 1),
        ([0.0, 0.0, 0.0, 0.0], 3),
        ([None, 0.1, 0.2, 0.3], 0),
        ([None, None, None, None], 0),
        ([7.0, None, 7.2, 7.3], 1),
    ],
    ids=["back", "ahead", "zero", "first is none", "all none", "one is none"],
)
def test_discontinuity_is_counted_and_time_continues(pts_s: list[float | None], discontinuities: int) -> None:
    recorder = Recorder()
    arrived_s = [1.0, 1.1, 1.2, 1.3]
    assert recorder.times(*zip(pts_s, arrived_s, strict=True)) == pytest.approx(arrived_s)
    assert recorder.discontinuities == discontinuities


def test_lost_frames_are_not_a_discontinuity() -> None:
    recorder = Recorder()
    assert recorder.times((3.0, 1.0), (9.0, 7.0)) == [1.0, 7.0]
    assert recorder.discontinuities == 0


def test_restart_accepts_unrelated_pts() -> None:
    recorder = Recorder()
    recorder.times((500.0, 1.0))
    recorder.clock.restart()
    assert recorder.times((0.0, 20.0), (0.1, 20.1)) == pytest.approx([20.0, 20.1])
    assert recorder.discontinuities == 0


def test_slow_camera_clock_is_corrected() -> None:
    recorder = Recorder()
    times_s = recorder.times(*((0.99 * second, float(second)) for second in range(1000)))
    assert all(second - TOLERANCE_S <= time_s <= second for second, time_s in enumerate(times_s))
    assert recorder.discontinuities == 0


pts = st.none() | st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(pts, st.floats(0, 10)), max_size=30))
def test_time_stays_close_to_the_arrival_and_never_decreases(steps: list[tuple[float | None, float]]) -> None:
    recorder, arrived_s, last_s = Recorder(), 0.0, 0.0
    for pts_s, step_s in steps:
        arrived_s += step_s
        time_s = recorder.clock.time_s(pts_s, arrived_s)
        assert time_s >= last_s
        assert arrived_s - TOLERANCE_S - 1e-6 <= time_s <= arrived_s + 1e-6
        last_s = time_s


def test_burst_is_spread_by_pts() -> None:
    pacer, now_s, shown_s = Pacer(), 50.0, []
    for pts_s in (3.0, 3.1, 3.2, 3.3):
        now_s += pacer.delay_s(pts_s, now_s)
        shown_s.append(now_s)
    assert shown_s == pytest.approx([50.0, 50.1, 50.2, 50.3])


@pytest.mark.parametrize("pts_s", [None, 0.0, 900.0], ids=["none", "back", "ahead"])
def test_implausible_pts_is_not_delayed(pts_s: float | None) -> None:
    pacer = Pacer()
    pacer.delay_s(3.0, 50.0)
    assert pacer.delay_s(pts_s, 50.1) == 0


def test_late_frame_restarts_the_pacing() -> None:
    pacer = Pacer()
    pacer.delay_s(3.0, 50.0)
    assert pacer.delay_s(3.1, 55.0) == 0
    assert pacer.delay_s(3.2, 55.0) == pytest.approx(0.1)
