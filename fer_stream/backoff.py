"""Exponential backoff between retries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Backoff:
    """Delay before the next attempt: doubles with each failure from `min_s` to `max_s` seconds.

    Each delay is shortened at random by up to the fraction `jitter`, so that many clients of one server do not retry
    at the same moment. `clock` returns seconds; if it is set back, the current delay ends. Not thread-safe.
    """

    def __init__(
        self,
        min_s: float,
        max_s: float,
        *,
        jitter: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.failures = 0
        """Failed attempts since the last success."""
        self._min_s = min_s
        self._max_s = max_s
        self._jitter = jitter
        self._clock = clock
        self._rng = rng or random.Random()
        self._next_s = min_s
        self._delay_s = 0.0
        self._failed_at_s = 0.0

    @property
    def active(self) -> bool:
        """True while it is too early for the next attempt."""
        return 0 <= self._clock() - self._failed_at_s < self._delay_s

    def failed(self, *, fixed_s: float | None = None) -> float:
        """Record a failed attempt and return the delay before the next one, in seconds.

        `fixed_s` replaces the exponential delay of this attempt, with jitter; the series does not advance.
        """
        self.failures += 1
        self._failed_at_s = self._clock()
        delay_s = self._next_s if fixed_s is None else fixed_s
        if fixed_s is None:
            self._next_s = min(2 * self._next_s, self._max_s)
        self._delay_s = delay_s * self._rng.uniform(1 - self._jitter, 1)
        return self._delay_s

    def reset(self) -> None:
        """Record a success: the next failure is followed by `min_s` again."""
        self.failures = 0
        self._next_s = self._min_s
        self._delay_s = 0.0
