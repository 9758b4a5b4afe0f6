"""What happens now, as server-sent events."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fer_stream.capture.source import Sampler
from fer_stream.errors import FerStreamError
from fer_stream.metrics import Metrics
from fer_stream.records import LabelledFrame
from fer_stream.store.protocol import START, CameraState, ResultStore, position_of
from fer_stream.web.overview import Overview, Sight
from fer_stream.web.problems import AWAY_S, Problem, problem_of
from fer_stream.web.schemas import FrameModel, SourceModel

R = TypeVar("R")

_LOOK_S = 1.0
_BEAT_S = 10.0
# More results than this at once: we are behind, and go on with the newest.
_BEHIND = 64
# So many results that were missed are told after a reconnect: more than a minute at 15 fps.
_MISSED = 1000
_POSITION = re.compile(r"\d{1,15}-\d{1,15}")


class Streams:
    """The live streams that are served now, `most` at the same time, each with a thread to wait in."""

    def __init__(self, most: int, metrics: Metrics, stop: threading.Event) -> None:
        self.stop = stop
        self._most = most
        self._open = 0
        self._metrics = metrics
        self._limiter: anyio.CapacityLimiter | None = None

    def enter(self) -> None:
        """Take a place. Raises `Problem` where there is none."""
        if self._open >= self._most:
            raise Problem(
                503,
                f"All {self._most} live streams are taken.",
                "Close another page, or raise web.max_streams.",
                {"Retry-After": "10"},
            )
        self._open += 1
        self._metrics.web_streams.set(self._open)

    def leave(self) -> None:
        """Give the place back."""
        self._open -= 1
        self._metrics.web_streams.set(self._open)

    async def wait_for(self, work: Callable[[], R]) -> R:
        """Do what blocks in a thread. Other requests have their own."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._most)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class EventStream(StreamingResponse):
    """Events until the client is gone or the service ends. Takes a place among `streams`, and gives it back."""

    def __init__(self, events: AsyncIterator[str], streams: Streams) -> None:
        streams.enter()
        self._streams = streams
        # A proxy must not wait until it has a buffer full.
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.leave()


def event(name: str, data: BaseModel, position: str | None = None) -> str:
    """One event as text."""
    identity = f"id: {position}\n" if position else ""
    return f"{identity}event: {name}\ndata: {data.model_dump_json()}\n\n"


class Teller(Protocol):
    """Knows what one client has to be told."""

    period_s: float

    def look(self) -> list[str]:
        """The events since the last look. May wait for them, for a second."""
        ...


async def told(teller: Teller, streams: Streams) -> AsyncIterator[str]:
    """The events of `teller`, as fast as the client takes them, with a sign of life where there are none."""
    yield "retry: 2000\n\n"
    spoke_s = time.monotonic()
    while not streams.stop.is_set():
        began_s = time.monotonic()
        try:
            events = await streams.wait_for(teller.look)
        except FerStreamError as error:
            events = [event("trouble", problem_of(error).model())]
            await anyio.sleep(AWAY_S)
        if not events and time.monotonic() - spoke_s > _BEAT_S:
            events = [": beat\n\n"]
        for text in events:
            yield text
            spoke_s = time.monotonic()
        await anyio.sleep(max(0.0, began_s + teller.period_s - time.monotonic()))


class OneSource:
    """Tells the results of one source, ten a second at the most and the newest if there are more, and its state.

    After `last_event_id` what was missed is told first.
    """

    period_s = 0.1

    def __init__(self, store: ResultStore, source: str, last_event_id: str | None) -> None:
        self._store = store
        self._source = source
        self._missed = last_event_id is not None and _POSITION.fullmatch(last_event_id) is not None
        self._position = last_event_id if self._missed else None
        self._state: CameraState | None = None
        self._looked_s = -_LOOK_S
        self._began = False

    def look(self) -> list[str]:
        """As `Teller.look`."""
        events = []
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s = time.monotonic()
            state = self._store.state(self._source)
            if state != self._state or not self._began:
                self._state, self._began = state, True
                events.append(event("state", SourceModel.of(self._source, state, self._store.latest(self._source))))
        frames = self._frames()
        now = time.time()
        return events + [
            event("frame", FrameModel.of(self._source, frame, self._state, now), position_of(frame))
            for frame in frames
        ]

    def _frames(self) -> Sequence[LabelledFrame]:
        if self._position is None:
            latest = self._store.latest(self._source)
            self._position = position_of(latest) if latest else START
            return [latest] if latest else []
        most = _MISSED if self._missed else _BEHIND
        frames = self._store.results(self._source, self._position, most, 0 if self._missed else _LOOK_S)
        if frames:
            self._position = position_of(frames[-1])
        if self._missed:
            self._missed = False
            return list(_thinned(frames))
        if len(frames) == most:
            self._position = None
        return frames[-1:]


class AllSources:
    """Tells of every source its state, when it changes, and once a second its newest result."""

    period_s = 1.0

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._states: dict[str, CameraState | None] = {}
        self._latest: dict[str, str] = {}

    def look(self) -> list[str]:
        """As `Teller.look`."""
        return [text for sight in self._overview.look() for text in self._news(sight)]

    def _news(self, sight: Sight) -> Iterator[str]:
        if sight.name not in self._states or self._states[sight.name] != sight.state:
            self._states[sight.name] = sight.state
            yield event("state", SourceModel.of(sight.name, sight.state, sight.latest))
        if sight.latest and self._latest.get(sight.name) != position_of(sight.latest):
            self._latest[sight.name] = position_of(sight.latest)
            yield event("latest", FrameModel.of(sight.name, sight.latest, sight.state, time.time()))


def _thinned(frames: Sequence[LabelledFrame]) -> Iterator[LabelledFrame]:
    """Ten a second of every stream, and the last one of all."""
    for _, stream in groupby(frames, key=lambda frame: frame.stream_id):
        sampler = Sampler(1 / OneSource.period_s)
        yield from (frame for frame in stream if sampler.keep(frame.time_s) or frame is frames[-1])
