"""Tests listed in docs/evidence/reliability.md exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "evidence" / "reliability.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| fault |", "| --- |"))
]


def test_rows_list_existing_tests() -> None:
    listed = []
    for fault, tests, *_ in ROWS:
        found = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert found or tests.startswith("the "), f"{fault}: no test listed"
        listed += found
    assert len(listed) > 20
    for path, name in listed:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_rows_are_complete() -> None:
    assert [row for row in ROWS if len(row) != 5 or not (row[0] and row[2] and (row[3] or row[4]))] == []
