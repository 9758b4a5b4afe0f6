"""Result store: written by the timeline process, read by the web process and by other programs.

Wall times are Unix seconds. The wall time of a frame is `stream_start_ms` / 1000 + `time_s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fer_stream.records import Gap, LabelledFrame, Segment, stream_start_ms

if TYPE_CHECKING:
    from fer_stream.store.schemas import FrameDocument, StoredGap, StoredSegment

START = "0"
"""Position before the first result of every source."""

PREVIEW_REQUEST_TTL_S = 5.0
"""Lifetime of a request for previews; longer than a browser's interval between two of them."""

PREVIEW_MAX_AGE_S = 2.0
"""Maximum age of a preview; an older one does not show the present."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits of the stored data.

    A source keeps its last `results` frames or slightly more, none older than `frames_s` (20,000 are 22 minutes at 15
    fps, about 8 MB with one face in each), segments and gaps for `segments_days`, and the state of a camera for
    `state_s` after the last update.
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
        """Seconds since the last update after which no data of a source is left."""
        return max(self.frames_s, self.segments_s, self.state_s)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of the timeline of a source, from which another process can continue.

    `position` is the last processed entry of the journal, `state` the serialised timeline, and `files` the number of
    valid bytes of each output file.
    """

    position: str
    state: bytes
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CameraState:
    """State of a camera since Unix time `since`. `reason` and `text` explain why it is down, without any secret.

    `failures` counts the connections that ended since the last frame. `width` and `height` are the size of its frames
    in px, to which all boxes refer; None before the first frame.
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
    """Reduced image of a camera: `jpeg` shows frame `index`, whose full size is `width` × `height` px."""

    stream_id: str
    index: int
    width: int
    height: int
    jpeg: bytes


def position_of(frame: LabelledFrame) -> str:
    """Return the position of a frame among the results of its source: `<session start in Unix ms>-<index>`.

    Raises `ValueError` for a stream id without a session start, as of a plain file: its results cannot be stored.
    """
    return result_position(frame.stream_id, frame.index)


def result_position(stream_id: str, index: int) -> str:
    """Return the position of frame `index` of a session. Raises `ValueError` as `position_of` does."""
    start_ms = stream_start_ms(stream_id)
    if start_ms < 1:
        raise ValueError(
            f"Expected a stream id with a session start, as in front-door@1767225600000, received {stream_id}"
        )
    return f"{start_ms}-{index}"


class ResultStore(Protocol):
    """Results of all sources. Any number of processes can read; one at a time writes a source.

    Every method raises `QueueError` if the store cannot be reached, and `CodecError` if it contains invalid data.
    Methods with the suffix `_documents` return the stored documents, for readers that pass them on as JSON.
    """

    def publish(self, source: str, frames: Sequence[LabelledFrame]) -> int:
        """Add provisional results, in order; return how many of them were new.

        Frames that are not after the newest result of `source` are skipped as duplicates. Raises `LeaseLost` or
        `StoreFull`, with nothing added.
        """
        ...

    def commit(self, source: str, checkpoint: Checkpoint, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """Replace the checkpoint and add segments and gaps, atomically and without duplicates.

        Raises `LeaseLost`, with nothing written, if another process now writes `source`.
        """
        ...

    def checkpoint(self, source: str) -> Checkpoint | None:
        """Return the checkpoint of the last commit, or None."""
        ...

    def sources(self) -> list[str]:
        """Return the sorted names of all sources that may have stored data."""
        ...

    def latest(self, source: str) -> LabelledFrame | None:
        """Return the newest result, or None if there is none within the retention."""
        ...

    def latest_document(self, source: str) -> FrameDocument | None:
        """Return the newest result like `latest`, as its document."""
        ...

    def results(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[LabelledFrame]:
        """Return the results after the position `after`, in order; wait up to `max_wait_s` for the first one.

        `START` selects from the oldest one, `position_of(frame)` the results after `frame`.
        """
        ...

    def result_documents(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[FrameDocument]:
        """Return results like `results`, as their documents."""
        ...

    def segments(self, source: str, from_s: float, to_s: float) -> list[Segment]:
        """Return the segments that overlap the wall time [`from_s`, `to_s`), sorted by start."""
        ...

    def segment_documents(self, source: str, from_s: float, to_s: float) -> list[StoredSegment]:
        """Return segments like `segments`, as their documents."""
        ...

    def gaps(self, source: str, from_s: float, to_s: float) -> list[Gap]:
        """Return the gaps that overlap the wall time [`from_s`, `to_s`), sorted by start."""
        ...

    def gap_documents(self, source: str, from_s: float, to_s: float) -> list[StoredGap]:
        """Return gaps like `gaps`, as their documents."""
        ...

    def set_state(self, source: str, state: CameraState) -> None:
        """Set the state of a camera. It expires after `Retention.state_s`, so repeat it."""
        ...

    def state(self, source: str) -> CameraState | None:
        """Return the state of a camera; None if it expired, as when its capture process is gone, or was cleared."""
        ...

    def clear_state(self, source: str) -> None:
        """Delete the state of a camera that was removed."""
        ...

    def next_segment_end(self, source: str, from_s: float) -> float | None:
        """Return the end of the first segment that ends at wall time `from_s` or later; None if there is none."""
        ...

    def request_previews(self, source: str) -> None:
        """Request previews of `source` for the next `PREVIEW_REQUEST_TTL_S` seconds."""
        ...

    def preview_requests(self, sources: Sequence[str]) -> set[str]:
        """Return those of `sources` whose previews are requested."""
        ...

    def set_preview(self, source: str, preview: Preview) -> None:
        """Publish a preview. It is kept only in memory, for at most `PREVIEW_MAX_AGE_S`."""
        ...

    def preview(self, source: str) -> Preview | None:
        """Return the newest preview, or None if there is none younger than `PREVIEW_MAX_AGE_S`.

        Does not wait, so the first preview can be available only in a later call.
        """
        ...

    def erase(self, source: str, from_s: float, to_s: float) -> int:
        """Delete the data of persons in the wall time [`from_s`, `to_s`); return the number of deleted items.

        These are results, and complete segments that overlap the range.
        """
        ...
