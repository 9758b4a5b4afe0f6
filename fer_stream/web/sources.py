"""Routes of the cameras: how they are, what they show now, and what they showed."""

from __future__ import annotations

import math
import time
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from fer_stream.web.events import AllSources, EventStream, OneSource, told
from fer_stream.web.history import table
from fer_stream.web.history import timeline as told_timeline
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import SourceModel, TimelineModel
from fer_stream.web.state import API, AtDesk

router = APIRouter(prefix=API, tags=["sources"])

UnixTime = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)]
Responses = dict[int | str, dict[str, Any]]

_HOUR_S = 3600.0
_MOST_DAYS = 400
_EVENTS: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events."},
}
_PICTURE: Responses = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "A picture."},
    204: {"description": "No picture is there yet."},
}
_TIMELINE: Responses = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("/sources")
def sources(desk: AtDesk) -> list[SourceModel]:
    """All cameras of which something is known, by name."""
    return [SourceModel.of(sight.name, sight.state, sight.latest) for sight in desk.overview.look()]


@router.get("/sources/{name}")
def source(name: str, desk: AtDesk) -> SourceModel:
    """One camera."""
    sight = desk.sight_of(name)
    return SourceModel.of(sight.name, sight.state, sight.latest)


@router.get("/live", response_class=StreamingResponse, responses=_EVENTS)
async def all_live(desk: AtDesk) -> Response:
    """`state` of every camera when it changes, and its `latest` result once a second."""
    return EventStream(told(AllSources(desk.overview), desk.streams), desk.streams)


@router.get("/sources/{name}/live", response_class=StreamingResponse, responses=_EVENTS)
async def live(name: str, desk: AtDesk, last_event_id: Annotated[str | None, Header()] = None) -> Response:
    """`frame`, at most ten a second, and `state` of one camera; `trouble` while the store is away.

    Goes on after `Last-Event-ID` where that is given, as browsers do by themselves.
    """
    await desk.streams.wait_for(lambda: desk.sight_of(name))
    return EventStream(told(OneSource(desk.store, name, last_event_id), desk.streams), desk.streams)


@router.get("/sources/{name}/preview.jpg", response_class=Response, responses=_PICTURE)
def preview(name: str, desk: AtDesk) -> Response:
    """The newest small picture. Asking for it is what has pictures made, for the next five seconds."""
    if desk.settings.previews == "off":
        raise Problem(403, "Pictures are switched off.", "Set web.previews to on or blur.")
    desk.sight_of(name)
    desk.overview.watch(name)
    picture = desk.store.preview(name)
    if picture is None:
        return Response(status_code=204)
    headers = {
        "X-Stream-Id": picture.stream_id,
        "X-Frame-Index": str(picture.index),
        "X-Frame-Width": str(picture.width),
        "X-Frame-Height": str(picture.height),
    }
    return Response(picture.jpeg, headers=headers, media_type="image/jpeg")


@router.get("/sources/{name}/timeline", response_model=TimelineModel, responses=_TIMELINE)
def timeline(
    name: str,
    desk: AtDesk,
    from_at: Annotated[UnixTime, Query(alias="from")] = None,
    to_at: Annotated[UnixTime, Query(alias="to")] = None,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the name in the query
) -> Response:
    """The segments of every person, and the gaps, that reach into a stretch of time; by default the last hour."""
    desk.sight_of(name)
    to_s = time.time() if to_at is None else to_at
    from_s = to_s - _HOUR_S if from_at is None else from_at
    if from_s >= to_s:
        raise Problem(422, f"from ({from_s}) is not before to ({to_s}).", "Give from < to, in Unix seconds.")
    if format == "csv":
        headers = {"Content-Disposition": f'attachment; filename="{name}.timeline.csv"'}
        return StreamingResponse(table(desk.store, name, from_s, to_s), headers=headers, media_type="text/csv")
    found = told_timeline(desk.store, name, from_s, to_s)
    # FastAPI would make a dict of each segment first.
    return Response(found.model_dump_json(), media_type="application/json")


@router.get("/sources/{name}/days")
def days(name: str, desk: AtDesk, tz: str = "UTC") -> list[date]:
    """The days, in the time zone `tz` (as Europe/Berlin), on which segments ended."""
    desk.sight_of(name)
    zone = _zone(tz)
    found: list[date] = []
    from_s = 0.0
    while len(found) < _MOST_DAYS and (end := desk.store.next_end(name, from_s)) is not None:
        day = datetime.fromtimestamp(end, zone).date()
        found.append(day)
        next_day = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
        from_s = max(next_day.timestamp(), math.nextafter(end, math.inf))
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Problem(422, f"There is no time zone {name!r}.", "Give an IANA name, as Europe/Berlin.") from None
