"""Arithmetic of the table: medians, spreads, ratios round by round, and deviations from goals."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from benchmarks.goals import COLUMNS, Goal, Line, Rounds, Row, largest_passing, markdown


@pytest.mark.parametrize(
    ("goal", "value", "missed"),
    [(Goal(20), 15, 0.25), (Goal(20), 20, 0), (Goal(20), 31, 0), (Goal(0.5, at_most=True), 0.6, 0.2),
     (Goal(0.5, at_most=True), 0.5, 0), (Goal(0.5, at_most=True), 0.1, 0)],
)  # fmt: skip
def test_deviation_from_a_goal(goal: Goal, value: float, missed: float) -> None:
    assert goal.missed_by(value) == pytest.approx(missed)


def test_line_shows_median_spread_goal_and_verdict() -> None:
    line = Line("… of decoding alone", (0.31, 0.4, 0.35), "×", Goal(0.5), "recall 98.0 % of 50 faces")
    assert line.cells() == [
        "… of decoding alone", "0.35 × (0.31 – 0.4)", "≥ 0.5 ×", "missed by 30%", "recall 98.0 % of 50 faces"
    ]  # fmt: skip
    assert Line("faces/s", (2_600.4, 3_100.2), "", Goal(2_000)).cells()[1:4] == [
        "2,850 (2,600 – 3,100)",
        "≥ 2,000",
        "met",
    ]
    assert Line("a face", (0.3502,), "ms", Goal(0.35, at_most=True)).verdict == "missed by 0.1%"


def test_unmeasured_line_shows_the_reason() -> None:
    line = Line("… of fer", unit="×", goal=Goal(20), unmeasured_reason="not installed")
    assert line.cells() == ["… of fer", "not measured: not installed", "≥ 20 ×", "", ""]
    assert line.record()["median"] is None


def test_title_of_a_row_is_shown_once() -> None:
    rows = [
        Row("start", "start", [Line("help", (0.2,), "s"), Line("run", (1.0,), "s")]),
        Row("x", "other", [Line("a")]),
    ]
    head, rule, *lines = (line.strip("| ").split(" | ") for line in markdown(rows).splitlines())
    assert tuple(cell.strip() for cell in head) == COLUMNS[: len(head)]
    assert set(rule) == {"---"}
    assert [line[0] for line in lines] == ["start", "run", "other"]


def test_records_can_be_read_by_pandas() -> None:
    row = Row(
        "file",
        "recorded",
        [Line("fps", (3.0, 1.0, 2.0), "fps", Goal(4)), Line("×", unmeasured_reason="no")],
        other_load=0.25,
    )
    first, second = pd.read_json(io.StringIO(json.dumps(row.records()))).to_dict("records")
    assert [first[key] for key in ("row", "median", "min", "max", "goal", "other_load")] == ["file", 2, 1, 3, 4, 0.25]
    assert pd.isna(second["median"])
    assert second["unmeasured_reason"] == "no"


def test_tasks_alternate_and_the_first_round_is_not_measured() -> None:
    done: list[str] = []
    rounds = Rounds({"a": lambda: done.append("a"), "b": lambda: done.append("b")})
    rounds.run(3)
    assert done == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in rounds.seconds.items()} == {"a": 3, "b": 3}


def test_ratios_compare_the_same_round() -> None:
    rounds = Rounds({"task": int, "reference": int})
    rounds.seconds = {"task": [1.0, 2.0, 4.0], "reference": [2.0, 8.0, 1.0]}
    assert rounds.rate("task", 100) == (100, 50, 25)
    assert rounds.ratio("task", "reference") == (2, 4, 0.25)
    assert rounds.ratio("task", "reference", (100, 10)) == (20, 40, 2.5)


@pytest.mark.parametrize("limit", range(50))
def test_largest_passing_number_is_found(limit: int) -> None:
    calls: list[int] = []

    def passes(number: int) -> bool:
        calls.append(number)
        return number <= limit

    assert largest_passing(passes, first=8, maximum=40) == min(limit, 40)
    assert len(calls) == len(set(calls)) <= 8
