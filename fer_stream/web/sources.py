"""Routes for sources: camera states, live events, previews and history."""

from __future__ import annotations

import json
import math
import time
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from fer_stream.web.events import EventStream, OverviewFeed, SourceFeed, sse
from fer_stream.web.history import timeline_csv, timeline_document
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import API, SourceModel, Timeline
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
    """List all sources with stored data, sorted by name."""
    return [SourceModel.of(each.name, each.state, each.latest) for each in state.overview.snapshot()]


@router.get("/sources/{name}")
def source(name: str, state: State) -> SourceModel:
    """Return one source."""
    found = state.get_source(name)
    return SourceModel.of(found.name, found.state, found.latest)


@router.get("/live", response_class=StreamingResponse, responses=_EVENTS)
async def all_live(state: State) -> Response:
    """Stream events of all sources: `state` when it changes, `latest` (the newest result) once per second."""
    return EventStream(sse(OverviewFeed(state.overview), state.streams), state.streams)


@router.get("/sources/{name}/live", response_class=StreamingResponse, responses=_EVENTS)
async def live(name: str, state: State, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """Stream events of one source: `frame` (at most ten per second), `state`, `problem` (store unreachable).

    Continues after `Last-Event-ID`, which browsers send when they reconnect.
    """
    await state.streams.run_blocking(lambda: state.get_source(name))
    return EventStream(sse(SourceFeed(state.store, name, last_event_id), state.streams), state.streams)


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
