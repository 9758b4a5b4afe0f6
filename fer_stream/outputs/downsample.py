"""Probabilities of each person over time in bounded memory, as plot and report draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_stream.records import F32, F64, LABELS, LabelledFrame

MAX_POINTS = 1024
"""Maximum number of points per person: about one per pixel of a wide chart."""

_INITIAL_BIN_S = 0.01
_TIME, _COUNT = len(LABELS), len(LABELS) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """One person over time; n is the number of points.

    `time_s` float64 (n,) increases, `probs` float32 (n, 7) are mean smoothed probabilities, `after_gap` bool (n,) is
    True for the first point after an absence, which must not be connected to the point before it.
    """

    time_s: F64
    probs: F32
    after_gap: NDArray[np.bool_]


class ProbabilitySeries:
    """Collects smoothed probabilities during a run.

    Frames that were added before are ignored, so that several outputs can share a series and each add all frames. A
    person is absent if frames without them follow for longer than `max_gap_s`.
    """

    def __init__(self, *, max_points: int = MAX_POINTS, max_gap_s: float = 0.5) -> None:
        self._max_points = max_points
        self._max_gap_s = max_gap_s
        self._people: dict[int, _Bins] = {}
        self._frames = 0
        self._last_index = -1

    def add(self, frames: Sequence[LabelledFrame]) -> None:
        """Add the next frames, in order and with final labels."""
        for frame in frames:
            if frame.index <= self._last_index:
                continue
            self._last_index = frame.index
            self._frames += 1
            for face in frame.faces:
                bins = self._people.setdefault(face.person_id, _Bins(self._max_points))
                bins.add(frame.time_s, face.smoothed, self._frames, self._max_gap_s)

    def points(self, person_id: int) -> Points:
        """Return the points of a person so far; none for an unknown person."""
        return self._people.get(person_id, _Bins(self._max_points)).points()


class _Bins:
    """Sums over equal time bins. When their number exceeds the maximum, their width doubles.

    Empty bins are not stored, so a long absence needs no memory.
    """

    def __init__(self, max_points: int) -> None:
        self._max_points = max_points
        self._width_s = _INITIAL_BIN_S
        self._rows = np.zeros((16, len(LABELS) + 2))
        self._after_gap = np.zeros(16, np.bool_)
        self._used = 0
        self._bin = -1
        self._last_frame = 0
        self._last_s = 0.0

    def add(self, time_s: float, probs: F32, frame: int, max_gap_s: float) -> None:
        after_gap = self._used > 0 and frame - self._last_frame > 1 and time_s - self._last_s > max_gap_s
        self._last_frame, self._last_s = frame, time_s
        while self._used == self._max_points and int(time_s / self._width_s) != self._bin:
            self._double_width()
        if self._used == 0 or int(time_s / self._width_s) != self._bin:
            self._start_bin(time_s, after_gap)
        row = self._rows[self._used - 1]
        row[:_TIME] += probs
        row[_TIME] += time_s
        row[_COUNT] += 1

    def _start_bin(self, time_s: float, after_gap: bool) -> None:
        if self._used == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._after_gap = np.concatenate([self._after_gap, np.zeros_like(self._after_gap)])
        self._bin = int(time_s / self._width_s)
        self._after_gap[self._used] = after_gap
        self._used += 1

    def _double_width(self) -> None:
        self._width_s *= 2
        rows = self._rows[: self._used]
        bins = (rows[:, _TIME] / rows[:, _COUNT] / self._width_s).astype(np.int64)
        starts = np.flatnonzero(np.diff(bins, prepend=-1))
        merged = np.add.reduceat(rows, starts)
        self._after_gap[: len(starts)] = self._after_gap[starts]
        self._rows[: len(starts)] = merged
        self._rows[len(starts) :] = 0
        self._used = len(starts)
        self._bin = int(bins[-1])

    def points(self) -> Points:
        rows = self._rows[: self._used]
        counts = rows[:, _COUNT:]
        return Points(
            time_s=rows[:, _TIME] / counts[:, 0],
            probs=(rows[:, :_TIME] / counts).astype(np.float32),
            after_gap=self._after_gap[: self._used].copy(),
        )
