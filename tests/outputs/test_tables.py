from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fer_stream.outputs.tables import COLUMNS, FrameTable, TimelineJson, timeline_document
from fer_stream.records import LABELS, FileSummary, LabelledFrame


@pytest.fixture
def table(frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path) -> Path:
    writer = FrameTable(tmp_path / "clip.frames.csv")
    for frame in frames:
        writer.write([frame])
    writer.finish(summary)
    return writer.path


def test_the_columns_are_those_documented(table: Path) -> None:
    header = table.read_text().splitlines()[0]
    assert header == (
        "frame_index,time_s,person_id,x1,y1,x2,y2,confidence,quality,quality_reason,"
        "angry,disgust,fear,happy,sad,surprise,neutral,label"
    )
    assert header == ",".join(COLUMNS)


def test_a_row_per_face_and_one_for_a_frame_without(table: Path) -> None:
    rows = table.read_text().splitlines()[1:]
    assert rows[0] == (
        "0,0.000000,1,40.00,30.00,80.00,90.00,0.8765,0.9000,ok,0.0500,0.0500,0.0500,0.7000,0.0500,0.0500,0.0500,happy"
    )
    assert rows[10] == "10,0.400000" + "," * 16
    assert len(rows) == 50 + 25


def test_pandas_reads_the_types_that_are_documented(table: Path, frames: list[LabelledFrame]) -> None:
    data = pd.read_csv(table, dtype={"person_id": "Int64"})
    assert data["frame_index"].dtype == "int64"
    assert data["person_id"].dtype == "Int64"
    for column in ("time_s", "x1", "confidence", "quality", *LABELS):
        assert data[column].dtype == "float64"
    assert data["person_id"].isna().sum() == 5
    assert data.groupby("person_id").size().to_dict() == {1: 45, 2: 25}
    faces = data.dropna(subset="person_id")
    assert faces[list(LABELS)].sum(axis=1).sub(1).abs().max() < 0.0005
    assert list(faces["label"]) == [face.label for frame in frames for face in frame.faces]


def _read(summary: FileSummary, folder: Path) -> dict[str, Any]:
    writer = TimelineJson(folder / "clip.timeline.json")
    writer.finish(summary)
    document = json.loads(writer.path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def test_the_timeline_says_what_the_job_was(summary: FileSummary, tmp_path: Path) -> None:
    document = _read(summary, tmp_path)
    assert (document["format"], document["version"]) == ("fer-stream.timeline", 1)
    assert document["source"]["name"] == "clip.mp4"
    assert document["analysed"] == {
        "frames": 50,
        "duration_s": 2.0,
        "stopped": None,
        "damage": {"packets": 2, "reason": "Invalid data found when processing input", "truncated": True},
    }
    assert document["model"]["labels"] == list(LABELS)
    assert document["unconfirmed_faces"] == 1


def test_the_timeline_holds_every_segment(summary: FileSummary, tmp_path: Path) -> None:
    first, second = _read(summary, tmp_path)["people"]
    assert first == {
        "person": 1,
        "first_s": 0.0,
        "last_s": 2.0,
        "frames": 45,
        "shares": {"happy": 0.6, "unknown": 0.4},
        "segments": [
            {"label": "happy", "start_s": 0.0, "end_s": 1.2, "mean_prob": 0.7},
            {"label": "unknown", "start_s": 1.2, "end_s": 2.0, "mean_prob": 0.0},
        ],
    }
    assert second["person"] == 2


def test_no_folder_of_this_machine_is_told(summary: FileSummary, tmp_path: Path) -> None:
    source = replace(summary.source, name="/home/ada/private/clip.mp4")
    settings: dict[str, object] = {
        "model": {"path": "/srv/models/own"},
        "weights": Path("/a/b/yunet.onnx"),
        "p": (1,),
    }
    document = _read(replace(summary, source=source, settings=settings), tmp_path)
    assert document["source"]["name"] == "clip.mp4"
    assert document["settings"] == {"model": {"path": "own"}, "weights": "yunet.onnx", "p": [1]}


@pytest.mark.parametrize("name", ["会議 <b>.mp4", "caf\udce9.mp4", 'quote".mp4'])
def test_any_file_name_can_be_written(name: str, summary: FileSummary, tmp_path: Path) -> None:
    document = _read(replace(summary, source=replace(summary.source, name=name)), tmp_path)
    assert document["source"]["name"] == name


def test_the_document_is_the_same_for_the_same_job(summary: FileSummary) -> None:
    assert json.dumps(timeline_document(summary)) == json.dumps(timeline_document(replace(summary)))


def test_the_examples_of_the_documentation_run(
    table: Path, summary: FileSummary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(__file__).parents[2].joinpath("docs", "reference", "formats.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    table.rename(table.with_name("talk.frames.csv"))
    TimelineJson(table.with_name("talk.timeline.json")).finish(summary)
    monkeypatch.chdir(table.parent)
    for example in examples:
        exec(example, {})
    shown = capsys.readouterr().out
    assert re.search(r"1 +happy +0\.5", shown), shown
    assert re.search(r"sad +1\.0 +2\.0 +0\.65 +2 +1\.0", shown), shown
