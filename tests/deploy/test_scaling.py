"""Figures of docs/how-to/scaling.md are those of benchmarks/scaling.py."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scaling import CROPS_PER_NODE, SOURCES_PER_SHARD, plan, table

ROOT = Path(__file__).resolve().parent.parent.parent


def test_documented_table_is_current() -> None:
    text = (ROOT / "docs" / "how-to" / "scaling.md").read_text()
    for row in table([plan(cameras, 5, 2) for cameras in (10, 100, 1000, 5000)]):
        assert f"{row}\n" in text


def test_plan_for_a_thousand_cameras_and_for_one() -> None:
    thousand = plan(1000, 5, 2)
    assert thousand["queue memory"] == "50.0 MB"
    assert int(thousand["shards"]) * SOURCES_PER_SHARD >= 1000
    assert int(thousand["queue nodes"]) * CROPS_PER_NODE >= 10_000
    assert {plan(1, 15, 1)[name] for name in ("capture cores", "queue nodes", "shards", "stores")} == {"1"}
