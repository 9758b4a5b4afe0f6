"""NAME.timeline.png: the timelines of all people as an image (matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from fer_stream.formatting import format_duration, format_percent, pluralize
from fer_stream.outputs.atomic_file import FileOutput
from fer_stream.outputs.draw import COLOURS
from fer_stream.records import F64, LABELS, UNKNOWN, FileSummary, LabelledFrame, PersonSummary

if TYPE_CHECKING:
    from fer_stream.outputs.downsample import Points, ProbabilitySeries
    from fer_stream.outputs.registry import OutputContext

MAX_PEOPLE = 24
"""Maximum number of rows of a plot that is readable; the people seen longest are shown."""

_DPI = 130
_WIDTH_IN, _HEADER_IN, _FOOTER_IN = 12.0, 0.95, 0.95
# Width of the column of names, as a fraction of the total width.
_LEFT = 0.1

# Bottom and height of the band of labels above the stack, which has the range 0..1.
_BAND = (1.08, 0.36)

_HATCH = "//////"
_HATCHED: dict[str, Any] = {"facecolor": "white", "edgecolor": COLOURS[UNKNOWN], "linewidth": 0}

# Segments without an absence between them touch; the tolerance covers rounding.
_TOLERANCE_S = 0.001

_TEXT, _MUTED, _GRID = "#1f2328", "#656d76", "#d8dee4"

_MAX_TICKS = 10
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)


class TimelinePlot(FileOutput):
    """NAME.timeline.png, drawn when the run is complete."""

    def __init__(self, path: Path, series: ProbabilitySeries, *, force: bool = False) -> None:
        super().__init__(path, force=force)
        self._series = series

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Add the probabilities of `frames` to the series."""
        self._series.add(frames)

    def finish(self, summary: FileSummary) -> None:
        """Draw the plot and write it."""
        png = io.BytesIO()
        timeline_figure(summary, self._series).savefig(png, format="png")
        self._output.write([png.getvalue()])


def create(path: Path, context: OutputContext) -> TimelinePlot:
    """Create the plot of a file."""
    return TimelinePlot(path, context.series, force=context.force)


def timeline_figure(summary: FileSummary, series: ProbabilitySeries) -> Figure:
    """Draw per person a band of labels above the stacked smoothed probabilities, with a common time axis."""
    people = sorted(summary.people, key=lambda person: (-person.frames, person.person_id))[:MAX_PEOPLE]
    people.sort(key=lambda person: person.person_id)
    rows = max(1, len(people))
    row_in = float(np.clip(7.5 / rows, 0.62, 1.9))
    height_in = _HEADER_IN + rows * row_in + _FOOTER_IN
    figure = Figure((_WIDTH_IN, height_in), dpi=_DPI, facecolor="white")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    figure.subplots_adjust(
        left=_LEFT, right=0.975, top=1 - _HEADER_IN / height_in, bottom=_FOOTER_IN / height_in, hspace=0.22
    )
    for axis, person in zip(axes, people, strict=False):
        _draw_person(axis, person, series.points(person.person_id))
    if not people:
        _draw_empty(axes[0])
    _draw_time_axis(axes, summary.source.start_s, max(summary.duration_s, 0.1))
    _draw_header(figure, summary, len(people), height_in)
    _draw_legend(figure, height_in)
    return figure


def _draw_person(axis: Axes, person: PersonSummary, points: Points) -> None:
    time_s, probs = _with_gaps(points)
    axis.stackplot(time_s, probs.T, colors=[COLOURS[label] for label in LABELS], alpha=0.5, linewidth=0)
    # Hatching is slow, so it is drawn once below all labels and visible where none of them covers it.
    axis.broken_barh(
        _present(person), _BAND, facecolor="white", edgecolor=COLOURS[UNKNOWN], hatch=_HATCH, linewidth=0
    )
    for label in LABELS:
        spans = [(it.start_s, it.end_s - it.start_s) for it in person.segments if it.label == label]
        axis.broken_barh(spans, _BAND, facecolor=COLOURS[label], linewidth=0)
    axis.set_ylim(0, sum(_BAND))
    axis.set_yticks([])
    _row_label(axis, f"Person {person.person_id}", va="bottom", color=_TEXT, fontsize=11, fontweight="bold")
    _row_label(axis, _main_label(person), va="top", color=_MUTED, fontsize=8.5)


def _present(person: PersonSummary) -> list[tuple[float, float]]:
    """Return start and length of each time range without an absence, which is a run of touching segments."""
    runs: list[tuple[float, float]] = []
    for segment in person.segments:
        if runs and segment.start_s - sum(runs[-1]) < _TOLERANCE_S:
            runs[-1] = runs[-1][0], segment.end_s - runs[-1][0]
        else:
            runs.append((segment.start_s, segment.end_s - segment.start_s))
    return runs


def _row_label(axis: Axes, text: str, **style: Any) -> None:
    axis.text(-0.012, 0.48, text, transform=axis.transAxes, ha="right", **style)


def _with_gaps(points: Points) -> tuple[F64, F64]:
    """Return times and probabilities with a row of NaN in each gap, which interrupts the stack."""
    at = np.flatnonzero(points.after_gap)
    return np.insert(points.time_s, at, np.nan), np.insert(points.probs.astype(np.float64), at, np.nan, axis=0)


def _main_label(person: PersonSummary) -> str:
    label = max(person.shares, key=lambda label: person.shares[label], default=UNKNOWN)
    return f"{label} {format_percent(person.shares.get(label, 0.0))}"


def _draw_empty(axis: Axes) -> None:
    axis.set_yticks([])
    axis.text(0.5, 0.5, "No faces were tracked.", transform=axis.transAxes, ha="center", va="center", color=_MUTED)


def _draw_time_axis(axes: NDArray[np.object_], start_s: float, duration_s: float) -> None:
    for axis in axes:
        axis.spines[:].set_visible(False)
        axis.tick_params(bottom=False, colors=_MUTED)
        axis.grid(axis="x", color=_GRID, linewidth=0.8)
        axis.set_axisbelow(True)
    last = axes[-1]
    last.set_xlim(start_s, start_s + duration_s)
    step_s = next((step for step in _TICKS_S if duration_s / step <= _MAX_TICKS), _TICKS_S[-1])
    last.xaxis.set_major_locator(MultipleLocator(step_s))
    last.xaxis.set_major_formatter(FuncFormatter(lambda time_s, _: format_tick(time_s, start_s + duration_s)))


def format_tick(time_s: float, end_s: float) -> str:
    """Format a time on an axis that ends at `end_s`: `2.5 s`, `1:05` or `1:02:05`."""
    if end_s < 60:
        return f"{time_s:g} s"
    minutes, seconds = divmod(round(time_s), 60)
    if end_s < 3600:
        return f"{minutes}:{seconds:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _draw_header(figure: Figure, summary: FileSummary, shown: int, height_in: float) -> None:
    facts = [
        format_duration(summary.duration_s),
        pluralize(summary.frames, "frame"),
        pluralize(len(summary.people), "person", "people"),
    ]
    if shown < len(summary.people):
        facts.append(f"the {shown} seen longest are shown")
    if summary.stopped is not None:
        facts.append(f"stopped early: {summary.stopped}")
    name = PurePath(summary.source.name).name
    _header_line(figure, 1 - 0.42 / height_in, name, color=_TEXT, fontsize=15, fontweight="bold")
    _header_line(figure, 1 - 0.68 / height_in, " · ".join(facts), color=_MUTED, fontsize=9.5)


def _header_line(figure: Figure, y: float, text: str, **style: Any) -> None:
    # matplotlib would parse a file name with two dollar signs as a formula.
    figure.text(_LEFT, y, _printable(text), parse_math=False, **style)


def _draw_legend(figure: Figure, height_in: float) -> None:
    swatches = [Patch(facecolor=COLOURS[label], label=label) for label in LABELS]
    swatches.append(Patch(label=UNKNOWN, hatch=_HATCH, **_HATCHED))
    figure.legend(
        handles=swatches, ncols=len(swatches), loc="lower center", bbox_to_anchor=(0.53, 0.1 / height_in),
        frameon=False, fontsize=9.5, labelcolor=_TEXT, handlelength=1.4, handleheight=1.0, columnspacing=1.6,
    )  # fmt: skip


def _printable(text: str) -> str:
    """Return `text` with a box for each character that the font lacks; matplotlib would log a warning for it."""
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    return "".join(letter if ord(letter) in glyphs else "□" for letter in text)
