"""HTML report."""

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
from fer_stream.records import LABELS, FileSummary, LabelledFrame, PersonSummary, Segment


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text outside scripts."""

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
def series(frames: list[LabelledFrame]) -> ProbabilitySeries:
    series = ProbabilitySeries()
    series.add(frames)
    return series


def _chart_data(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert match
    data = json.loads(match[1])
    assert isinstance(data, dict)
    return data


def test_page_loads_nothing_from_the_network(summary: FileSummary, series: ProbabilitySeries) -> None:
    page = Page(report_page(summary, series, {}))
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert tag != "link"
        assert (attributes.get("href") or "#").startswith("#")
    policies = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policies
    assert "default-src 'none'" in (policies[0] or "")


def test_each_person_has_a_section_and_a_chart(summary: FileSummary, series: ProbabilitySeries) -> None:
    page = Page(report_page(summary, series, {}))
    charts = [div for div in page.all("div") if div.get("class") == "chart"]
    assert [chart["data-person"] for chart in charts] == ["1", "2"]
    assert charts[0]["aria-label"] == "Timeline of person 1: happy 60 %, unknown 40 % (undecided)"
    assert "Person 2" in page.text
    assert "happy for 60 % of the time (mean probability 0.70), unknown for 40 % (undecided)" in page.text
    assert "unknown: undecided" in page.text  # in the table of segments
    assert {"happy 60 %", "unknown 40 % (undecided)", "sad 100 %"} == {
        span["title"] for span in page.all("span") if "title" in span
    }
    assert len(page.all("h1")) == 1


def test_chart_data_are_those_of_the_run(summary: FileSummary, series: ProbabilitySeries) -> None:
    data = _chart_data(report_page(summary, series, {}))
    assert data["labels"] == list(LABELS)
    assert (data["start_ms"], data["end_ms"]) == (0, 2000)
    assert data["people"]["1"]["spans"] == {"happy": [[0, 1200]], "unknown": [[1200, 2000]]}
    assert set(data["people"]["1"]["label_at"]) == {"happy", "unknown: undecided"}
    second = data["people"]["2"]
    assert len(second["time_ms"]) == len(second["label_at"]) == len(second["probs"][0]) == 25
    assert set(second["label_at"]) == {"sad"}
    assert [column[0] for column in second["probs"]] == [0.05, 0.05, 0.7, 0.05, 0.05, 0.05, 0.05]


def test_probabilities_are_zero_during_an_absence(frames: list[LabelledFrame], summary: FileSummary) -> None:
    series = ProbabilitySeries(max_gap_s=0.1)
    series.add(frames)
    first = _chart_data(report_page(summary, series, {}))["people"]["1"]
    at = first["time_ms"].index(361)
    assert first["time_ms"][at - 1 : at + 3] == [360, 361, 599, 600]
    assert first["label_at"][at - 1 : at + 3] == ["happy", "absent", "absent", "happy"]
    assert [first["probs"][5][i] for i in range(at - 1, at + 3)] == [0.05, 0, 0, 0.05]


def test_notices_describe_errors_of_the_source(summary: FileSummary, series: ProbabilitySeries) -> None:
    text = Page(report_page(replace(summary, stopped="interrupted"), series, {})).text
    assert "Stopped early: interrupted" in text
    assert "2 packets could not be decoded (first: Invalid data found" in text
    assert "The source is truncated" in text
    assert "1 face appeared in one frame only and was not assigned to anyone." in text


def test_method_names_model_detector_and_settings(summary: FileSummary, series: ProbabilitySeries) -> None:
    text = Page(report_page(summary, series, {})).text
    assert "emotion-1, trained on FER-2013" in text
    assert "yunet-2023mar" in text
    assert "yunet.onnx" in text
    assert "/home/ada" not in text


MARKUP = '"><script>alert(1)<!-- <script>&.mp4'


def test_text_from_outside_is_escaped(summary: FileSummary, series: ProbabilitySeries) -> None:
    hostile = replace(
        summary,
        source=replace(summary.source, name=MARKUP, codec=MARKUP),
        stopped=MARKUP,
        detector=MARKUP,
        settings={"</script><script>": MARKUP},
        versions={MARKUP: MARKUP},
    )
    plain, escaped = (Page(report_page(each, series, {})) for each in (summary, hostile))
    assert escaped.text.count(MARKUP) >= 5
    count = len(plain.elements) + 1  # the notice about the early stop
    assert len(escaped.elements) == count


def test_page_without_thumbnails_has_no_images(summary: FileSummary, series: ProbabilitySeries) -> None:
    assert not Page(report_page(summary, series, {})).all("img")
    thumbnails = {2: np.zeros((48, 48), np.uint8)}
    (image,) = Page(report_page(summary, series, thumbnails)).all("img")
    assert image["alt"] == "Face of person 2"
    assert (image["src"] or "").startswith("data:image/png;base64,iVBOR")


def test_thumbnails_added_during_the_run_are_shown(summary: FileSummary, tmp_path: Path) -> None:
    thumbnails: dict[int, Any] = {}
    output = Report(tmp_path / "clip.report.html", ProbabilitySeries(), thumbnails=thumbnails)
    thumbnails[1] = np.zeros((48, 48), np.uint8)
    output.finish(summary)
    output.commit()
    assert 'alt="Face of person 1"' in output.path.read_text("utf-8")


def test_page_without_people_has_a_message(summary: FileSummary) -> None:
    page = Page(report_page(replace(summary, people=()), ProbabilitySeries(), {}))
    assert "No faces were tracked." in page.text
    assert not [div for div in page.all("div") if div.get("class") == "chart"]


def test_only_people_seen_longest_have_charts(summary: FileSummary) -> None:
    people = tuple(
        PersonSummary(number, 0.0, 2.0, number, (Segment("clip@0", number, "sad", 0, 2, 0.5),), {"sad": 1.0})
        for number in range(1, 101)
    )
    page = Page(report_page(replace(summary, people=people), ProbabilitySeries(), {}))
    charts = [div for div in page.all("div") if div.get("class") == "chart"]
    assert len(charts) == MAX_CHARTS
    assert len(page.all("tr")) == 1 + 100 + 2 * MAX_CHARTS
    assert f"The {MAX_CHARTS} people seen longest" in page.text
