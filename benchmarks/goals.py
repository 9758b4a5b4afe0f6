"""Measurements compared with goals: medians with their spread, and by how much a goal is missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.material import table

COLUMNS = ("task", "", "measured (min – max)", "goal", "", "accuracy")


class NotMeasurable(Exception):  # noqa: N818 - shown in the table, not a failure
    """A row or a line cannot be measured on this machine, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: at least `value`, or at most `value`."""

    value: float
    at_most: bool = False

    def missed_by(self, value: float) -> float:
        """Return the deviation of `value` from the goal as a share of the goal; 0 if it is met."""
        over = (value - self.value) / self.value
        return max(0.0, over if self.at_most else -over)


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity of a row: the value of each round, or `unmeasured_reason`. `accuracy` is shown beside a speed."""

    name: str
    values: tuple[float, ...] = ()
    unit: str = ""
    goal: Goal | None = None
    accuracy: str = ""
    unmeasured_reason: str = ""

    @property
    def median(self) -> float:
        """Median over all rounds. Raises `ValueError` if nothing was measured."""
        return median(self.values)

    @property
    def verdict(self) -> str:
        """`met`, `missed by N%`, or nothing without a goal or a value."""
        if not self.goal or not self.values:
            return ""
        missed = self.goal.missed_by(self.median)
        return f"missed by {missed:.{0 if missed >= 0.095 else 1}%}" if missed else "met"

    def cells(self) -> list[str]:
        """Return its cells of the table, for all of `COLUMNS` except the first."""
        if not self.values:
            return [
                self.name,
                f"not measured: {self.unmeasured_reason}",
                _format_goal(self.goal, self.unit),
                "",
                self.accuracy,
            ]
        spread = (
            f" ({_format_number(min(self.values))} – {_format_number(max(self.values))})"
            if len(self.values) > 1
            else ""
        )
        measured = f"{_format_value(self.median, self.unit)}{spread}"
        return [self.name, measured, _format_goal(self.goal, self.unit), self.verdict, self.accuracy]

    def record(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "line": self.name,
            "unit": self.unit,
            "median": self.median if self.values else None,
            "min": min(self.values, default=None),
            "max": max(self.values, default=None),
            "rounds": len(self.values),
            "goal": self.goal.value if self.goal else None,
            "goal_kind": ("at most" if self.goal.at_most else "at least") if self.goal else "",
            "verdict": self.verdict,
            "accuracy": self.accuracy,
            "unmeasured_reason": self.unmeasured_reason,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """Measurements of one task. `other_load` is the share of all cores that other programs used meanwhile."""

    name: str
    title: str
    lines: Sequence[Line]
    other_load: float = 0.0
    duration_s: float = 0.0

    def records(self) -> list[dict[str, Any]]:
        """Return one JSON object per line."""
        common = {
            "row": self.name,
            "task": self.title,
            "other_load": self.other_load,
            "duration_s": self.duration_s,
        }
        return [{**common, **line.record()} for line in self.lines]


@dataclass(slots=True)
class Rounds:
    """Tasks that alternate, so that other load on the machine affects all of them.

    `seconds` contains the duration of each round per task, without the first round, which fills caches.
    """

    tasks: Mapping[str, Callable[[], object]]
    seconds: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = {name: [] for name in self.tasks}

    def run(self, rounds: int) -> None:
        """Run all tasks once to warm up, then `rounds` times."""
        for number in range(rounds + 1):
            for name, task in self.tasks.items():
                start_s = time.perf_counter()
                task()
                if number:
                    self.seconds[name].append(time.perf_counter() - start_s)

    def rate(self, name: str, amount: float) -> tuple[float, ...]:
        """Return the throughput per second of each round of a task that processes `amount` per round."""
        return tuple(amount / each for each in self.seconds[name])

    def ratio(self, name: str, reference: str, amounts: tuple[float, float] = (1, 1)) -> tuple[float, ...]:
        """Return the throughput of a task relative to `reference`, round by round."""
        pairs = zip(self.rate(name, amounts[0]), self.rate(reference, amounts[1]), strict=True)
        return tuple(rate / reference_rate for rate, reference_rate in pairs)


def largest_passing(passes: Callable[[int], bool], first: int, maximum: int) -> int:
    """Return the largest number up to `maximum` that passes, 0 if none: doubling from `first`, then bisection.

    If `passes` is not monotonic, the result passes and the next number does not.
    """
    low, high = 0, first
    while high <= maximum and passes(high):
        low, high = high, 2 * high
    high = min(high, maximum + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def markdown(rows: Sequence[Row]) -> str:
    """Return the table. The title of a row is shown on its first line only."""
    return table(
        list(COLUMNS),
        [[row.title if number == 0 else "", *line.cells()] for row in rows for number, line in enumerate(row.lines)],
    )


def _format_goal(goal: Goal | None, unit: str) -> str:
    if goal is None:
        return ""
    return f"{'≤' if goal.at_most else '≥'} {_format_value(goal.value, unit)}"


def _format_value(value: float, unit: str) -> str:
    if unit == "×":
        return f"{_format_number(value)} ×"
    return f"{_format_number(value)} {unit}".rstrip()


def _format_number(value: float) -> str:
    """Format a number with three significant digits; integers and numbers from 100 in full."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
