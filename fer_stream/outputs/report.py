"""NAME.report.html: an interactive page that works offline (plotly)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path, PurePath
from string import Template
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from plotly.offline import get_plotlyjs

from fer_stream.formatting import (
    format_duration,
    format_label,
    format_labels,
    format_percent,
    format_shares,
    format_time,
    pluralize,
)
from fer_stream.outputs.atomic_file import FileOutput
from fer_stream.outputs.downsample import Points, ProbabilitySeries
from fer_stream.outputs.draw import COLOURS
from fer_stream.outputs.timeline_json import timeline_document
from fer_stream.records import LABELS, U8, UNKNOWN, FileSummary, LabelledFrame, PersonSummary, Segment

if TYPE_CHECKING:
    from fer_stream.outputs.registry import OutputContext

MAX_CHARTS = 60
"""Maximum number of charts; more make the page slow. The people seen longest get one."""

_MAX_ROWS = 300
"""Maximum number of segments in the table of a person; timeline.json contains all."""


class Report(FileOutput):
    """NAME.report.html: a chart, shares and segments per person, and how the result was produced.

    `thumbnails` maps each person to a face crop, uint8 (48, 48), and is read by `finish`.
    """

    def __init__(
        self,
        path: Path,
        series: ProbabilitySeries,
        *,
        thumbnails: Mapping[int, U8] | None = None,
        force: bool = False,
    ) -> None:
        super().__init__(path, force=force)
        self._series = series
        self._thumbnails = {} if thumbnails is None else thumbnails

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Add the probabilities of `frames` to the series."""
        self._series.add(frames)

    def finish(self, summary: FileSummary) -> None:
        """Write the page."""
        # Python reads a file name that is not valid UTF-8 as lone surrogates.
        self._output.write([report_page(summary, self._series, self._thumbnails).encode("utf-8", "replace")])


def create(path: Path, context: OutputContext, *, thumbnails: bool) -> Report:
    """Create the report of a file. Faces are included only with `thumbnails`."""
    faces = context.thumbnails if thumbnails else None
    return Report(path, context.series, thumbnails=faces, force=context.force)


def report_page(summary: FileSummary, series: ProbabilitySeries, thumbnails: Mapping[int, U8]) -> str:
    """Return the page. Every text from outside the program is escaped."""
    charted = sorted(summary.people, key=lambda person: (-person.frames, person.person_id))[:MAX_CHARTS]
    charted.sort(key=lambda person: person.person_id)
    return Template(_asset("report.html")).substitute(
        title=escape(PurePath(summary.source.name).name),
        css=_asset("report.css"),
        facts="".join(f"<li>{escape(fact)}</li>" for fact in _facts(summary)),
        notices="".join(f'<p class="note" role="note">{escape(note)}</p>' for note in _notices(summary)),
        legend="".join(f"<li>{_swatch(label)}{label}</li>" for label in COLOURS),
        overview=_overview(summary, {person.person_id for person in charted}),
        people="".join(_person(person, thumbnails.get(person.person_id)) for person in charted),
        method=_method(summary),
        data=_json_for_script(_chart_data(summary, charted, series)),
        plotly=_script_for_html(get_plotlyjs()),
        js=_asset("report.js"),
    )


# Sections of the page


def _facts(summary: FileSummary) -> list[str]:
    source = summary.source
    facts = [
        format_duration(summary.duration_s),
        pluralize(summary.frames, "frame") + " analysed",
        f"{source.width} × {source.height} px",
        source.codec,
        pluralize(len(summary.people), "person", "people"),
    ]
    return facts if source.fps is None else [*facts[:3], f"{source.fps:.4g} fps", *facts[3:]]


def _notices(summary: FileSummary) -> list[str]:
    notices = []
    if summary.stopped is not None:
        notices.append(f"Stopped early: {summary.stopped}. The results up to that point are complete.")
    errors = summary.decode_errors
    if errors.packets:
        reason = f" (first: {errors.reason})" if errors.reason else ""
        notices.append(f"The source is damaged: {pluralize(errors.packets, 'packet')} could not be decoded{reason}.")
    if errors.truncated:
        notices.append("The source is truncated: it ends before its declared length.")
    return notices


def _overview(summary: FileSummary, charted: set[int]) -> str:
    if not summary.people:
        return f"<p>No faces were tracked.{_unconfirmed(summary)}</p>"
    rows = "".join(_overview_row(person, person.person_id in charted) for person in summary.people)
    fewer = len(charted) < len(summary.people)
    note = f" The {len(charted)} people seen longest have a chart below." if fewer else ""
    caption = note + _unconfirmed(summary)
    return (
        '<table><thead><tr><th scope="col">Person</th><th scope="col" class="optional">From</th>'
        '<th scope="col" class="optional">To</th><th scope="col" class="optional number">Frames</th>'
        '<th scope="col">Main label</th><th scope="col">Shares of the time</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>" + (f'<p class="caption">{caption}</p>' if caption else "")
    )


def _unconfirmed(summary: FileSummary) -> str:
    faces = summary.unconfirmed_faces
    if not faces:
        return ""
    verb = "was" if faces == 1 else "were"
    return f" {pluralize(faces, 'face')} appeared in one frame only and {verb} not assigned to anyone."


def _overview_row(person: PersonSummary, charted: bool) -> str:
    number = f'<a href="#person-{person.person_id}">{person.person_id}</a>' if charted else str(person.person_id)
    label, share = _sorted_shares(person)[0] if person.shares else (UNKNOWN, 1.0)
    main_label = format_shares({label: share}, person.unknown_shares)
    first, last = format_time(person.first_s), format_time(person.last_s)
    return (
        f'<tr><td>{number}</td><td class="optional">{first}</td><td class="optional">{last}</td>'
        f'<td class="optional number">{person.frames:,}</td><td>{main_label}</td>'
        f'<td class="wide">{_shares_bar(person)}</td></tr>'
    )


def _person(person: PersonSummary, thumbnail: U8 | None) -> str:
    name = f"person-{person.person_id}"
    image = "" if thumbnail is None else f'<img src="{_data_url(thumbnail)}" alt="Face of person {person.person_id}">'
    shares = format_shares(person.shares, person.unknown_shares)
    span = f"{format_time(person.first_s)} to {format_time(person.last_s)}"
    return (
        f'<section id="{name}" aria-labelledby="{name}-name"><div class="person">{image}<div>'
        f'<h2 id="{name}-name">Person {person.person_id}</h2>'
        f"<p>{span}, {pluralize(person.frames, 'frame')}</p></div></div>"
        f'<div class="chart" data-person="{person.person_id}" role="img" '
        f'aria-label="Timeline of person {person.person_id}: {shares}"></div>'
        f'{_shares_bar(person)}<p class="caption">{format_labels(person)}</p>{_segments(person)}</section>'
    )


def _sorted_shares(person: PersonSummary) -> list[tuple[str, float]]:
    return sorted(person.shares.items(), key=lambda item: -item[1])


def _shares_bar(person: PersonSummary) -> str:
    parts = "".join(
        f'<span class="{_class_and_style(label)[0]}" style="width:{100 * share:.2f}%;{_class_and_style(label)[1]}" '
        f'title="{format_shares({label: share}, person.unknown_shares)}"></span>'
        for label, share in _sorted_shares(person)
    )
    return f'<div class="shares" aria-hidden="true">{parts}</div>'


def _swatch(label: str) -> str:
    css_class, style = _class_and_style(label)
    return f'<span class="swatch {css_class}" style="{style}"></span>'


def _class_and_style(label: str) -> tuple[str, str]:
    """Return CSS class and inline style of an area in the colour of `label`."""
    return ("unknown", "") if label == UNKNOWN else ("", f"background:{COLOURS[label]}")


def _segments(person: PersonSummary) -> str:
    rows = "".join(
        f"<tr><td>{_swatch(it.label)} {format_label(it.label, it.unknown_reason)}</td>"
        f"<td>{format_time(it.start_s)}</td><td>{format_time(it.end_s)}</td>"
        f'<td class="number">{"" if it.label == UNKNOWN else format_percent(it.mean_prob)}</td></tr>'
        for it in person.segments[:_MAX_ROWS]
    )
    omitted = len(person.segments) - _MAX_ROWS
    more = f'<p class="caption">{pluralize(omitted, "more segment")} in timeline.json.</p>' if omitted > 0 else ""
    count = pluralize(len(person.segments), "segment")
    return (
        f'<details><summary>{count}</summary><div class="scroll"><table><thead><tr>'
        '<th scope="col">Label</th><th scope="col">From</th><th scope="col">To</th>'
        f'<th scope="col" class="number">Mean probability</th></tr></thead><tbody>{rows}</tbody></table>{more}'
        "</div></details>"
    )


def _method(summary: FileSummary) -> str:
    model = summary.model
    facts = {
        "Model": f"{model.model_id}, trained on {model.dataset}",
        "Weights": f"SHA-256 {model.sha256}",
        "Backend": summary.backend,
        "Face detector": summary.detector,
        "Versions": ", ".join(f"{name} {version}" for name, version in summary.versions.items()),
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    settings = json.dumps(timeline_document(summary)["settings"], indent=2, ensure_ascii=False)
    return f"<dl>{items}</dl><details><summary>Settings</summary><pre>{escape(settings)}</pre></details>"


# Data of the charts


def _chart_data(summary: FileSummary, people: Sequence[PersonSummary], series: ProbabilitySeries) -> dict[str, Any]:
    start_s = summary.source.start_s
    end_s = max([start_s + summary.duration_s, *(person.last_s for person in people)])
    return {
        "labels": LABELS,
        "colours": COLOURS,
        "start_ms": round(1000 * start_s),
        "end_ms": round(1000 * end_s),
        "people": {person.person_id: _chart(person, series.points(person.person_id)) for person in people},
    }


def _chart(person: PersonSummary, points: Points) -> dict[str, Any]:
    points = _zero_in_gaps(points)
    spans: dict[str, list[list[int]]] = {}
    for segment in person.segments:
        spans.setdefault(segment.label, []).append([round(1000 * segment.start_s), round(1000 * segment.end_s)])
    return {
        "time_ms": np.round(1000 * points.time_s).astype(int).tolist(),
        "probs": [[round(prob, 3) for prob in column] for column in points.probs.T.tolist()],
        "label_at": _labels_at(person.segments, points),
        "spans": spans,
    }


def _zero_in_gaps(points: Points) -> Points:
    """Add two points with zero probabilities to each gap, because stacks of Plotly cannot have gaps."""
    at = np.flatnonzero(points.after_gap)
    edges = np.stack([points.time_s[at - 1] + 0.001, points.time_s[at] - 0.001], axis=1).ravel()
    twice = np.repeat(at, 2)
    return Points(
        np.insert(points.time_s, twice, edges),
        np.insert(points.probs, twice, 0, axis=0),
        np.insert(points.after_gap, twice, False),
    )


def _labels_at(segments: Sequence[Segment], points: Points) -> list[str]:
    """Return the label at each point, with the reason if it is `unknown`; `absent` in gaps."""
    starts = np.array([segment.start_s for segment in segments])
    at = np.searchsorted(starts, points.time_s, side="right") - 1
    at[~points.probs.any(axis=1)] = -1
    labels = [format_label(segment.label, segment.unknown_reason) for segment in segments]
    return [labels[index] if index >= 0 else "absent" for index in at.tolist()]


def _data_url(thumbnail: U8) -> str:
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", thumbnail)[1].tobytes()).decode("ascii")


def _json_for_script(data: dict[str, Any]) -> str:
    """Return `data` as JSON that cannot end the script element that contains it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _script_for_html(code: str) -> str:
    return code.replace("</script", "<\\/script")


@cache
def _asset(name: str) -> str:
    return files("fer_stream.outputs").joinpath(name).read_text("utf-8")
