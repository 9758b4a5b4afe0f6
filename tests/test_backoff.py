"""Delays of retries, measured with an injected clock."""

from __future__ import annotations

import random

from fer_stream.backoff import Backoff


class Clock:
    """Clock that is advanced by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class LongestDelay(random.Random):
    """Random numbers that never shorten a delay."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(1, 60)
    assert [backoff.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_backoff_is_active_until_the_delay_has_passed() -> None:
    clock = Clock()
    backoff = Backoff(1, 60, clock=clock)
    backoff.failed()
    assert backoff.active
    clock.now_s += 0.99
    assert backoff.active
    clock.now_s += 0.01
    assert not backoff.active


def test_backoff_is_inactive_before_the_first_failure() -> None:
    backoff = Backoff(1, 60, clock=lambda: 0.0)
    assert not backoff.active
    assert backoff.failures == 0


def test_reset_ends_the_delay_and_restarts_the_series() -> None:
    backoff = Backoff(1, 60, clock=Clock())
    for _ in range(5):
        backoff.failed()
    assert backoff.failures == 5
    backoff.reset()
    assert not backoff.active
    assert backoff.failures == 0
    assert backoff.failed() == 1


def test_setting_the_clock_back_ends_the_delay() -> None:
    clock = Clock()
    backoff = Backoff(1, 60, clock=clock)
    backoff.failed()
    clock.now_s = 10.0
    assert not backoff.active


def test_jitter_shortens_delays_by_at_most_its_fraction() -> None:
    delays_s = [Backoff(0.5, 30, jitter=0.5, rng=random.Random(seed)).failed() for seed in range(200)]
    assert min(delays_s) >= 0.25
    assert max(delays_s) <= 0.5
    assert max(delays_s) - min(delays_s) > 0.2


def test_fixed_delay_does_not_increase_the_following_ones() -> None:
    backoff = Backoff(0.5, 30, jitter=0.5, rng=LongestDelay())
    assert [backoff.failed(fixed_s=60) for _ in range(3)] == [60, 60, 60]
    assert backoff.failed() == 0.5


def test_jitter_applies_to_a_fixed_delay() -> None:
    backoff = Backoff(0.5, 30, jitter=0.5, rng=random.Random(1))
    assert 30 <= backoff.failed(fixed_s=60) < 60
