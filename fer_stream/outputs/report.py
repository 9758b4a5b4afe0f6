"""NAME.report.html: one page that needs no network (plotly)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path, PurePath
from string import Template
from typing import Any

import cv2
import numpy as np
from plotly.offline import get_plotlyjs

from fer_stream.formatting import format_duration, format_percent, format_time, pluralize
from fer_stream.outputs.atomic_file import AtomicFile
from fer_stream.outputs.downsample import Points, ProbabilitySeries
from fer_stream.outputs.draw import COLOURS
from fer_stream.outputs.tables import timeline_document
from fer_stream.records import LABELS, U8, UNKNOWN, FileSummary, LabelledFrame, PersonSummary, Segment

MAX_CHARTS = 60
"""More charts than this make a page slow; those who were seen longest get one."""

_MAX_ROWS = 300
"""Segments that a person's table shows; the timeline file holds them all."""


class Report:
    """NAME.report.html: per person a timeline to look into, the shares, and how it all came about.

    `thumbnails` maps a person to a face crop, uint8 (48, 48), and is read when the report is finished.
    """

    def __init__(
        self, path: Path, trace: ProbabilitySeries, *, thumbnails: Mapping[int, U8] | None = None, force: bool = False
    ) -> None:
        self.path = path
        self._trace = trace
        self._thumbnails = {} if thumbnails is None else thumbnails
        self._output = AtomicFile(path, force=force)

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Take note of the probabilities."""
        self._trace.add(frames)

    def finish(self, summary: FileSummary) -> None:
        """Write the page and put it in place."""
        # A file name that is no valid UTF-8 reaches Python as lone surrogates.
        self._output.write([report_page(summary, self._trace, self._thumbnails).encode("utf-8", "replace")])

    def discard(self) -> None:
        """Leave nothing behind."""
        self._output.discard()


def report_page(summary: FileSummary, trace: ProbabilitySeries, thumbnails: Mapping[int, U8]) -> str:
    """The whole page. Every text that comes from outside is escaped."""
    charted = sorted(summary.people, key=lambda person: (-person.frames, person.person_id))[:MAX_CHARTS]
    charted.sort(key=lambda person: person.person_id)
    return Template(_part("report.html")).substitute(
        title=escape(PurePath(summary.source.name).name),
        css=_part("report.css"),
        facts="".join(f"<li>{escape(fact)}</li>" for fact in _facts(summary)),
        notices="".join(f'<p class="note" role="note">{escape(note)}</p>' for note in _notices(summary)),
        legend="".join(f"<li>{_swatch(label)}{label}</li>" for label in COLOURS),
        overview=_overview(summary, {person.person_id for person in charted}),
        people="".join(_person(person, thumbnails.get(person.person_id)) for person in charted),
        method=_method(summary),
        data=_for_script(_data(summary, charted, trace)),
        plotly=_in_script(get_plotlyjs()),
        js=_part("report.js"),
    )


# The page, part by part


def _facts(summary: FileSummary) -> list[str]:
    source = summary.source
    facts = [
        format_duration(summary.duration_s),
        pluralize(summary.frames, "frame") + " looked at",
        f"{source.width} × {source.height} px",
        source.codec,
        pluralize(len(summary.people), "person", "people"),
    ]
    return facts if source.fps is None else [*facts[:3], f"{source.fps:.4g} fps", *facts[3:]]


def _notices(summary: FileSummary) -> list[str]:
    notices = []
    if summary.stopped is not None:
        notices.append(f"Stopped early: {summary.stopped}. What follows holds up to there.")
    if summary.decode_errors.packets:
        reason = f" (first: {summary.decode_errors.reason})" if summary.decode_errors.reason else ""
        notices.append(
            f"The source is damaged: {pluralize(summary.decode_errors.packets, 'packet')} could not be read{reason}."
        )
    if summary.decode_errors.truncated:
        notices.append("The source ends before it says it does: it was cut off.")
    return notices


def _overview(summary: FileSummary, charted: set[int]) -> str:
    if not summary.people:
        return f"<p>No face was followed.{_unconfirmed(summary)}</p>"
    rows = "".join(_overview_row(person, person.person_id in charted) for person in summary.people)
    fewer = len(charted) < len(summary.people)
    note = f" The {len(charted)} people who were seen longest have a chart below." if fewer else ""
    told = note + _unconfirmed(summary)
    return (
        '<table><thead><tr><th scope="col">Person</th><th scope="col" class="rare">From</th>'
        '<th scope="col" class="rare">To</th><th scope="col" class="rare number">Frames</th>'
        f'<th scope="col">Mostly</th><th scope="col">Shares</th></tr></thead><tbody>{rows}</tbody></table>'
        + (f'<p class="told">{told}</p>' if told else "")
    )


def _unconfirmed(summary: FileSummary) -> str:
    if not summary.unconfirmed_faces:
        return ""
    return f" {pluralize(summary.unconfirmed_faces, 'face')} seen in a single frame only, and counted to nobody."


def _overview_row(person: PersonSummary, charted: bool) -> str:
    number = f'<a href="#person-{person.person_id}">{person.person_id}</a>' if charted else str(person.person_id)
    label, share = _shares(person)[0] if person.shares else (UNKNOWN, 1.0)
    return (
        f"<tr><td>{number}</td>"
        f'<td class="rare">{format_time(person.first_s)}</td><td class="rare">{format_time(person.last_s)}</td>'
        f'<td class="rare number">{person.frames:,}</td><td>{label} {format_percent(share)}</td>'
        f'<td class="wide">{_shares_bar(person)}</td></tr>'
    )


def _person(person: PersonSummary, thumbnail: U8 | None) -> str:
    name = f"person-{person.person_id}"
    picture = "" if thumbnail is None else f'<img src="{_png(thumbnail)}" alt="Face of person {person.person_id}">'
    told = ", ".join(f"{label} {format_percent(share)}" for label, share in _shares(person))
    return (
        f'<section id="{name}" aria-labelledby="{name}-name"><div class="person">{picture}<div>'
        f'<h2 id="{name}-name">Person {person.person_id}</h2>'
        f"<p>{format_time(person.first_s)} to {format_time(person.last_s)}, {pluralize(person.frames, 'frame')}</p></div></div>"
        f'<div class="chart" data-person="{person.person_id}" role="img" '
        f'aria-label="Timeline of person {person.person_id}: {told}"></div>'
        f'{_shares_bar(person)}<p class="told">{told}</p>{_segments(person)}</section>'
    )


def _shares(person: PersonSummary) -> list[tuple[str, float]]:
    return sorted(person.shares.items(), key=lambda item: -item[1])


def _shares_bar(person: PersonSummary) -> str:
    parts = "".join(
        f'<span class="{_look(label)[0]}" style="width:{100 * share:.2f}%;{_look(label)[1]}" '
        f'title="{label} {format_percent(share)}"></span>'
        for label, share in _shares(person)
    )
    return f'<div class="shares" aria-hidden="true">{parts}</div>'


def _swatch(label: str) -> str:
    kind, style = _look(label)
    return f'<span class="swatch {kind}" style="{style}"></span>'


def _look(label: str) -> tuple[str, str]:
    """CSS class and style of an area of `label`."""
    return ("unknown", "") if label == UNKNOWN else ("", f"background:{COLOURS[label]}")


def _segments(person: PersonSummary) -> str:
    rows = "".join(
        f"<tr><td>{_swatch(it.label)} {it.label}</td><td>{format_time(it.start_s)}</td><td>{format_time(it.end_s)}</td>"
        f'<td class="number">{"" if it.label == UNKNOWN else format_percent(it.mean_prob)}</td></tr>'
        for it in person.segments[:_MAX_ROWS]
    )
    left_out = len(person.segments) - _MAX_ROWS
    more = f'<p class="told">{pluralize(left_out, "more segment")} in the timeline file.</p>' if left_out > 0 else ""
    return (
        f'<details><summary>{pluralize(len(person.segments), "segment")}</summary><div class="scroll"><table><thead><tr>'
        '<th scope="col">Label</th><th scope="col">From</th><th scope="col">To</th>'
        f'<th scope="col" class="number">Mean probability</th></tr></thead><tbody>{rows}</tbody></table>{more}'
        "</div></details>"
    )


def _method(summary: FileSummary) -> str:
    model = summary.model
    facts = {
        "Model": f"{model.model_id}, trained on {model.dataset}",
        "Weights": f"SHA-256 {model.sha256}",
        "Faces found by": summary.detector,
        "Versions": ", ".join(f"{name} {version}" for name, version in summary.versions.items()),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    settings = json.dumps(timeline_document(summary)["settings"], indent=2, ensure_ascii=False)
    return f"<dl>{listed}</dl><details><summary>Settings</summary><pre>{escape(settings)}</pre></details>"


# What the script of the page draws


def _data(summary: FileSummary, people: Sequence[PersonSummary], trace: ProbabilitySeries) -> dict[str, Any]:
    last_s = max([summary.duration_s, *(person.last_s for person in people)])
    return {
        "labels": LABELS,
        "colours": COLOURS,
        "duration_ms": round(1000 * last_s),
        "people": {person.person_id: _chart(person, trace.points(person.person_id)) for person in people},
    }


def _chart(person: PersonSummary, points: Points) -> dict[str, Any]:
    points = _fallen_to_zero(points)
    spans: dict[str, list[list[int]]] = {}
    for segment in person.segments:
        spans.setdefault(segment.label, []).append([round(1000 * segment.start_s), round(1000 * segment.end_s)])
    return {
        "time_ms": np.round(1000 * points.time_s).astype(int).tolist(),
        "probs": [[round(prob, 3) for prob in column] for column in points.probs.T.tolist()],
        "told": _told(person.segments, points),
        "spans": spans,
    }


def _fallen_to_zero(points: Points) -> Points:
    """`points` with two of probability zero in each absence: Plotly's stacks cannot have gaps."""
    at = np.flatnonzero(points.after_gap)
    edges = np.stack([points.time_s[at - 1] + 0.001, points.time_s[at] - 0.001], axis=1).ravel()
    twice = np.repeat(at, 2)
    return Points(
        np.insert(points.time_s, twice, edges),
        np.insert(points.probs, twice, 0, axis=0),
        np.insert(points.after_gap, twice, False),
    )


def _told(segments: Sequence[Segment], points: Points) -> list[str]:
    """The label at the time of each point."""
    starts = np.array([segment.start_s for segment in segments])
    at = np.searchsorted(starts, points.time_s, side="right") - 1
    at[~points.probs.any(axis=1)] = -1
    return [segments[index].label if index >= 0 else "away" for index in at.tolist()]


def _png(thumbnail: U8) -> str:
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", thumbnail)[1].tobytes()).decode("ascii")


def _for_script(data: dict[str, Any]) -> str:
    """`data` as JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _in_script(code: str) -> str:
    return code.replace("</script", "<\\/script")


@cache
def _part(name: str) -> str:
    return files("fer_stream.outputs").joinpath(name).read_text("utf-8")
