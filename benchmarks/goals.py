"""What is measured, held against what was aimed at: medians with their spread, and by how much a goal is missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.material import table

COLUMNS = ("work", "", "measured (least – most)", "goal", "", "accuracy")


class NotMeasurable(Exception):  # noqa: N818 - it is a finding, told in the table
    """A row, or a part of one, that cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is aimed at: `value` at the least, or at the most."""

    value: float
    at_most: bool = False

    def missed_by(self, value: float) -> float:
        """The share of the goal that is missing, or too much; 0 where it is met."""
        over = (value - self.value) / self.value
        return max(0.0, over if self.at_most else -over)


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity of a row: what each round measured, or `why_not`. `accuracy` stands beside a speed."""

    what: str
    values: tuple[float, ...] = ()
    unit: str = ""
    goal: Goal | None = None
    accuracy: str = ""
    why_not: str = ""

    @property
    def median(self) -> float:
        """The middle of all rounds; raises `ValueError` where nothing was measured."""
        return median(self.values)

    @property
    def verdict(self) -> str:
        """Is the goal met, and if not, how far is it?"""
        if not self.goal or not self.values:
            return ""
        missed = self.goal.missed_by(self.median)
        return f"missed by {missed:.{0 if missed >= 0.095 else 1}%}" if missed else "met"

    def cells(self) -> list[str]:
        """Its cells under all of `HEAD` but the first."""
        if not self.values:
            return [self.what, f"not measured: {self.why_not}", _told(self.goal, self.unit), "", self.accuracy]
        spread = f" ({_number(min(self.values))} – {_number(max(self.values))})" if len(self.values) > 1 else ""
        measured = f"{_with_unit(self.median, self.unit)}{spread}"
        return [self.what, measured, _told(self.goal, self.unit), self.verdict, self.accuracy]

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": self.median if self.values else None,
            "least": min(self.values, default=None),
            "most": max(self.values, default=None),
            "rounds": len(self.values),
            "goal": self.goal.value if self.goal else None,
            "goal_is": ("at most" if self.goal.at_most else "at least") if self.goal else "",
            "verdict": self.verdict,
            "accuracy": self.accuracy,
            "why_not": self.why_not,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work, and what the rest of the machine did meanwhile: `others` is a share of all cores."""

    name: str
    title: str
    lines: Sequence[Line]
    others: float = 0.0
    lasted_s: float = 0.0

    def records(self) -> list[dict[str, Any]]:
        """One for each line, for JSON."""
        about = {"row": self.name, "work": self.title, "others": self.others, "lasted_s": self.lasted_s}
        return [{**about, **line.record()} for line in self.lines]


@dataclass(slots=True)
class Rounds:
    """Several kinds of work done in turn, so that what slows the machine down slows down all of them.

    `seconds` has what each round of each took, without the first, in which caches and clocks warm up.
    """

    works: Mapping[str, Callable[[], object]]
    seconds: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = {name: [] for name in self.works}

    def go(self, rounds: int) -> None:
        """Do all of them once to warm up, and `rounds` times more."""
        for number in range(rounds + 1):
            for name, work in self.works.items():
                began_s = time.perf_counter()
                work()
                if number:
                    self.seconds[name].append(time.perf_counter() - began_s)

    def rate(self, name: str, amount: float) -> tuple[float, ...]:
        """How much of it was done a second, in each round, where a round does `amount`."""
        return tuple(amount / each for each in self.seconds[name])

    def ratio(self, name: str, to: str, amounts: tuple[float, float] = (1, 1)) -> tuple[float, ...]:
        """How many times as fast as `to` it was, round by round."""
        pairs = zip(self.rate(name, amounts[0]), self.rate(to, amounts[1]), strict=True)
        return tuple(mine / theirs for mine, theirs in pairs)


def largest(carried: Callable[[int], bool], first: int, most: int) -> int:
    """The largest number up to `most` that is carried, 0 if none: doubled from `first` on, then halved in between.

    Where what is carried is not quite monotonic, a number just below one that is not.
    """
    low, high = 0, first
    while high <= most and carried(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if carried(middle) else (low, middle)
    return low


def markdown(rows: Sequence[Row]) -> str:
    """The one table. The name of a row stands beside its first line alone."""
    return table(
        list(COLUMNS),
        [[row.title if number == 0 else "", *line.cells()] for row in rows for number, line in enumerate(row.lines)],
    )


def _told(goal: Goal | None, unit: str) -> str:
    if goal is None:
        return ""
    return f"{'≤' if goal.at_most else '≥'} {_with_unit(goal.value, unit)}"


def _with_unit(value: float, unit: str) -> str:
    if unit == "×":
        return f"{_number(value)} ×"
    return f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    """Three digits, and all of a whole number."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
