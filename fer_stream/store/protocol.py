"""Where results are kept: what the timeline process writes, and what the web page and other programs read.

Wall time is Unix seconds throughout, the time of a picture being the epoch of its stream / 1000 + `time_s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fer_stream.records import Gap, LabelledFrame, Segment, stream_start_ms

START = "0"
"""The position before the first result of every source."""

WATCH_S = 5.0
"""For so long somebody is taken to look on: longer than a browser takes between two pictures."""

PREVIEW_S = 2.0
"""A picture that is older says nothing of now."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long what is kept.

    Of a source, the last `results` frames or somewhat more, none older than `frames_s` (20,000 are 22 minutes at
    15 fps, and about 8 MB with a face in each), segments and gaps for `segments_days`, and a camera's state for
    `state_s` after it was told last.
    """

    results: int = 20_000
    frames_s: float = 3600.0
    segments_days: float = 7.0
    state_s: float = 30.0

    @property
    def segments_s(self) -> float:
        """`segments_days` in seconds."""
        return self.segments_days * 86_400

    @property
    def source_s(self) -> float:
        """A source of which nothing was heard for so long has left nothing."""
        return max(self.frames_s, self.segments_s, self.state_s)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the timeline of a source stands, so that another process can go on from there.

    `position` is the last entry of the journal that was made use of, `state` what the timeline keeps, `files` how
    many bytes of each output file are valid.
    """

    position: str
    state: bytes
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CameraState:
    """How a camera is, since Unix time `since`. `reason` and `text` say why it is down, without any secret.

    `failures` counts the connections that ended since the last picture. `width` and `height` are those of its
    pictures in px, as all boxes are, once there was one.
    """

    up: bool
    since: float
    reason: str | None = None
    text: str = ""
    failures: int = 0
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """A small picture of a camera: `jpeg` shows frame `index`, whose own size is `width` × `height` px."""

    stream_id: str
    index: int
    width: int
    height: int
    jpeg: bytes


def position_of(frame: LabelledFrame) -> str:
    """The position of a frame among the results of its source: `<epoch in ms>-<index>`.

    Raises `ValueError` for a stream without an epoch, as of a plain file: its results cannot be stored.
    """
    start_ms = stream_start_ms(frame.stream_id)
    if start_ms < 1:
        raise ValueError(
            f"Expected a stream with an epoch, as in front-door@1767225600000, received {frame.stream_id}"
        )
    return f"{start_ms}-{frame.index}"


class ResultStore(Protocol):
    """Keeps the results of all sources. Any number of processes read; one at a time writes a source.

    Every method raises `QueueError` where the store cannot be reached, and `CodecError` where it holds what we
    cannot read.
    """

    def publish(self, source: str, frames: Sequence[LabelledFrame]) -> int:
        """Add provisional results, in order, and make the last one the latest; how many of them were new.

        A frame that is not after the newest result of `source` was published before, and is passed over. Raises
        `LeaseLost` and `StoreFull`, with nothing added.
        """
        ...

    def commit(
        self, source: str, checkpoint: Checkpoint, segments: Sequence[Segment], gaps: Sequence[Gap]
    ) -> None:
        """Replace the checkpoint and add segments and gaps, all or nothing, and each once.

        Raises `LeaseLost`, with nothing written, where another process writes `source` by now.
        """
        ...

    def checkpoint(self, source: str) -> Checkpoint | None:
        """What the last commit left, or None."""
        ...

    def sources(self) -> list[str]:
        """The names of all sources that were written to lately enough for something to be left, sorted."""
        ...

    def latest(self, source: str) -> LabelledFrame | None:
        """The newest result, or None where there is none that is young enough."""
        ...

    def results(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[LabelledFrame]:
        """The results that follow the position `after`, in order; waits up to `max_wait_s` for a first one.

        `START` begins with the oldest, `position_of(frame)` goes on from `frame`.
        """
        ...

    def segments(self, source: str, from_s: float, to_s: float) -> list[Segment]:
        """The closed segments that reach into the wall time from `from_s` to before `to_s`, by their beginning."""
        ...

    def gaps(self, source: str, from_s: float, to_s: float) -> list[Gap]:
        """The gaps that reach into the wall time from `from_s` to before `to_s`, by their beginning."""
        ...

    def set_state(self, source: str, state: CameraState) -> None:
        """Tell how the camera is. Tell it again and again: it is forgotten after `Retention.state_s`."""
        ...

    def state(self, source: str) -> CameraState | None:
        """How the camera is; None where nobody said so lately, as when its capture is gone."""
        ...

    def next_end(self, source: str, from_s: float) -> float | None:
        """When the first closed segment ends that ends at wall time `from_s` or later; None where there is none."""
        ...

    def watch(self, source: str) -> None:
        """Say that somebody looks at `source`: previews are made for the next `WATCH_S` seconds."""
        ...

    def watched(self, sources: Sequence[str]) -> set[str]:
        """Those of `sources` that somebody looks at."""
        ...

    def set_preview(self, source: str, preview: Preview) -> None:
        """Show a picture to those who look. It is kept nowhere but in memory, and not for long."""
        ...

    def preview(self, source: str) -> Preview | None:
        """The newest picture, if it is not older than `PREVIEW_S`. Never waits, so the first one may come later."""
        ...

    def forget(self, source: str, from_s: float, to_s: float) -> int:
        """Erase what is known of people in the wall time from `from_s` to before `to_s`; how many things.

        These are results, and segments as a whole where they reach into that time.
        """
        ...
