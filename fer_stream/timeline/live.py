"""The timelines of one source that never ends: one builder per epoch, and what came out of it since the last look."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from fer_stream.config import TimelineSettings
from fer_stream.records import (
    ClosedSegment,
    EndOfStream,
    FaceCrop,
    FrameMark,
    Gap,
    LabelledFrame,
    Prediction,
    epoch_ms_of,
)
from fer_stream.timeline.builder import TimelineBuilder

Message = FrameMark | Prediction | Gap | EndOfStream


@dataclass(slots=True, eq=False)
class News:
    """What a source's timeline has to tell: `fresh` frames, whose labels may still change, and final `frames`."""

    fresh: list[LabelledFrame] = field(default_factory=list)
    frames: list[LabelledFrame] = field(default_factory=list)
    segments: list[ClosedSegment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class SourceTimeline:
    """Follows one source through its epochs. A new epoch closes the old one.

    A frame waits for its faces for `lateness_s` of media time at the most. `missing` and `late` count the faces of
    all epochs, as `TimelineBuilder` does; `late` also those that belong to an epoch that is over.
    """

    def __init__(self, settings: TimelineSettings, lateness_s: float) -> None:
        self._settings = settings
        self._lateness_s = lateness_s
        self._stream_id: str | None = None
        self._builder = TimelineBuilder(settings)
        self._ending = False
        self._news = News()
        self._missing = self._late = 0

    @property
    def missing(self) -> int:
        """Faces that were announced and never came."""
        return self._missing + self._builder.missing

    @property
    def late(self) -> int:
        """Faces that came when their frame was done."""
        return self._late + self._builder.late

    def add(self, messages: Iterable[Message]) -> None:
        """Take what captures and workers said, in the order of the journal."""
        for message in messages:
            if isinstance(message, Gap):
                self._news.gaps.append(message)
            elif self._is_current(message):
                self._ending = self._ending or isinstance(message, EndOfStream)
                if not isinstance(message, EndOfStream):
                    self._note(self._builder.add([message]))

    def settle(self, oldest: FaceCrop | None) -> None:
        """Make final what can be: `oldest` is the oldest crop that was open *before* the journal was read to its end.

        All predictions of crops before it are in, so a frame before it that lacks a face will never get it.
        """
        known_s = math.inf if oldest is None or oldest.key.stream_id != self._stream_id else oldest.time_s
        overdue_s = self._builder.newest_s - self._lateness_s
        self._note(self._builder.give_up_before(max(known_s, overdue_s)))
        if self._ending and oldest is None:
            self._end()

    def news(self) -> News:
        """What came out since the last call."""
        news, self._news = self._news, News()
        news.segments += self._builder.take_segments()
        return news

    def state(self) -> bytes:
        """All that is kept, for `restore`. News must have been taken."""
        document = {
            "stream_id": self._stream_id,
            "ending": self._ending,
            "missing": self._missing,
            "late": self._late,
            "builder": self._builder.state().decode(),
        }
        return json.dumps(document).encode()

    def restore(self, state: bytes) -> None:
        """Go on from `state`. Raises `ValueError` where another version wrote it."""
        document = json.loads(state)
        self._builder = TimelineBuilder.restore(self._settings, document["builder"].encode())
        self._stream_id, self._ending = document["stream_id"], document["ending"]
        self._missing, self._late = document["missing"], document["late"]

    def _is_current(self, message: Prediction | FrameMark | EndOfStream) -> bool:
        """Does the message belong to the present epoch? A newer one begins with it."""
        stream_id = message.key.stream_id if isinstance(message, Prediction) else message.stream_id
        if stream_id == self._stream_id:
            return True
        if self._stream_id is not None and epoch_ms_of(stream_id) < epoch_ms_of(self._stream_id):
            self._late += isinstance(message, Prediction)
            return False
        self._end()
        self._stream_id = stream_id
        return True

    def _end(self) -> None:
        """Close the present epoch."""
        self._note(self._builder.close())
        self._news.segments += self._builder.take_segments()
        self._missing += self._builder.missing
        self._late += self._builder.late
        self._builder = TimelineBuilder(self._settings)
        self._ending = False

    def _note(self, frames: list[LabelledFrame]) -> None:
        self._news.frames += frames
        self._news.fresh += self._builder.fresh()
