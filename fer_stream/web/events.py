"""Live results as server-sent events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fer_stream.capture.source import Sampler
from fer_stream.errors import FerStreamError
from fer_stream.store.protocol import START, CameraState, ResultStore, result_position
from fer_stream.web.schemas import STORE_RETRY_S, SourceModel, frame_event, problem_of

if TYPE_CHECKING:
    from fer_stream.store.schemas import FrameDocument
    from fer_stream.web.state import Overview, SourceSnapshot, StreamLimiter

_STATE_INTERVAL_S = 1.0
_MAX_WAIT_S = 1.0
_KEEPALIVE_S = 10.0
# A client that is more results behind than this continues with the newest one.
_MAX_BACKLOG = 64
# Maximum number of missed results that are sent after a reconnect: more than a minute at 15 fps.
_MAX_REPLAYED = 1000
_POSITION = re.compile(r"\d{1,15}-\d{1,15}")


class EventStream(StreamingResponse):
    """Response with events until the client disconnects or the service stops. Occupies one of `streams`."""

    def __init__(self, events: AsyncIterator[str], streams: StreamLimiter) -> None:
        streams.acquire()
        self._streams = streams
        # nginx would otherwise buffer the events.
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; release the stream at the end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.release()


def event(name: str, data: Mapping[str, Any], position: str | None = None) -> str:
    """Format one event; `position` becomes its id."""
    event_id = f"id: {position}\n" if position else ""
    return f"{event_id}event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


class EventFeed(Protocol):
    """Source of the events of one client."""

    period_s: float
    """Minimum interval between two calls of `poll`, in seconds."""

    def poll(self) -> list[str] | None:
        """Return the events since the last call, or None if no more follow. May block for up to a second."""
        ...


async def sse(feed: EventFeed, streams: StreamLimiter) -> AsyncIterator[str]:
    """Yield the events of `feed` as fast as the client reads them, and a comment after 10 s without an event."""
    yield "retry: 2000\n\n"
    sent_s = time.monotonic()
    while not streams.stop.is_set():
        started_s = time.monotonic()
        try:
            polled = await streams.run_blocking(feed.poll)
            if polled is None:
                return
            events = polled
        except FerStreamError as error:
            events = [event("problem", problem_of(error).model().model_dump())]
            await anyio.sleep(STORE_RETRY_S)
        if not events and time.monotonic() - sent_s > _KEEPALIVE_S:
            events = [": keepalive\n\n"]
        for text in events:
            yield text
            sent_s = time.monotonic()
        await anyio.sleep(max(0.0, started_s + feed.period_s - time.monotonic()))


class SourceFeed:
    """Events of one source: `frame`, at most ten per second and only the newest if there are more, and `state`.

    With `last_event_id`, the results since then are sent first. Ends when `exists` returns False, because the source
    was removed.
    """

    period_s = 0.1

    def __init__(
        self, store: ResultStore, source: str, last_event_id: str | None, *, exists: Callable[[str], bool]
    ) -> None:
        self._exists = exists
        self._store = store
        self._source = source
        self._replay = last_event_id is not None and _POSITION.fullmatch(last_event_id) is not None
        self._position = last_event_id if self._replay else None
        self._state: CameraState | None = None
        self._state_sent = False
        self._state_read_s = -_STATE_INTERVAL_S

    def poll(self) -> list[str] | None:
        """Implement `EventFeed.poll`."""
        if not self._exists(self._source):
            return None
        events = []
        if time.monotonic() - self._state_read_s >= _STATE_INTERVAL_S:
            self._state_read_s = time.monotonic()
            state = self._store.state(self._source)
            if state != self._state or not self._state_sent:
                self._state, self._state_sent = state, True
                latest = self._store.latest_document(self._source)
                events.append(_state_event(self._source, state, latest))
        frames = self._frames()
        now = time.time()
        return events + [
            event("frame", frame_event(self._source, frame, self._state, now), _position(frame)) for frame in frames
        ]

    def _frames(self) -> Sequence[FrameDocument]:
        if self._position is None:
            latest = self._store.latest_document(self._source)
            self._position = _position(latest) if latest else START
            return [latest] if latest else []
        max_items = _MAX_REPLAYED if self._replay else _MAX_BACKLOG
        max_wait_s = 0.0 if self._replay else _MAX_WAIT_S
        frames = self._store.result_documents(self._source, self._position, max_items, max_wait_s)
        if frames:
            self._position = _position(frames[-1])
        if self._replay:
            self._replay = False
            return list(_thinned(frames))
        if len(frames) == max_items:
            self._position = None
        return frames[-1:]


class OverviewFeed:
    """Events of all sources: `state` when it changes, `latest` with the newest result once per second, `removed`."""

    period_s = 1.0

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._states: dict[str, CameraState | None] = {}
        self._positions: dict[str, str] = {}

    def poll(self) -> list[str]:
        """Implement `EventFeed.poll`."""
        sources = self._overview.snapshot()
        removed = self._states.keys() - {source.name for source in sources}
        for name in removed:
            del self._states[name]
        changes = [text for source in sources for text in self._changes(source)]
        return [*(event("removed", {"name": name}) for name in sorted(removed)), *changes]

    def _changes(self, source: SourceSnapshot) -> Iterator[str]:
        if source.name not in self._states or self._states[source.name] != source.state:
            self._states[source.name] = source.state
            yield _state_event(source.name, source.state, source.latest)
        if source.latest and self._positions.get(source.name) != _position(source.latest):
            self._positions[source.name] = _position(source.latest)
            yield event("latest", frame_event(source.name, source.latest, source.state, time.time()))


def _state_event(name: str, state: CameraState | None, latest: FrameDocument | None) -> str:
    return event("state", SourceModel.of(name, state, latest).model_dump())


def _position(frame: FrameDocument) -> str:
    return result_position(frame["stream_id"], frame["index"])


def _thinned(frames: Sequence[FrameDocument]) -> Iterator[FrameDocument]:
    """Yield ten frames per second of each session, and the last one."""
    for _, session in groupby(frames, key=itemgetter("stream_id")):
        sampler = Sampler(1 / SourceFeed.period_s)
        yield from (frame for frame in session if sampler.accept(frame["time_s"]) or frame is frames[-1])
