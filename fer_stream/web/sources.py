"""Routes for sources: camera states, live events, previews and history."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from fer_stream.store.protocol import ResultStore
from fer_stream.store.schemas import StoredGap, StoredSegment
from fer_stream.web.events import EventStream, OverviewFeed, SourceFeed, sse
from fer_stream.web.schemas import API, Problem, SourceModel, Timeline, TimelinePerson, timeline_gap, timeline_segment
from fer_stream.web.state import State

router = APIRouter(prefix=API, tags=["sources"])

UnixTime = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)]
Responses = dict[int | str, dict[str, Any]]

_HOUR_S = 3600.0
_MAX_DAYS = 400
_EVENTS: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events."},
}
_PREVIEW: Responses = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "A JPEG."},
    204: {"description": "No preview is available yet."},
}
_TIMELINE: Responses = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("/sources")
def sources(state: State) -> list[SourceModel]:
    """List all configured sources with stored data, sorted by name."""
    return [SourceModel.of(each.name, each.state, each.latest) for each in state.overview.snapshot()]


@router.get("/sources/{name}")
def source(name: str, state: State) -> SourceModel:
    """Return one source."""
    found = state.get_source(name)
    return SourceModel.of(found.name, found.state, found.latest)


@router.get("/live", response_class=StreamingResponse, responses=_EVENTS)
async def all_live(state: State) -> Response:
    """Stream events of all sources: `state` (when it changes), `latest` (result, once per second), `removed`."""
    return EventStream(sse(OverviewFeed(state.overview), state.streams), state.streams)


@router.get("/sources/{name}/live", response_class=StreamingResponse, responses=_EVENTS)
async def live(name: str, state: State, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """Stream events of one source: `frame` (at most ten per second), `state`, `problem` (store unreachable).

    Continues after `Last-Event-ID`, which browsers send when they reconnect.
    """
    await state.streams.run_blocking(lambda: state.get_source(name))
    feed = SourceFeed(state.store, name, last_event_id, exists=state.overview.is_shown)
    return EventStream(sse(feed, state.streams), state.streams)


@router.get("/sources/{name}/preview.jpg", response_class=Response, responses=_PREVIEW)
def preview(name: str, state: State) -> Response:
    """Return the newest preview (JPEG). A request makes the capture process publish previews for 5 s."""
    if state.settings.previews == "off":
        raise Problem(403, "Previews are disabled.", "Set web.previews to on or blur.")
    state.get_source(name)
    state.overview.request_previews(name)
    newest = state.store.preview(name)
    if newest is None:
        return Response(status_code=204)
    headers = {
        "X-Stream-Id": newest.stream_id,
        "X-Frame-Index": str(newest.index),
        "X-Frame-Width": str(newest.width),
        "X-Frame-Height": str(newest.height),
    }
    return Response(newest.jpeg, headers=headers, media_type="image/jpeg")


@router.get("/sources/{name}/timeline", response_model=Timeline, responses=_TIMELINE)
def timeline(
    name: str,
    state: State,
    from_at: Annotated[UnixTime, Query(alias="from")] = None,
    to_at: Annotated[UnixTime, Query(alias="to")] = None,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - name of the query parameter
) -> Response:
    """Return the segments of every person and the gaps that overlap a time range (default: the last hour)."""
    state.get_source(name)
    to_s = time.time() if to_at is None else to_at
    from_s = to_s - _HOUR_S if from_at is None else from_at
    if from_s >= to_s:
        raise Problem(422, f"from ({from_s}) must be less than to ({to_s}).", "Use from < to, in Unix seconds.")
    if format == "csv":
        headers = {"Content-Disposition": f'attachment; filename="{name}.timeline.csv"'}
        return StreamingResponse(
            timeline_csv(state.store, name, from_s, to_s), headers=headers, media_type="text/csv"
        )
    document = timeline_document(state.store, name, from_s, to_s)
    # Not returned as a dict: FastAPI would validate and convert each segment again.
    return Response(json.dumps(document, separators=(",", ":")), media_type="application/json")


@router.get("/sources/{name}/days")
def days(name: str, state: State, tz: str = "UTC") -> list[date]:
    """List the days on which segments ended, in the IANA time zone `tz` (for example Europe/Berlin)."""
    state.get_source(name)
    zone = _zone(tz)
    found: list[date] = []
    from_s = 0.0
    while len(found) < _MAX_DAYS and (end := state.store.next_segment_end(name, from_s)) is not None:
        day = datetime.fromtimestamp(end, zone).date()
        found.append(day)
        next_day = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
        from_s = max(next_day.timestamp(), math.nextafter(end, math.inf))
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Problem(422, f"Unknown time zone {name!r}.", "Use an IANA name such as Europe/Berlin.") from None


MAX_SEGMENTS = 50_000
"""Maximum number of segments in a JSON response: 5.5 MB. A camera with one new segment per second reaches it in 14
hours."""

_ROWS_PER_CHUNK = 1000
_COLUMNS = ("kind", "stream_id", "person_id", "label", "start_at", "end_at", "mean_prob", "unknown_reason")

Row = tuple[float, tuple[object, ...]]


def timeline_document(store: ResultStore, name: str, from_s: float, to_s: float) -> Timeline:
    """Return the segments and gaps that overlap a time range (Unix seconds).

    Raises `Problem` (422) if there are more than `MAX_SEGMENTS` segments.
    """
    people: dict[tuple[str, int], TimelinePerson] = {}
    for number, segment in enumerate(_segments(store, name, from_s, to_s), start=1):
        if number > MAX_SEGMENTS:
            raise Problem(
                422,
                f"The time range {from_s} to {to_s} has more than {MAX_SEGMENTS:,} segments.",
                "Request a shorter range, or a table with format=csv.",
            )
        stream_id, person_id = segment["stream_id"], segment["person_id"]
        new: TimelinePerson = {"person_id": person_id, "stream_id": stream_id, "segments": []}
        people.setdefault((stream_id, person_id), new)["segments"].append(timeline_segment(segment))
    gaps = [timeline_gap(gap) for gap in store.gap_documents(name, from_s, to_s)]
    return {"source": name, "from_at": from_s, "to_at": to_s, "people": list(people.values()), "gaps": gaps}


def timeline_csv(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[str]:
    """Yield the same as CSV in chunks, without a limit: one row per segment or gap, sorted by start."""
    segments, gaps = _segments(store, name, from_s, to_s), store.gap_documents(name, from_s, to_s)
    rows = merge(map(_segment_row, segments), map(_gap_row, gaps), key=itemgetter(0))
    yield _csv([_COLUMNS])
    while chunk := [row for _, row in islice(rows, _ROWS_PER_CHUNK)]:
        yield _csv(chunk)


def _segments(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[StoredSegment]:
    """Yield the segments that overlap a time range, sorted by start, reading about an hour at a time."""
    start_s = from_s
    while start_s < to_s and (end_s := store.next_segment_end(name, start_s)) is not None:
        until_s = min(to_s, end_s + _HOUR_S)
        found = store.segment_documents(name, start_s, until_s)
        yield from (segment for segment in found if start_s == from_s or segment["start_at"] >= start_s)
        start_s = until_s


def _segment_row(segment: StoredSegment) -> Row:
    columns = ("stream_id", "person_id", "label", "start_at", "end_at", "mean_prob")
    return segment["start_at"], ("segment", *itemgetter(*columns)(segment), segment.get("unknown_reason") or "")


def _gap_row(gap: StoredGap) -> Row:
    return gap["start_at"], ("gap", gap["stream_id"], "", gap["reason"], gap["start_at"], gap["end_at"], "", "")


def _csv(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
