"""The timelines of one source that never ends: one builder per epoch, and what came out of it since the last look."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fer_stream.config.live import LiveTimelineSettings
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
from fer_stream.timeline.builder import TimelineBuilder

Message = FrameHeader | Face | Prediction | Gap | EndOfStream


@dataclass(slots=True, eq=False)
class TimelineUpdate:
    """What a source's timeline has to tell: `fresh` frames, whose labels may still change, and final `frames`."""

    provisional: list[LabelledFrame] = field(default_factory=list)
    frames: list[LabelledFrame] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Media time of a stream before which no face will come any more; infinity where the stream is over."""

    stream_id: str | None
    before_s: float


class SourceTimeline:
    """Follows one source through its epochs. A new epoch closes the old one, and where that had not ended, tells of
    a gap: its capture, or the queue that it wrote to, was gone.

    `settings` are asked for anew with each epoch. A frame waits for its faces for their `allowed_lateness_s` of media time at
    the most, as it is by then. `missing` and `late` count the faces of all epochs, as `TimelineBuilder` does; `late`
    also those that belong to an epoch that is over.
    """

    def __init__(self, settings: Callable[[], LiveTimelineSettings]) -> None:
        self._settings = settings
        self._stream_id: str | None = None
        self._builder = TimelineBuilder(settings())
        self._ending = False
        self._gaps_until_s = -1.0
        self._news = TimelineUpdate()
        self._missing = self._late = 0

    @property
    def _epoch_ms(self) -> int:
        return stream_start_ms(self._stream_id or "")

    @property
    def missing(self) -> int:
        """Faces that were announced and never came."""
        return self._missing + self._builder.missing

    @property
    def late(self) -> int:
        """Faces that came when their frame was done."""
        return self._late + self._builder.late

    def open_within(self, from_s: float, to_s: float) -> float | None:
        """Since when, in Unix seconds, somebody is kept or waited for here and not told yet; None for nobody.

        Only what may reach into the wall time from `from_s` to before `to_s` counts.
        """
        if self._stream_id is None:
            return None
        since = unix_time(self._stream_id, self._builder.open_since_s)
        return since if since < to_s and unix_time(self._stream_id, self._builder.newest_s) >= from_s else None

    def add(self, messages: Iterable[Message]) -> None:
        """Take what captures and workers said, in the order of the journal."""
        run: list[FrameHeader | Face | Prediction] = []
        for message in messages:
            if isinstance(message, Gap):
                self._note_gap(message)
                continue
            if _stream_id(message) != self._stream_id:
                self._note(self._builder.add(run))
                run = []
                if not self._begin_epoch(message):
                    continue
            if isinstance(message, EndOfStream):
                self._ending = True
            else:
                run.append(message)
        self._note(self._builder.add(run))

    def watermark(self, oldest: FaceCrop | None) -> Watermark:
        """Up to when all faces are in, once the journal is read to its end; `oldest` is the oldest crop now open.

        Ask before reading: what is read later may announce faces whose crops were not put yet. Crops before the
        oldest one have their predictions in the journal. Where none is open, that goes for all frames known by now.
        """
        if oldest is None or stream_start_ms(oldest.face.key.stream_id) > self._epoch_ms:
            return Watermark(
                self._stream_id, math.inf if self._ending else math.nextafter(self._builder.newest_s, math.inf)
            )
        if oldest.face.key.stream_id != self._stream_id:
            return Watermark(self._stream_id, -math.inf)
        return Watermark(self._stream_id, oldest.face.time_s)

    def advance(self, horizon: Watermark | None) -> None:
        """Make final what can be: a frame before `horizon` that lacks a face will never get it.

        None where that is not known, or the journal was not read to its end: what is missing may follow there.
        """
        if horizon is None:
            horizon = Watermark(self._stream_id, -math.inf)
        if horizon.stream_id != self._stream_id:
            return
        overdue_s = self._builder.newest_s - self._settings().allowed_lateness_s
        self._note(self._builder.finalize_before(max(horizon.before_s, overdue_s)))
        if horizon.before_s == math.inf:
            self._end()

    def drain(self) -> TimelineUpdate:
        """What came out since the last call."""
        news, self._news = self._news, TimelineUpdate()
        news.segments += self._builder.drain_segments()
        return news

    def state(self) -> bytes:
        """All that is kept, for `restore`. News must have been taken."""
        document = {
            "stream_id": self._stream_id,
            "ending": self._ending,
            "gaps_until_s": self._gaps_until_s,
            "missing": self._missing,
            "late": self._late,
            "builder": self._builder.state().decode(),
        }
        return json.dumps(document).encode()

    def restore(self, state: bytes) -> None:
        """Go on from `state`. Raises `ValueError` where another version wrote it."""
        document = json.loads(state)
        self._builder = TimelineBuilder.restore(self._settings(), document["builder"].encode())
        self._stream_id, self._ending = document["stream_id"], document["ending"]
        self._gaps_until_s = document["gaps_until_s"]
        self._missing, self._late = document["missing"], document["late"]

    def _begin_epoch(self, message: Face | Prediction | FrameHeader | EndOfStream) -> bool:
        """Begin the epoch of `message`, unless it is an old one, of which nothing more is wanted."""
        stream_id = _stream_id(message)
        if stream_start_ms(stream_id) < self._epoch_ms:
            self._late += isinstance(message, Face | Prediction)
            return False
        self._note_restart(message)
        self._end()
        self._stream_id, self._gaps_until_s = stream_id, -1.0
        return True

    def _note_restart(self, message: Face | Prediction | FrameHeader | EndOfStream) -> None:
        """An epoch that is followed by `message` without having ended was cut off: nobody looked in between."""
        if self._stream_id is None or self._ending or self._builder.newest_s == -math.inf:
            return
        newest_s = self._builder.newest_s
        begins_s = (stream_start_ms(_stream_id(message)) - self._epoch_ms) / 1000 + _time_s(message)
        # How long is not known where the clock was set back, or a file was played faster than the clock runs.
        self._note_gap(Gap(self._stream_id, newest_s, max(newest_s, begins_s), "restart"))

    def _note_gap(self, gap: Gap) -> None:
        """A capture tells of a gap after something else of its epoch, so the gap belongs to the present one.

        It may tell twice, where a reply of the journal was lost.
        """
        if gap.stream_id == self._stream_id and gap.end_s > self._gaps_until_s:
            self._gaps_until_s = gap.end_s
            self._news.gaps.append(gap)

    def _end(self) -> None:
        """Close the present epoch."""
        self._note(self._builder.close())
        self._news.segments += self._builder.drain_segments()
        self._missing += self._builder.missing
        self._late += self._builder.late
        self._builder = TimelineBuilder(self._settings())
        self._ending = False

    def _note(self, frames: list[LabelledFrame]) -> None:
        self._news.frames += frames
        self._news.provisional += self._builder.provisional(frames)


def stream_id_of_state(state: bytes) -> str | None:
    """The stream whose timeline is in a state of `SourceTimeline`."""
    stream_id: str | None = json.loads(state)["stream_id"]
    return stream_id


def _stream_id(message: Face | Prediction | FrameHeader | EndOfStream) -> str:
    match message:
        case Prediction():
            return message.face.key.stream_id
        case Face():
            return message.key.stream_id
        case _:
            return message.stream_id


def _time_s(message: Face | Prediction | FrameHeader | EndOfStream) -> float:
    return message.face.time_s if isinstance(message, Prediction) else message.time_s
