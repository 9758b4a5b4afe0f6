"""Statistics of the report: percentiles, slopes, counter increases and duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Span = tuple[float, float]

# Memory that a process allocates in its first minutes is not a leak.
WARM_UP_S = 120.0
_MAX_SAMPLES = 400


def percentiles(values: ArrayLike, which: Sequence[float] = (50, 95, 99)) -> dict[str, float]:
    """Return {"p50": …, "max": …} of `values`, or an empty dictionary for no values."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return {}
    return {**{f"p{one:g}": float(np.percentile(array, one)) for one in which}, "max": float(array.max())}


def slope(lives: Iterable[tuple[Sequence[float], Sequence[float]]], warm_up_s: float = WARM_UP_S) -> float | None:
    """Return the Theil–Sen slope in units per second: the median slope between any two samples of the same life.

    A life is (times, values) of one process. Its first `warm_up_s` seconds are ignored, and long lives are thinned to
    `_MAX_SAMPLES` samples. Returns None if no life has two samples left.
    """
    slopes: list[NDArray[np.float64]] = []
    for times, values in lives:
        t, v = np.asarray(times, np.float64), np.asarray(values, np.float64)
        warm = t - t[0] >= warm_up_s if t.size else t.astype(bool)
        step = max(1, int(warm.sum()) // _MAX_SAMPLES)
        t, v = t[warm][::step], v[warm][::step]
        first, second = np.triu_indices(len(t), 1)
        slopes.append((v[second] - v[first]) / (t[second] - t[first]))
    pooled = np.concatenate(slopes) if slopes else np.empty(0)
    return float(np.median(pooled)) if pooled.size else None


def increase(samples: Sequence[tuple[float, float]], windows: Sequence[Span] | None = None) -> float:
    """Return the increase of a counter over (time, value) samples, including resets to 0 at restarts.

    With `windows`, only increases between two samples of which the second lies in a window are counted.
    """
    total, last = 0.0, None
    for time_s, value in samples:
        rise = value if last is None or value < last else value - last
        last = value
        if windows is None or any(begin <= time_s <= end for begin, end in windows):
            total += rise
    return total


def in_windows(times: ArrayLike, windows: Sequence[Span]) -> NDArray[np.bool_]:
    """Return whether each of `times` lies in one of `windows`, bool (n,)."""
    array = np.asarray(times, np.float64)
    result = np.zeros(array.shape, bool)
    for begin, end in windows:
        result |= (array >= begin) & (array <= end)
    return result


def merge_windows(windows: Iterable[Span]) -> list[Span]:
    """Return the windows in order, with overlapping windows joined."""
    result: list[Span] = []
    for begin, end in sorted(windows):
        if result and begin <= result[-1][1]:
            result[-1] = result[-1][0], max(result[-1][1], end)
        else:
            result.append((begin, end))
    return result


def count_duplicates(keys: Iterable[Hashable]) -> int:
    """Return the number of `keys` that repeat an earlier one."""
    return sum(count - 1 for count in Counter(keys).values())
