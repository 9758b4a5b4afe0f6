from __future__ import annotations

import random

from fer_stream.capture.backoff import Backoff
from fer_stream.config import CameraSettings


class Longest(random.Random):
    """Chance that never shortens a wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(CameraSettings(), Longest())
    waits_s = [backoff.wait_s(refused=False, up_s=0) for _ in range(9)]
    assert waits_s == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_wait_is_shortened_by_up_to_a_half() -> None:
    waits_s = [Backoff(CameraSettings(), random.Random(seed)).wait_s(refused=False, up_s=0) for seed in range(200)]
    assert min(waits_s) >= 0.25
    assert max(waits_s) <= 0.5
    assert max(waits_s) - min(waits_s) > 0.2


def test_a_refusal_is_not_tried_again_soon() -> None:
    backoff = Backoff(CameraSettings(), Longest())
    assert [backoff.wait_s(refused=True, up_s=0) for _ in range(3)] == [60, 60, 60]
    assert backoff.wait_s(refused=False, up_s=0) == 0.5


def test_a_connection_that_held_starts_the_series_again() -> None:
    backoff = Backoff(CameraSettings(), Longest())
    for _ in range(5):
        backoff.wait_s(refused=False, up_s=0)
    assert backoff.wait_s(refused=False, up_s=6) == 0.5


def test_one_that_flaps_is_waited_for_longer_and_longer() -> None:
    backoff = Backoff(CameraSettings(), Longest())
    waits_s = [backoff.wait_s(refused=False, up_s=0.4) for _ in range(8)]
    assert waits_s == [0.5, 1, 2, 4, 8, 16, 30, 30]
