"""Plot of the timelines."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.draw import bgr
from fer_stream.outputs.plot import MAX_PEOPLE, TimelinePlot, format_tick, timeline_figure
from fer_stream.records import UNKNOWN, FileSummary, LabelledFrame, PersonSummary, Segment


@pytest.fixture
def series(frames: list[LabelledFrame]) -> ProbabilitySeries:
    series = ProbabilitySeries()
    series.add(frames)
    return series


def _texts(figure: Figure) -> list[str]:
    axes = [text.get_text() for axis in figure.axes for text in axis.texts]
    return [text.get_text() for text in figure.texts] + axes


def _pixels(figure: Figure) -> np.ndarray:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return np.asarray(cv2.imdecode(np.frombuffer(png.getvalue(), np.uint8), cv2.IMREAD_COLOR))


def test_output_is_a_png(frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path) -> None:
    output = TimelinePlot(tmp_path / "clip.timeline.png", ProbabilitySeries())
    output.write(frames)
    output.finish(summary)
    output.commit()
    assert output.path.read_bytes().startswith(b"\x89PNG")


def test_each_person_has_a_row_with_the_main_label(summary: FileSummary, series: ProbabilitySeries) -> None:
    texts = _texts(timeline_figure(summary, series))
    assert texts[0] == "clip.mp4"
    assert texts[1] == "2.0 s · 50 frames · 2 people"
    assert texts[2:] == ["Person 1", "happy 60 %", "Person 2", "sad 100 %"]


def test_bands_have_the_colours_of_the_labels_and_absence_is_blank(summary: FileSummary) -> None:
    person = PersonSummary(
        1,
        0.0,
        2.0,
        40,
        (Segment("clip@0", 1, "angry", 0, 0.5, 0.7), Segment("clip@0", 1, "sad", 1.5, 2.0, 0.7)),
        {"sad": 1.0},
    )
    image = _pixels(timeline_figure(replace(summary, people=(person,)), ProbabilitySeries()))
    width = image.shape[1]
    columns = {time_s: round(width * (0.1 + 0.875 * time_s / 2)) for time_s in (0.25, 1.03, 1.75)}
    row = int(np.flatnonzero((image[:, columns[0.25]] == bgr("angry")).all(axis=1))[5])
    assert tuple(image[row, columns[1.75]].tolist()) == bgr("sad")
    assert tuple(image[row, columns[1.03]].tolist()) == (255, 255, 255)


def test_unknown_is_hatched(summary: FileSummary) -> None:
    person = PersonSummary(1, 0.0, 2.0, 40, (Segment("clip@0", 1, UNKNOWN, 0, 2.0, 0.0),), {UNKNOWN: 1.0})
    image = _pixels(timeline_figure(replace(summary, people=(person,)), ProbabilitySeries()))
    band = image[135:170, 400:900]
    gray = (np.abs(band.astype(int) - bgr(UNKNOWN)) < 40).all(axis=2)
    assert 0.05 < gray.mean() < 0.7


def test_plot_without_people_has_a_message(summary: FileSummary) -> None:
    assert "No faces were tracked." in _texts(timeline_figure(replace(summary, people=()), ProbabilitySeries()))


def test_only_people_seen_longest_are_shown(summary: FileSummary) -> None:
    people = tuple(
        PersonSummary(number, 0.0, 2.0, number, (Segment("clip@0", number, "sad", 0, 2, 0.5),), {"sad": 1.0})
        for number in range(1, 41)
    )
    texts = _texts(timeline_figure(replace(summary, people=people), ProbabilitySeries()))
    assert f"the {MAX_PEOPLE} seen longest are shown" in texts[1]
    assert "Person 40" in texts
    assert "Person 1" not in texts


@pytest.mark.parametrize("name", ["$x$ & <b>.mp4", "会議.mp4", "a\nb.mp4", "caf\udce9.mp4"])
def test_any_file_name_is_drawn_without_a_warning(name: str, summary: FileSummary, series: ProbabilitySeries) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = _pixels(timeline_figure(replace(summary, source=replace(summary.source, name=name)), series))
    assert image.shape[1] == 1560


@pytest.mark.parametrize(
    ("time_s", "duration_s", "expected"),
    [(2.5, 10, "2.5 s"), (65, 600, "1:05"), (3725, 7200, "1:02:05"), (0, 7200, "0:00:00")],
)
def test_format_of_ticks(time_s: float, duration_s: float, expected: str) -> None:
    assert format_tick(time_s, duration_s) == expected


@pytest.mark.parametrize("duration_s", [0.0, 0.4, 7.0, 100.0, 8000.0, 1e6])
def test_time_axis_has_a_readable_number_of_ticks(duration_s: float, summary: FileSummary) -> None:
    figure = timeline_figure(replace(summary, duration_s=duration_s), ProbabilitySeries())
    assert 2 <= len(figure.axes[-1].get_xticks()) <= 60
