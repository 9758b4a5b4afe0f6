"""NAME.timeline.json."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fer_stream.outputs.table import FrameTable
from fer_stream.outputs.timeline_json import TimelineJson, timeline_document
from fer_stream.records import LABELS, FileSummary, LabelledFrame, Provenance

FORMATS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"


def _written(summary: FileSummary, directory: Path) -> dict[str, Any]:
    """Write the file and return the parsed document."""
    output = TimelineJson(directory / "clip.timeline.json")
    output.finish(summary)
    output.commit()
    document = json.loads(output.path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def test_document_contains_metadata_of_the_run(summary: FileSummary, tmp_path: Path) -> None:
    document = _written(summary, tmp_path)
    assert (document["format"], document["version"]) == ("fer-stream.timeline", 1)
    assert document["source"]["name"] == "clip.mp4"
    assert document["analysed"] == {
        "at": None,
        "command": None,
        "frames": 50,
        "start_s": 0.0,
        "smallest_face_px": 32.0,
        "duration_s": 2.0,
        "stopped": None,
        "decode_errors": {"packets": 2, "reason": "Invalid data found when processing input", "truncated": True},
    }
    assert document["model"]["labels"] == list(LABELS)
    assert document["unconfirmed_faces"] == 1


def test_document_records_how_it_was_produced(summary: FileSummary, tmp_path: Path) -> None:
    provenance = Provenance("/study/P01/clip.mp4", 1234, "cd" * 32, 1_767_225_600.7, "fer-stream run clip.mp4")
    document = _written(replace(summary, provenance=provenance), tmp_path)
    assert document["source"]["path"] == "/study/P01/clip.mp4"
    assert document["source"]["size_bytes"] == 1234
    assert document["source"]["sha256"] == "cd" * 32
    assert document["analysed"]["at"] == "2026-01-01T00:00:00Z"
    assert document["analysed"]["command"] == "fer-stream run clip.mp4"
    assert (document["detector"], document["backend"]) == ("yunet-2023mar", "litert")


def test_document_contains_every_segment(summary: FileSummary, tmp_path: Path) -> None:
    first, second = _written(summary, tmp_path)["people"]
    assert first == {
        "person_id": 1,
        "first_s": 0.0,
        "last_s": 2.0,
        "frames": 45,
        "shares": {"happy": 0.6, "unknown": 0.4},
        "unknown_shares": {"undecided": 0.4},
        "segments": [
            {"label": "happy", "start_s": 0.0, "end_s": 1.2, "mean_prob": 0.7, "unknown_reason": None},
            {"label": "unknown", "start_s": 1.2, "end_s": 2.0, "mean_prob": 0.0, "unknown_reason": "undecided"},
        ],
    }
    assert second["person_id"] == 2


def test_absolute_paths_are_reduced_to_file_names(summary: FileSummary, tmp_path: Path) -> None:
    source = replace(summary.source, name="/home/ada/private/clip.mp4")
    settings: dict[str, object] = {
        "model": {"path": "/srv/models/own"},
        "weights": Path("/a/b/yunet.onnx"),
        "p": (1,),
    }
    document = _written(replace(summary, source=source, settings=settings), tmp_path)
    assert document["source"]["name"] == "clip.mp4"
    assert document["settings"] == {"model": {"path": "own"}, "weights": "yunet.onnx", "p": [1]}


@pytest.mark.parametrize("name", ["会议 <b>.mp4", "caf\udce9.mp4", 'quote".mp4'])
def test_any_file_name_is_preserved(name: str, summary: FileSummary, tmp_path: Path) -> None:
    document = _written(replace(summary, source=replace(summary.source, name=name)), tmp_path)
    assert document["source"]["name"] == name


def test_equal_summaries_give_equal_documents(summary: FileSummary) -> None:
    assert json.dumps(timeline_document(summary)) == json.dumps(timeline_document(replace(summary)))


def test_examples_of_the_formats_page_run(
    frames: list[LabelledFrame],
    summary: FileSummary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = FrameTable(tmp_path / "talk.frames.csv")
    table.write(frames)
    table.finish(summary)
    table.commit()
    timeline = TimelineJson(tmp_path / "talk.timeline.json")
    timeline.finish(summary)
    timeline.commit()
    examples = re.findall(r"```python\n(.*?)```", FORMATS_PAGE.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 2
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(example, {})
    printed = capsys.readouterr().out
    assert re.search(r"1 +happy +0\.5", printed), printed
    assert re.search(r"sad +1\.0 +2\.0 +0\.65 +(NaN|None) +2 +1\.0", printed), printed
