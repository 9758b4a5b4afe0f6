"""Waiting for conditions that another thread or process establishes."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    timeout_s: float = 60,
    *,
    describe: Callable[[], object] = lambda: "",
    ignore: type[Exception] | tuple[type[Exception], ...] = (),
) -> float:
    """Poll until `condition()` is true and return the seconds waited; fail after `timeout_s`.

    The failure message contains `describe()`. Exceptions of the types `ignore` count as a false condition.
    """
    started_s = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - started_s
        except ignore:
            pass
        assert time.monotonic() < started_s + timeout_s, f"condition not met after {timeout_s} s: {describe()}"
        time.sleep(0.02)
