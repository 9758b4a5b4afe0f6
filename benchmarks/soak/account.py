"""The arithmetic of the report: percentiles, slopes, what counters rose by, what came twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Span = tuple[float, float]

# A process takes what memory it needs in its first minutes; what grows later may be a leak.
WARM_UP_S = 120.0
_AT_MOST = 400


def percentiles(values: ArrayLike, which: Sequence[float] = (50, 95, 99)) -> dict[str, float]:
    """{"p50": …} of `values`, and "max"; empty where there are none."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return {}
    return {**{f"p{one:g}": float(np.percentile(array, one)) for one in which}, "max": float(array.max())}


def slope(lives: Iterable[tuple[Sequence[float], Sequence[float]]], warm_up_s: float = WARM_UP_S) -> float | None:
    """How fast a value rises, in units a second: the median slope between any two samples of the same life.

    A life is (times, values) of one process. Its first `warm_up_s` are left out, and of long lives samples are, so
    that `_AT_MOST` remain. None where no life is long enough for two samples. (Theil and Sen's estimator.)
    """
    slopes: list[NDArray[np.float64]] = []
    for times, values in lives:
        t, v = np.asarray(times, np.float64), np.asarray(values, np.float64)
        warm = t - t[0] >= warm_up_s if t.size else t.astype(bool)
        step = max(1, int(warm.sum()) // _AT_MOST)
        t, v = t[warm][::step], v[warm][::step]
        first, second = np.triu_indices(len(t), 1)
        slopes.append((v[second] - v[first]) / (t[second] - t[first]))
    pooled = np.concatenate(slopes) if slopes else np.empty(0)
    return float(np.median(pooled)) if pooled.size else None


def increase(samples: Sequence[tuple[float, float]], windows: Sequence[Span] | None = None) -> float:
    """By how much a counter rose in (time, value) samples, over restarts, at which it begins anew at 0.

    With `windows`, by how much it rose between samples of which the second lies in one of these.
    """
    total, last = 0.0, None
    for time_s, value in samples:
        rise = value if last is None or value < last else value - last
        last = value
        if windows is None or any(begin <= time_s <= end for begin, end in windows):
            total += rise
    return total


def inside(times: ArrayLike, windows: Sequence[Span]) -> NDArray[np.bool_]:
    """Which of `times` lie in one of `windows`, bool (n,)."""
    array = np.asarray(times, np.float64)
    result = np.zeros(array.shape, bool)
    for begin, end in windows:
        result |= (array >= begin) & (array <= end)
    return result


def merged(windows: Iterable[Span]) -> list[Span]:
    """The windows in order, those that overlap joined."""
    result: list[Span] = []
    for begin, end in sorted(windows):
        if result and begin <= result[-1][1]:
            result[-1] = result[-1][0], max(result[-1][1], end)
        else:
            result.append((begin, end))
    return result


def twice(keys: Iterable[Hashable]) -> int:
    """How many of `keys` were there before."""
    return sum(count - 1 for count in Counter(keys).values())
