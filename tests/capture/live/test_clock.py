from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.clock import TOLERANCE_S, MediaClock, Pacer


class Noted:
    """A clock and the number of its discontinuities."""

    def __init__(self) -> None:
        self.discontinuities = 0
        self.clock = MediaClock(self._count)

    def _count(self) -> None:
        self.discontinuities += 1

    def times(self, *pictures: tuple[float | None, float]) -> list[float]:
        """(PTS, arrival) of each picture → its time."""
        return [self.clock.time_s(pts_s, arrived_s) for pts_s, arrived_s in pictures]


def test_time_follows_the_pts_whatever_the_network_does() -> None:
    noted = Noted()
    assert noted.times((100.0, 1.0), (100.1, 1.3), (100.2, 1.31), (100.3, 1.32)) == pytest.approx(
        [1.0, 1.1, 1.2, 1.3]
    )
    assert noted.discontinuities == 0


def test_a_backlog_does_not_put_time_ahead() -> None:
    noted = Noted()
    assert noted.times((0.0, 5.0), (0.5, 5.0), (1.0, 5.1), (1.5, 5.6)) == pytest.approx([5.0, 5.0, 5.1, 5.6])
    assert noted.discontinuities == 0


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
    ids=["back", "ahead", "zero", "first is none", "none", "one is none"],
)
def test_a_discontinuity_is_counted_and_time_goes_on(pts_s: list[float | None], discontinuities: int) -> None:
    noted = Noted()
    arrived_s = [1.0, 1.1, 1.2, 1.3]
    assert noted.times(*zip(pts_s, arrived_s, strict=True)) == pytest.approx(arrived_s)
    assert noted.discontinuities == discontinuities


def test_pictures_that_were_lost_are_no_discontinuity() -> None:
    noted = Noted()
    assert noted.times((3.0, 1.0), (9.0, 7.0)) == [1.0, 7.0]
    assert noted.discontinuities == 0


def test_a_new_connection_has_pts_of_its_own() -> None:
    noted = Noted()
    noted.times((500.0, 1.0))
    noted.clock.restart()
    assert noted.times((0.0, 20.0), (0.1, 20.1)) == pytest.approx([20.0, 20.1])
    assert noted.discontinuities == 0


def test_a_camera_whose_clock_runs_slow_is_caught_up_with() -> None:
    noted = Noted()
    times_s = noted.times(*((0.99 * second, float(second)) for second in range(1000)))
    assert all(second - TOLERANCE_S <= time_s <= second for second, time_s in enumerate(times_s))
    assert noted.discontinuities == 0


pts = st.none() | st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(pts, st.floats(0, 10)), max_size=30))
def test_time_stays_close_to_the_arrival_and_never_goes_back(steps: list[tuple[float | None, float]]) -> None:
    noted, arrived_s, last_s = Noted(), 0.0, 0.0
    for pts_s, step_s in steps:
        arrived_s += step_s
        time_s = noted.clock.time_s(pts_s, arrived_s)
        assert time_s >= last_s
        assert arrived_s - TOLERANCE_S - 1e-6 <= time_s <= arrived_s + 1e-6
        last_s = time_s


def test_a_burst_is_spread() -> None:
    pacer, now_s, shown_s = Pacer(), 50.0, []
    for pts_s in (3.0, 3.1, 3.2, 3.3):
        now_s += pacer.delay_s(pts_s, now_s)
        shown_s.append(now_s)
    assert shown_s == pytest.approx([50.0, 50.1, 50.2, 50.3])


@pytest.mark.parametrize("pts_s", [None, 0.0, 900.0], ids=["none", "back", "ahead"])
def test_nobody_waits_for_a_pts_that_cannot_be_true(pts_s: float | None) -> None:
    pacer = Pacer()
    pacer.delay_s(3.0, 50.0)
    assert pacer.delay_s(pts_s, 50.1) == 0


def test_a_late_picture_sets_the_pace_anew() -> None:
    pacer = Pacer()
    pacer.delay_s(3.0, 50.0)
    assert pacer.delay_s(3.1, 55.0) == 0
    assert pacer.delay_s(3.2, 55.0) == pytest.approx(0.1)
