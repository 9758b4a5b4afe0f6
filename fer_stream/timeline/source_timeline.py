"""Timelines of one live source across its sessions: one builder per session, and its results since the last drain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_stream.records import (
    EndOfStream,
    Face,
    FaceCrop,
    FrameHeader,
    Gap,
    LabelledFrame,
    Prediction,
    Segment,
    stream_start_ms,
    unix_time,
)
from fer_stream.timeline.builder import BuilderState, OnLoss, TimelineBuilder
from fer_stream.timeline.checkpoint import decode_state, encode_state

if TYPE_CHECKING:
    from fer_stream.config.live import LiveTimelineSettings

SessionMessage = FrameHeader | Face | Prediction | EndOfStream
Message = SessionMessage | Gap


@dataclass(slots=True, eq=False)
class TimelineUpdate:
    """Results of a timeline: `provisional` frames, whose labels can change, final `frames`, segments and gaps."""

    provisional: list[LabelledFrame] = field(default_factory=list)
    frames: list[LabelledFrame] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Media time of a stream before which no more faces will arrive; infinity if the stream has ended."""

    stream_id: str | None
    before_s: float


@dataclass(slots=True, eq=False)
class TimelineState:
    """State of the timeline of a source. `ending` is True once the end of the session was received."""

    stream_id: str | None = None
    ending: bool = False
    gaps_until_s: float = -1.0
    builder: BuilderState = field(default_factory=BuilderState)


class SourceTimeline:
    """Timelines of one source across its sessions.

    A new session ends the previous one. If that had not ended by itself, a gap with the reason `restart` is added:
    its capture process or its queue was unavailable.

    `settings` is called for each session and each `advance`. A frame waits for its faces for at most
    `allowed_lateness_s` of media time. Faces of previous sessions are reported as late.
    """

    def __init__(self, settings: Callable[[], LiveTimelineSettings], *, on_loss: OnLoss | None = None) -> None:
        self._settings = settings
        self._on_loss = on_loss or OnLoss()
        self._state = TimelineState()
        self._builder = self._new_builder(self._state.builder)
        self._update = TimelineUpdate()

    def open_within(self, from_s: float, to_s: float) -> float | None:
        """Return the Unix time from which faces are expected or segments are not final; None if there are none.

        Only what can overlap the wall time [`from_s`, `to_s`) counts.
        """
        stream_id = self._state.stream_id
        if stream_id is None:
            return None
        since = unix_time(stream_id, self._builder.open_since_s)
        return since if since < to_s and unix_time(stream_id, self._builder.newest_s) >= from_s else None

    def add(self, messages: Iterable[Message]) -> None:
        """Add messages of captures and workers, in the order of the journal."""
        batch: list[FrameHeader | Face | Prediction] = []
        for message in messages:
            if isinstance(message, Gap):
                self._add_gap(message)
                continue
            if _stream_id(message) != self._state.stream_id:
                self._collect(self._builder.add(batch))
                batch = []
                if not self._start_session(message):
                    continue
            if isinstance(message, EndOfStream):
                self._state.ending = True
            else:
                batch.append(message)
        self._collect(self._builder.add(batch))

    def watermark(self, oldest: FaceCrop | None) -> Watermark:
        """Return the time before which all faces are in the journal; `oldest` is the oldest pending crop.

        Call this before reading the journal: entries read later can announce faces whose crops were not enqueued yet.
        The predictions of all crops before the oldest pending one are in the journal. If no crop is pending, this
        applies to all frames received so far.
        """
        stream_id = self._state.stream_id
        if oldest is None or stream_start_ms(oldest.face.key.stream_id) > self._session_ms:
            newest_s = math.nextafter(self._builder.newest_s, math.inf)
            return Watermark(stream_id, math.inf if self._state.ending else newest_s)
        if oldest.face.key.stream_id != stream_id:
            return Watermark(stream_id, -math.inf)
        return Watermark(stream_id, oldest.face.time_s)

    def advance(self, watermark: Watermark | None) -> None:
        """Finalise frames: one before `watermark` with a missing face will never get it.

        `watermark` is None if it is unknown or the journal was not read to its end, so that faces can follow.
        """
        if watermark is None:
            watermark = Watermark(self._state.stream_id, -math.inf)
        if watermark.stream_id != self._state.stream_id:
            return
        overdue_s = self._builder.newest_s - self._settings().allowed_lateness_s
        self._collect(self._builder.finalize_before(max(watermark.before_s, overdue_s)))
        if watermark.before_s == math.inf:
            self._end_session()

    def drain(self) -> TimelineUpdate:
        """Return the results since the last call."""
        update, self._update = self._update, TimelineUpdate()
        update.segments += self._builder.drain_segments()
        return update

    def state(self) -> bytes:
        """Return the serialised state for `restore`. The results must have been drained."""
        return encode_state(self._state)

    def restore(self, state: bytes) -> None:
        """Continue from `state`. Raises `ValueError` if another version wrote it."""
        self._state = decode_state(TimelineState, state)
        self._builder = self._new_builder(self._state.builder)

    @property
    def _session_ms(self) -> int:
        return stream_start_ms(self._state.stream_id or "")

    def _new_builder(self, state: BuilderState) -> TimelineBuilder:
        return TimelineBuilder(self._settings(), on_loss=self._on_loss, state=state)

    def _start_session(self, message: SessionMessage) -> bool:
        """Start the session of `message`; return False if it is a previous one, whose messages are discarded."""
        stream_id = _stream_id(message)
        if stream_start_ms(stream_id) < self._session_ms:
            if isinstance(message, Face | Prediction):
                self._on_loss.late(1)
            return False
        self._add_restart_gap(message)
        self._end_session()
        self._state.stream_id, self._state.gaps_until_s = stream_id, -1.0
        return True

    def _add_restart_gap(self, message: SessionMessage) -> None:
        """Add the gap between a session that did not end and `message`, the first one of the next session."""
        stream_id, newest_s = self._state.stream_id, self._builder.newest_s
        if stream_id is None or self._state.ending or newest_s == -math.inf:
            return
        start_s = (stream_start_ms(_stream_id(message)) - self._session_ms) / 1000 + _time_s(message)
        # The duration is unknown if the clock was set back, or if a file was played faster than real time.
        self._add_gap(Gap(stream_id, newest_s, max(newest_s, start_s), "restart"))

    def _add_gap(self, gap: Gap) -> None:
        """Add a gap of the current session, unless it is a duplicate, which a lost reply of the journal can cause."""
        if gap.stream_id == self._state.stream_id and gap.end_s > self._state.gaps_until_s:
            self._state.gaps_until_s = gap.end_s
            self._update.gaps.append(gap)

    def _end_session(self) -> None:
        self._collect(self._builder.close())
        self._update.segments += self._builder.drain_segments()
        self._state.builder, self._state.ending = BuilderState(), False
        self._builder = self._new_builder(self._state.builder)

    def _collect(self, frames: list[LabelledFrame]) -> None:
        self._update.frames += frames
        self._update.provisional += self._builder.provisional(frames)


def stream_id_of_state(state: bytes) -> str | None:
    """Return the stream id in a state of `SourceTimeline`."""
    return decode_state(TimelineState, state).stream_id


def _stream_id(message: SessionMessage) -> str:
    match message:
        case Prediction():
            return message.face.key.stream_id
        case Face():
            return message.key.stream_id
        case _:
            return message.stream_id


def _time_s(message: SessionMessage) -> float:
    return message.face.time_s if isinstance(message, Prediction) else message.time_s
