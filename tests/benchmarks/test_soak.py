"""Arithmetic of the soak test on input with known results."""

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
from benchmarks.soak.account import count_duplicates, in_windows, increase, merge_windows, percentiles, slope
from benchmarks.soak.faults import FAULTS, Fault, fault_sequence
from benchmarks.soak.truth import Row, compare, read_lines, read_rows, visits
from benchmarks.watch import RECORDED_METRICS
from fer_stream.metrics import Metrics
from fer_stream.outputs.table import COLUMNS
from tests.support.synthetic import Scene


def test_percentiles_are_interpolated() -> None:
    assert percentiles(range(1, 101)) == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01, "max": 100})
    assert percentiles([]) == {}


def test_slope_ignores_warm_up_outliers_and_restarts() -> None:
    times = np.arange(0.0, 1200.0, 5.0)
    warming = np.minimum(times, 100.0)
    first, second = warming + 0.01 * times + 80, warming + 0.01 * times + 300
    first[::50] += 500
    processes = [(times.tolist(), first.tolist()), ((times + 5000).tolist(), second.tolist())]
    assert slope(processes) == pytest.approx(0.01)
    assert slope([(times.tolist(), [7.0] * len(times))]) == 0
    assert slope([([0.0, 5.0], [1.0, 9.0]), ([], [])]) is None
    assert slope([]) is None


def test_increase_of_a_counter_that_was_reset() -> None:
    samples = [(0.0, 5.0), (1.0, 7.0), (2.0, 7.0), (3.0, 2.0), (4.0, 3.0)]
    assert increase(samples) == 10
    assert increase(samples, [(3.5, 9.0)]) == 1
    assert increase(samples, []) == 0
    assert increase([]) == 0


def test_windows_are_merged_and_tested() -> None:
    assert merge_windows([(5, 6), (0, 2), (1, 3)]) == [(0, 3), (5, 6)]
    assert in_windows([0.5, 3.5, 5.0], [(0, 3), (5, 6)]).tolist() == [True, False, True]


def test_duplicates_are_counted() -> None:
    assert count_duplicates(["a", "b", "a", "a"]) == 2
    assert count_duplicates([]) == 0


def test_round_contains_each_kill_once_and_other_faults_twice() -> None:
    order = fault_sequence(list(FAULTS), random.Random(1))
    drawn = Counter(next(order) for _ in range(15))
    assert drawn == {kind: 1 if kind in ("worker-killed", "capture-killed", "timeline-killed", "queue-killed",
                                         "store-killed") else 2 for kind in FAULTS}  # fmt: skip


def test_window_of_a_fault_ends_when_labels_are_final_again() -> None:
    assert Fault("camera-killed", "camera-0", 100, 110, 2).window == (99, 117)
    assert Fault("camera-killed", "camera-0", 100, 110, None).window == (99, 205)


@pytest.fixture
def scene_video(heads: Path, tmp_path: Path) -> EncodedScene:
    return EncodedScene(Scene(heads, seed=3, people=1), tmp_path / "no.mp4", tmp_path / "no.h264")


def perfect(scene_video: EncodedScene, loops: int, since_s: float) -> tuple[list[Row], list[tuple[str, ...]]]:
    """Return the rows of a service without faults, and the labels of `fer-stream run`."""
    heads = [scene_video.scene.heads_at(index / FPS) for index in range(scene_video.frames)]
    run_labels = [tuple(head.sprite for head in some) for some in heads]
    rows = []
    for index in range(loops * scene_video.frames):
        loop, position = divmod(index, scene_video.frames)
        here = [float(head.xyxy[0] + head.xyxy[2]) / 2 for head in heads[position]]
        visit = 10 * loop + sum(one.end_s < position / FPS for one in scene_video.scene.visits)
        faces = tuple((visit, x, label) for x, label in zip(here, run_labels[position], strict=True))
        rows.append(Row(1, index, since_s + index / FPS + 0.02, faces))
    return rows, run_labels


def test_service_without_faults_agrees_with_the_scene(scene_video: EncodedScene) -> None:
    rows, run_labels = perfect(scene_video, 2, since_s=1000.0)
    result = compare(rows, scene_video, run_labels, 1000.0, [])
    assert result["frames"] == len(rows)
    assert (result["people_as_in_scene"], result["labels_as_run_says"], result["labels_as_shown"]) == (1, 1, 1)
    assert result["frames_without_row"] == 0
    found_visits = visits(rows, scene_video, 1000.0, [])
    assert found_visits["visits"] == found_visits["as_one_person"] == 2 * len(scene_video.scene.visits)
    assert found_visits["seen_after_s"]["max"] < 0.1


def test_differences_from_the_scene_are_counted(scene_video: EncodedScene) -> None:
    rows, run_labels = perfect(scene_video, 1, since_s=1000.0)
    first = scene_video.scene.visits[0]
    middle_s = 1000 + (first.start_s + first.end_s) / 2
    wrong = [
        Row(row.stream_start_ms, row.index, row.at, tuple((99, x, "wrong") for _, x, _ in row.faces))
        if row.at > middle_s and row.at < 1000 + first.end_s + 1 else row
        for row in rows if row.index != 5
    ]  # fmt: skip
    result = compare(wrong, scene_video, run_labels, 1000.0, [])
    assert result["people_as_in_scene"] == 1
    assert result["labels_as_run_says"] < 1
    assert result["labels_as_shown"] < 1
    assert result["frames_without_row"] == 1
    found_visits = visits(wrong, scene_video, 1000.0, [])
    assert found_visits["as_several"] == 1
    # All differences are within a fault.
    fault_windows = [(999.0, 1000 + first.end_s + 1)]
    assert compare(wrong, scene_video, run_labels, 1000.0, fault_windows)["labels_as_run_says"] == 1
    assert visits(wrong, scene_video, 1000.0, fault_windows)["as_several"] == 0


def test_tables_of_the_service_are_read(tmp_path: Path) -> None:
    head = ",".join((*COLUMNS, "stream_start_ms", "wall_time"))
    no_face = "0,0.25" + "," * (len(COLUMNS) - 2) + ",1000,z"
    face = "1,0.5,{track},{x},0,{x},9,0.9,0.8,ok,0,0,0,1,0,0,0,{label},,1000,z"
    lines = [head, no_face, face.format(track=2, x=30, label="sad"), face.format(track=1, x=10, label="happy")]
    (tmp_path / "2026-01-31.frames.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "2026-01-31.segments.jsonl").write_text('{"kind": "gap"}\n{"kind": "segment", "person_id": 1}\n')
    rows, keys = read_rows(tmp_path)
    assert rows == [Row(1000, 0, 1.25, ()), Row(1000, 1, 1.5, ((1, 10.0, "happy"), (2, 30.0, "sad")))]
    assert keys == [("1000", "0", ""), ("1000", "1", "2"), ("1000", "1", "1")]
    assert read_lines(tmp_path, "segment") == [{"kind": "segment", "person_id": 1}]


@pytest.mark.parametrize("name", ["soak", "capacity"])
def test_help_describes_the_options(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "cameras" in shown


def test_recorded_metrics_exist() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    exported = {
        f"{family.name}_{'bucket' if family.type == 'histogram' else 'total'}" for family in registry.collect()
    }
    assert set(RECORDED_METRICS) <= exported
