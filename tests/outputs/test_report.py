from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.report import MAX_CHARTS, Report, report_page
from fer_stream.records import LABELS, Segment, FileSummary, LabelledFrame, PersonSummary


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def trace(frames: list[LabelledFrame]) -> ProbabilitySeries:
    trace = ProbabilitySeries()
    trace.add(frames)
    return trace


def _data(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert match
    data = json.loads(match[1])
    assert isinstance(data, dict)
    return data


def test_the_page_needs_nothing_from_elsewhere(summary: FileSummary, trace: ProbabilitySeries) -> None:
    page = Page(report_page(summary, trace, {}))
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert (attributes.get("href") or "#").startswith("#")
    policies = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policies
    assert "default-src 'none'" in (policies[0] or "")


def test_a_section_and_a_chart_per_person(summary: FileSummary, trace: ProbabilitySeries) -> None:
    page = Page(report_page(summary, trace, {}))
    charts = [div for div in page.all("div") if div.get("class") == "chart"]
    assert [chart["data-person"] for chart in charts] == ["1", "2"]
    assert charts[0]["aria-label"] == "Timeline of person 1: happy 60%, unknown 40%"
    assert "Person 2" in page.text
    assert len(page.all("h1")) == 1


def test_the_data_are_those_of_the_job(summary: FileSummary, trace: ProbabilitySeries) -> None:
    data = _data(report_page(summary, trace, {}))
    assert data["labels"] == list(LABELS)
    assert data["duration_ms"] == 2000
    assert data["people"]["1"]["spans"] == {"happy": [[0, 1200]], "unknown": [[1200, 2000]]}
    second = data["people"]["2"]
    assert len(second["time_ms"]) == len(second["told"]) == len(second["probs"][0]) == 25
    assert set(second["told"]) == {"sad"}
    assert [column[0] for column in second["probs"]] == [0.05, 0.05, 0.7, 0.05, 0.05, 0.05, 0.05]


def test_an_absence_falls_to_zero(frames: list[LabelledFrame], summary: FileSummary) -> None:
    trace = ProbabilitySeries(max_gap_s=0.1)
    trace.add(frames)
    first = _data(report_page(summary, trace, {}))["people"]["1"]
    at = first["time_ms"].index(361)
    assert first["time_ms"][at - 1 : at + 3] == [360, 361, 599, 600]
    assert first["told"][at - 1 : at + 3] == ["happy", "away", "away", "happy"]
    assert [first["probs"][5][i] for i in range(at - 1, at + 3)] == [0.05, 0, 0, 0.05]


def test_what_went_wrong_is_said(summary: FileSummary, trace: ProbabilitySeries) -> None:
    text = Page(report_page(replace(summary, stopped="interrupted"), trace, {})).text
    assert "Stopped early: interrupted" in text
    assert "2 packets could not be read (first: Invalid data found" in text
    assert "cut off" in text
    assert "1 face seen in a single frame only" in text


def test_how_it_came_about_is_said(summary: FileSummary, trace: ProbabilitySeries) -> None:
    text = Page(report_page(summary, trace, {})).text
    assert "emotion-1, trained on FER-2013" in text
    assert "yunet-2023mar" in text
    assert "yunet.onnx" in text
    assert "/home/ada" not in text


NASTY = '"><script>alert(1)<!-- <script>&.mp4'


def test_nothing_from_outside_becomes_markup(summary: FileSummary, trace: ProbabilitySeries) -> None:
    evil = replace(
        summary,
        source=replace(summary.source, name=NASTY, codec=NASTY),
        stopped=NASTY,
        detector=NASTY,
        settings={"</script><script>": NASTY},
        versions={NASTY: NASTY},
    )
    plain, attacked = (Page(report_page(job, trace, {})) for job in (summary, evil))
    assert attacked.text.count(NASTY) >= 5
    count = len(plain.elements) + 1  # the notice that it was stopped
    assert len(attacked.elements) == count


def test_thumbnails_are_off_unless_given(summary: FileSummary, trace: ProbabilitySeries) -> None:
    assert not Page(report_page(summary, trace, {})).all("img")
    thumbnails = {2: np.zeros((48, 48), np.uint8)}
    (image,) = Page(report_page(summary, trace, thumbnails)).all("img")
    assert image["alt"] == "Face of person 2"
    assert (image["src"] or "").startswith("data:image/png;base64,iVBOR")


def test_thumbnails_that_come_while_the_job_runs_are_shown(summary: FileSummary, tmp_path: Path) -> None:
    thumbnails: dict[int, Any] = {}
    writer = Report(tmp_path / "clip.report.html", ProbabilitySeries(), thumbnails=thumbnails)
    thumbnails[1] = np.zeros((48, 48), np.uint8)
    writer.finish(summary)
    assert 'alt="Face of person 1"' in writer.path.read_text("utf-8")


def test_nobody_is_said_in_words(summary: FileSummary) -> None:
    page = Page(report_page(replace(summary, people=()), ProbabilitySeries(), {}))
    assert "No face was followed." in page.text
    assert not [div for div in page.all("div") if div.get("class") == "chart"]


def test_of_a_crowd_those_seen_longest_have_charts(summary: FileSummary) -> None:
    crowd = tuple(
        PersonSummary(number, 0.0, 2.0, number, (Segment("clip@0", number, "sad", 0, 2, 0.5),), {"sad": 1.0})
        for number in range(1, 101)
    )
    page = Page(report_page(replace(summary, people=crowd), ProbabilitySeries(), {}))
    charts = [div for div in page.all("div") if div.get("class") == "chart"]
    assert len(charts) == MAX_CHARTS
    assert len(page.all("tr")) == 1 + 100 + 2 * MAX_CHARTS
    assert f"The {MAX_CHARTS} people who were seen longest" in page.text
