"""The soak's arithmetic, on input whose answers are known."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from benchmarks.scenes import FPS, EncodedScene
from benchmarks.soak.account import increase, in_windows, merge_windows, percentiles, slope, count_duplicates
from benchmarks.soak.faults import FAULTS, Fault, fault_sequence
from benchmarks.soak.truth import Row, compare, read_lines, read_rows, visits
from benchmarks.watch import RECORDED_METRICS
from fer_stream.metrics import Metrics
from fer_stream.outputs.tables import COLUMNS
from tests.support.synthetic import Scene


def test_percentiles() -> None:
    assert percentiles(range(1, 101)) == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01, "max": 100})
    assert percentiles([]) == {}


def test_a_slope_is_not_moved_by_warming_up_by_outliers_or_by_restarts() -> None:
    times = np.arange(0.0, 1200.0, 5.0)
    warming = np.minimum(times, 100.0)
    first, second = warming + 0.01 * times + 80, warming + 0.01 * times + 300
    first[::50] += 500
    lives = [(times.tolist(), first.tolist()), ((times + 5000).tolist(), second.tolist())]
    assert slope(lives) == pytest.approx(0.01)
    assert slope([(times.tolist(), [7.0] * len(times))]) == 0
    assert slope([([0.0, 5.0], [1.0, 9.0]), ([], [])]) is None
    assert slope([]) is None


def test_a_counter_that_begins_anew_loses_nothing() -> None:
    samples = [(0.0, 5.0), (1.0, 7.0), (2.0, 7.0), (3.0, 2.0), (4.0, 3.0)]
    assert increase(samples) == 10
    assert increase(samples, [(3.5, 9.0)]) == 1
    assert increase(samples, []) == 0
    assert increase([]) == 0


def test_windows() -> None:
    assert merge_windows([(5, 6), (0, 2), (1, 3)]) == [(0, 3), (5, 6)]
    assert in_windows([0.5, 3.5, 5.0], [(0, 3), (5, 6)]).tolist() == [True, False, True]


def test_what_is_there_twice() -> None:
    assert count_duplicates(["a", "b", "a", "a"]) == 2
    assert count_duplicates([]) == 0


def test_a_round_has_every_fault_and_kills_once() -> None:
    order = fault_sequence(list(FAULTS), random.Random(1))
    drawn = Counter(next(order) for _ in range(15))
    assert drawn == {kind: 1 if kind in ("worker-killed", "capture-killed", "timeline-killed", "queue-killed",
                                         "store-killed") else 2 for kind in FAULTS}  # fmt: skip


def test_a_fault_spoils_the_time_until_labels_are_final_again() -> None:
    assert Fault("camera-killed", "camera-0", 100, 110, 2).window == (99, 117)
    assert Fault("camera-killed", "camera-0", 100, 110, None).window == (99, 205)


@pytest.fixture
def film(heads: Path, tmp_path: Path) -> EncodedScene:
    return EncodedScene(Scene(heads, seed=3, people=1), tmp_path / "no.mp4", tmp_path / "no.h264")


def perfect(film: EncodedScene, loops: int, since_s: float) -> tuple[list[Row], list[tuple[str, ...]]]:
    """Rows as a service without fault would write them, and what `fer-stream run` would say."""
    heads = [film.scene.heads_at(index / FPS) for index in range(film.frames)]
    told = [tuple(head.sprite for head in some) for some in heads]
    rows = []
    for index in range(loops * film.frames):
        loop, position = divmod(index, film.frames)
        here = [float(head.xyxy[0] + head.xyxy[2]) / 2 for head in heads[position]]
        visit = 10 * loop + sum(one.end_s < position / FPS for one in film.scene.visits)
        faces = tuple((visit, x, label) for x, label in zip(here, told[position], strict=True))
        rows.append(Row(1, index, since_s + index / FPS + 0.02, faces))
    return rows, told


def test_a_service_without_fault_agrees_with_the_truth(film: EncodedScene) -> None:
    rows, told = perfect(film, 2, since_s=1000.0)
    found = compare(rows, film, told, 1000.0, [])
    assert found["frames"] == len(rows)
    assert (found["people_as_in_scene"], found["labels_as_run_says"], found["labels_as_shown"]) == (1, 1, 1)
    assert found["frames_without_row"] == 0
    came = visits(rows, film, 1000.0, [])
    assert came["visits"] == came["as_one_person"] == 2 * len(film.scene.visits)
    assert came["seen_after_s"]["max"] < 0.1


def test_what_is_wrong_shows(film: EncodedScene) -> None:
    rows, told = perfect(film, 1, since_s=1000.0)
    first = film.scene.visits[0]
    middle_s = 1000 + (first.start_s + first.end_s) / 2
    wrong = [
        Row(row.stream_start_ms, row.index, row.at, tuple((99, x, "wrong") for _, x, _ in row.faces))
        if row.at > middle_s and row.at < 1000 + first.end_s + 1 else row
        for row in rows if row.index != 5
    ]  # fmt: skip
    found = compare(wrong, film, told, 1000.0, [])
    assert found["people_as_in_scene"] == 1
    assert found["labels_as_run_says"] < 1
    assert found["labels_as_shown"] < 1
    assert found["frames_without_row"] == 1
    came = visits(wrong, film, 1000.0, [])
    assert came["as_several"] == 1
    # A fault explains it all.
    excused = [(999.0, 1000 + first.end_s + 1)]
    assert compare(wrong, film, told, 1000.0, excused)["labels_as_run_says"] == 1
    assert visits(wrong, film, 1000.0, excused)["as_several"] == 0


def test_tables_are_read_as_the_service_writes_them(tmp_path: Path) -> None:
    head = ",".join((*COLUMNS, "stream_start_ms", "wall_time"))
    nobody = "0,0.25" + "," * (len(COLUMNS) - 2) + ",1000,z"
    face = "1,0.5,{track},{x},0,{x},9,0.9,0.8,ok,0,0,0,1,0,0,0,{label},1000,z"
    lines = [head, nobody, face.format(track=2, x=30, label="sad"), face.format(track=1, x=10, label="happy")]
    (tmp_path / "2026-01-31.frames.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "2026-01-31.segments.jsonl").write_text('{"kind": "gap"}\n{"kind": "segment", "person": 1}\n')
    rows, keys = read_rows(tmp_path)
    assert rows == [Row(1000, 0, 1.25, ()), Row(1000, 1, 1.5, ((1, 10.0, "happy"), (2, 30.0, "sad")))]
    assert keys == [("1000", "0", ""), ("1000", "1", "2"), ("1000", "1", "1")]
    assert read_lines(tmp_path, "segment") == [{"kind": "segment", "person": 1}]


@pytest.mark.parametrize("name", ["soak", "capacity"])
def test_the_command_line_explains_itself(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "cameras" in shown


def test_the_metrics_that_are_watched_exist() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    there = {f"{family.name}_{'bucket' if family.type == 'histogram' else 'total'}" for family in registry.collect()}
    assert set(RECORDED_METRICS) <= there
