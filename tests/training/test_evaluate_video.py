"""Evaluation on labelled video: counted faces, face time, groups and intervals, tables, and the command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fer_stream.api import analyze
from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.outputs.table import COLUMNS, frame_rows
from fer_stream.training.evaluate_video import (
    JSON,
    MARKDOWN,
    ScoredFace,
    ScoredFrame,
    Stretch,
    read_table,
    read_truth,
    score,
    scored_frames,
)

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "clip,person,label,start_s,end_s,faces\n"


def frames(*labels: str | None, fps: float = 10.0, start_s: float = 0.0) -> list[ScoredFrame]:
    """Frames of one face with these labels; None is a frame without a face."""
    return [
        ScoredFrame(start_s + number / fps, (ScoredFace("1", 100.0, label),) if label else ())
        for number, label in enumerate(labels)
    ]


def stretch(label: str = "happy", start_s: float = 0.0, end_s: float = 99.0, **others: str) -> Stretch:
    named = {"clip": "a.mp4", "person": "p1", "faces": "main", **others}
    return Stretch(named["clip"], named["person"], label, start_s, end_s, named["faces"])  # type: ignore[arg-type]


def test_face_time_is_split_into_right_unknown_and_wrong() -> None:
    clip_frames = frames("happy", "happy", None, "unknown", "sad", "happy", "happy", "happy", "unknown")
    found = score([stretch()], lambda _: clip_frames).stretches[0]
    assert found.face_s == pytest.approx(0.8)
    assert (found.right, found.unknown, found.wrong) == pytest.approx((5 / 8, 2 / 8, 1 / 8))
    assert found.labels == pytest.approx({"happy": 5 / 8, "unknown": 2 / 8, "sad": 1 / 8})
    assert found.changes == 4


def test_frames_inside_the_stretch_are_weighted_by_duration() -> None:
    clip_frames = [
        *frames("sad", "sad"),
        *frames("happy", start_s=1.0),
        *frames("sad", start_s=1.3),
        *frames("sad", start_s=1.4),
    ]
    found = score([stretch(start_s=1.0, end_s=1.35)], lambda _: clip_frames).stretches[0]
    assert found.face_s == pytest.approx(0.4)
    assert found.right == pytest.approx(0.75)


def test_largest_face_or_all_faces_count() -> None:
    pair = (ScoredFace("1", 100.0, "happy"), ScoredFace("2", 400.0, "sad"))
    clip_frames = [ScoredFrame(0.0, pair), ScoredFrame(0.1, pair)]
    main, every = score([stretch(), stretch(faces="all")], lambda _: clip_frames).stretches
    assert (main.right, main.wrong, main.changes) == (0, 1, 0)
    assert (every.right, every.wrong, every.changes) == (0.5, 0.5, 0)
    assert every.face_s == pytest.approx(2 * main.face_s)


def test_group_is_the_mean_over_stretches_with_interval_over_persons() -> None:
    clip_frames = {
        "a.mp4": frames(*["happy"] * 10),
        "b.mp4": frames(*["happy"] * 30, *["sad"] * 10),
        "c.mp4": frames("neutral", "unknown"),
        "d.mp4": frames(None, None),
    }
    truth = [
        stretch(clip="a.mp4", person="p1"),
        stretch(clip="b.mp4", person="p2"),
        stretch("neutral", clip="c.mp4", person="p3"),
        stretch("sad", clip="d.mp4", person="p4"),
    ]
    requested: list[str] = []

    def frames_of(clip: str) -> list[ScoredFrame]:
        requested.append(clip)
        return clip_frames[clip]

    found = score(truth, frames_of)
    assert requested == list(clip_frames)
    expressions, calm = found.groups["expressions"], found.groups["calm"]
    assert (expressions.stretches, expressions.without_face, expressions.persons) == (2, 1, 2)
    assert expressions.right == pytest.approx((1 + 0.75) / 2)
    assert expressions.right_interval == pytest.approx((0.75, 1.0))
    assert expressions.changes_per_minute == pytest.approx(60 / 5)
    assert (calm.right, calm.unknown, calm.wrong) == (0.5, 0.5, 0)
    assert calm.right_interval == (0.5, 0.5)
    assert list(found.groups) == ["expressions", "calm", "happy", "sad", "neutral"]
    assert (found.groups["sad"].stretches, found.groups["sad"].right) == (0, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("clip,person\na.mp4,p1\n", "has no column label, start_s, end_s, faces. Expected clip, person"),
        (HEAD, "has no stretches. Add a row"),
        (HEAD + "a.mp4,p1,glad,0,1,main\n", "row 2: label must be one of angry, .* received 'glad'"),
        (HEAD + "a.mp4,p1,sad,zero,1,main\n", "row 2: start_s and end_s must be seconds"),
        (HEAD + "a.mp4,p1,sad,2,1,main\n", "row 2: expected 0 ≤ start_s < end_s, received 2 and 1"),
        (HEAD + "a.mp4,p1,sad,0,1,some\n", "row 2: faces must be main or all, received 'some'"),
        (HEAD + ",p1,sad,0,1,main\n", "row 2: clip is empty"),
    ],
)
def test_invalid_truth_is_refused(table: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(table, encoding="utf-8")
    with pytest.raises(UnreadableSource, match=message):
        read_truth(tmp_path / "truth.csv")


def test_missing_or_invalid_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"truth\.csv does not exist\. Expected a table with the columns clip"):
        read_truth(tmp_path / "truth.csv")
    (tmp_path / "bad.csv").write_text("time_s,person_id,x1,y1,x2,y2,label\nzero,1,0,0,1,1,sad\n")
    with pytest.raises(UnreadableSource, match="row 2: could not convert"):
        read_table(tmp_path / "bad.csv")


def test_table_has_the_same_content_as_the_frames(portrait: Path, tmp_path: Path) -> None:
    found = analyze(portrait).frames
    table = tmp_path / "clip.frames.csv"
    table.write_text(",".join(COLUMNS) + "\n" + "".join(map(frame_rows, found)), encoding="ascii")
    exact, read = scored_frames(found), read_table(table)
    assert len(exact) == len(read) > 0
    for one, other in zip(exact, read, strict=True):
        assert one.time_s == pytest.approx(other.time_s, abs=1e-6)
        assert [(face.person, face.label) for face in one.faces] == [
            (face.person, face.label) for face in other.faces
        ]
        assert [face.area_px for face in one.faces] == pytest.approx([face.area_px for face in other.faces], rel=0.01)


def test_command_evaluates_clips_and_tables_of_other_tools(portrait: Path, tmp_path: Path) -> None:
    clips, tables = tmp_path / "clips", tmp_path / "tables"
    clips.mkdir()
    tables.mkdir()
    (clips / portrait.name).symlink_to(portrait)
    stretches = (f"{portrait.name},p1,{rest}\n" for rest in ("neutral,0,99,main", "happy,0,1,all"))
    (clips / "truth.csv").write_text(HEAD + "".join(stretches))
    command = [sys.executable, "-m", "fer_stream.cli", "evaluate", "--data", str(clips)]
    done = subprocess.run([*command, "--out", str(tmp_path / "own")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "expressions " in done.stdout
    found = json.loads((tmp_path / "own" / JSON).read_text())
    for one in found["stretches"]:
        assert one["right"] + one["unknown"] + one["wrong"] == pytest.approx(1)
    assert found["settings"]["timeline"]["smoothing_s"] > 0
    assert f"| {portrait.name} | 0 s | 99 s | neutral |" in (tmp_path / "own" / MARKDOWN).read_text()
    with (tables / f"{portrait.stem}.frames.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["time_s", "person_id", "x1", "y1", "x2", "y2", "label"])
        table.writerows([[number / 10, 1, 0, 0, 50, 50, "neutral"] for number in range(20)])
    done = subprocess.run(
        [*command, "--tables", str(tables), "--out", str(tmp_path / "peer")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "calm 100 / 0 / 0" in done.stdout
    assert "expressions 0 / 0 / 100" in done.stdout
