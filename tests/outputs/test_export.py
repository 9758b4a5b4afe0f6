"""Exports, each read back with a library of its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pympi
import pysrt
import pytest
import textgrids
import webvtt

from fer_stream.errors import OutputExists, SourceNotFound, UnreadableSource
from fer_stream.outputs.export import export_file
from fer_stream.outputs.registry import EXPORTS

MEDIA = '/videos/P 01/"Gespräch" & more.mp4'

# Person, text, start and end in ms. The second person appears while the first is visible, and the first twice.
SEGMENTS = [
    (1, "happy", 0, 1234),
    (1, "unknown: off frontal", 1234, 2000),
    (2, "neutral", 1500, 3700),
    (1, "sad", 5000, 7000),
]
DURATION_MS = 8000


def segment(text: str, start_ms: int, end_ms: int) -> dict[str, Any]:
    label, _, reason = text.partition(": ")
    return {
        "label": label,
        "start_s": start_ms / 1000,
        "end_s": end_ms / 1000,
        "mean_prob": 0.0 if reason else 0.6158,
        "unknown_reason": reason.replace(" ", "_") or None,
    }


def person(person_id: int) -> dict[str, Any]:
    segments = [segment(text, start, end) for owner, text, start, end in SEGMENTS if owner == person_id]
    # A face in a single frame has no duration, which annotation programs do not accept.
    return {"person_id": person_id, "segments": [*segments, segment("angry", 7000, 7000)]}


@pytest.fixture
def timeline(tmp_path: Path) -> Path:
    document = {
        "format": "fer-stream.timeline",
        "version": 1,
        "source": {"name": "talk.mp4", "path": MEDIA, "duration_s": DURATION_MS / 1000, "fps": 25.0},
        "analysed": {"at": "2026-11-28T12:00:00Z", "duration_s": 7.96},
        "people": [person(1), person(2)],
    }
    path = tmp_path / "talk.timeline.json"
    path.write_text(json.dumps(document))
    return path


def export(timeline: Path, export_format: str) -> Path:
    (path,) = export_file(timeline, [export_format], out=None, force=False)
    assert path == timeline.parent / f"talk.{EXPORTS[export_format].suffix}"
    return path


def test_elan_reads_one_tier_per_person_and_the_medium(timeline: Path) -> None:
    document = pympi.Elan.Eaf(str(export(timeline, "eaf")))
    assert sorted(document.get_tier_names()) == ["person 1", "person 2"]
    for number in (1, 2):
        annotations = [annotation[:3] for annotation in document.get_annotation_data_for_tier(f"person {number}")]
        assert annotations == [(start, end, text) for owner, text, start, end in SEGMENTS if owner == number]
    (medium,) = document.get_linked_files()
    assert unquote(urlsplit(medium["MEDIA_URL"]).path) == MEDIA


def test_praat_reads_intervals_that_cover_the_whole_time(timeline: Path) -> None:
    grid = textgrids.TextGrid(str(export(timeline, "textgrid")))
    assert list(grid) == ["person 1", "person 2"]
    for number, tier in enumerate(grid.values(), start=1):
        ends = [0.0, *(interval.xmax for interval in tier)]
        assert ends == [*(interval.xmin for interval in tier), DURATION_MS / 1000]
        labelled = [(number, it.text, round(1000 * it.xmin), round(1000 * it.xmax)) for it in tier if it.text]
        assert labelled == [each for each in SEGMENTS if each[0] == number]


def cue(person_id: int, text: str) -> str:
    return f"Person {person_id}: {text}" + ("" if text.startswith("unknown") else " (62 %)")


def in_order() -> list[tuple[int, str, int, int]]:
    return sorted(SEGMENTS, key=lambda each: each[2])


def test_a_part_keeps_the_times_of_its_source(timeline: Path) -> None:
    document = json.loads(timeline.read_text())
    document["source"]["duration_s"] = None
    document["analysed"] |= {"start_s": 60.0, "duration_s": 30.0}
    timeline.write_text(json.dumps(document))
    grid = textgrids.TextGrid(str(export(timeline, "textgrid")))
    assert {tier[-1].xmax for tier in grid.values()} == {90}


def test_webvtt_has_one_cue_per_segment(timeline: Path) -> None:
    captions = webvtt.read(str(export(timeline, "vtt"))).captions
    assert [it.text for it in captions] == [cue(owner, text) for owner, text, _, _ in in_order()]
    assert [it.start for it in captions] == ["00:00:00.000", "00:00:01.234", "00:00:01.500", "00:00:05.000"]


def test_srt_has_one_subtitle_per_segment(timeline: Path) -> None:
    subtitles = pysrt.open(str(export(timeline, "srt")), error_handling=pysrt.ERROR_RAISE)
    assert [(it.text, it.start.ordinal, it.end.ordinal) for it in subtitles] == [
        (cue(owner, text), start, end) for owner, text, start, end in in_order()
    ]


def test_boris_events_are_pairs_of_start_and_stop(timeline: Path) -> None:
    table = pd.read_csv(export(timeline, "boris"), sep="\t")
    assert set(table["Observation id"]) == {"talk.mp4"}
    assert table["Time"].is_monotonic_increasing
    running: dict[str, tuple[str, float]] = {}
    pairs = []
    columns = zip(table["Subject"], table["Behavior"], table["Behavior type"], table["Time"], strict=True)
    for subject, behavior, kind, time_s in columns:
        if kind == "START":
            assert subject not in running
            running[subject] = (behavior, time_s)
        else:
            started, start_s = running.pop(subject)
            assert started == behavior
            pairs.append((int(subject.split()[1]), behavior, round(1000 * start_s), round(1000 * time_s)))
    assert not running
    assert sorted(pairs) == sorted(SEGMENTS)


@pytest.mark.parametrize("export_format", EXPORTS)
def test_a_timeline_without_people_and_path_can_be_exported(export_format: str, timeline: Path) -> None:
    document = json.loads(timeline.read_text())
    document["people"], document["source"]["path"] = [], None
    timeline.write_text(json.dumps(document))
    assert "happy" not in export(timeline, export_format).read_text()


def test_an_existing_file_is_replaced_only_on_request(timeline: Path) -> None:
    path = export(timeline, "srt")
    path.write_text("old")
    with pytest.raises(OutputExists, match="--existing replace"):
        export(timeline, "srt")
    assert path.read_text() == "old"
    assert list(export_file(timeline, ["srt"], out=None, force=True)) == [path]
    assert path.read_text() != "old"


@pytest.mark.parametrize("content", ["", "[]", '{"format": "other"}', "\ud800"])
def test_a_file_that_is_no_timeline_is_an_error(content: str, timeline: Path) -> None:
    timeline.write_text(content, errors="surrogatepass")
    with pytest.raises(UnreadableSource, match="is not a timeline of fer-stream"):
        export(timeline, "eaf")


def test_an_unknown_version_and_a_missing_file_are_errors(timeline: Path) -> None:
    timeline.write_text(timeline.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(UnreadableSource, match="has version 9 of the format"):
        export(timeline, "eaf")
    with pytest.raises(SourceNotFound, match="does not exist"):
        export(timeline.with_name("absent.timeline.json"), "eaf")
