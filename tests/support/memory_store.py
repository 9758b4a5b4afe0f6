"""Result store in memory, for any number of threads of one process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fer_stream.records import Gap, LabelledFrame, Segment, unix_time
from fer_stream.store.protocol import (
    PREVIEW_MAX_AGE_S,
    PREVIEW_REQUEST_TTL_S,
    CameraState,
    Checkpoint,
    Preview,
    Retention,
    position_of,
)
from fer_stream.store.schemas import (
    FrameDocument,
    StoredGap,
    StoredSegment,
    frame_document,
    stored_gap,
    stored_segment,
)


@dataclass(slots=True, eq=False)
class _Source:
    results: deque[LabelledFrame]
    newest: tuple[int, int] = (0, 0)
    latest: LabelledFrame | None = None
    latest_until: float = 0.0
    segments: set[Segment] = field(default_factory=set)
    gaps: set[Gap] = field(default_factory=set)
    checkpoint: Checkpoint | None = None
    state: CameraState | None = None
    state_until: float = 0.0
    updated_s: float = 0.0


class MemoryStore:
    """A `ResultStore` in memory. `clock` returns Unix seconds."""

    def __init__(self, retention: Retention | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._retention = retention or Retention()
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._requested_until: dict[str, float] = {}
        self._previews: dict[str, tuple[float, Preview]] = {}
        self._changed = threading.Condition()

    def publish(self, source: str, frames: Sequence[LabelledFrame]) -> int:
        """See `ResultStore.publish`."""
        with self._changed:
            data = self._touch(source)
            added = 0
            for frame in frames:
                order = _order(position_of(frame))
                if order > data.newest:
                    data.results.append(frame)
                    data.latest, data.latest_until = frame, self._clock() + self._retention.frames_s
                    data.newest = order
                    added += 1
            self._expire()
            self._changed.notify_all()
            return added

    def commit(self, source: str, checkpoint: Checkpoint, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """See `ResultStore.commit`."""
        with self._changed:
            data = self._touch(source)
            data.checkpoint = checkpoint
            data.segments.update(segments)
            data.gaps.update(gaps)
            self._expire()

    def checkpoint(self, source: str) -> Checkpoint | None:
        """See `ResultStore.checkpoint`."""
        with self._changed:
            return self._get(source).checkpoint

    def sources(self) -> list[str]:
        """See `ResultStore.sources`."""
        with self._changed:
            self._expire()
            return sorted(self._sources)

    def latest(self, source: str) -> LabelledFrame | None:
        """See `ResultStore.latest`."""
        with self._changed:
            data = self._get(source)
            return data.latest if self._clock() < data.latest_until else None

    def latest_document(self, source: str) -> FrameDocument | None:
        """See `ResultStore.latest_document`."""
        latest = self.latest(source)
        return None if latest is None else frame_document(latest)

    def results(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[LabelledFrame]:
        """See `ResultStore.results`."""
        with self._changed:
            self._changed.wait_for(lambda: self._following(source, after, 1), max_wait_s)
            return self._following(source, after, max_items)

    def result_documents(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[FrameDocument]:
        """See `ResultStore.result_documents`."""
        return [frame_document(frame) for frame in self.results(source, after, max_items, max_wait_s)]

    def segments(self, source: str, from_s: float, to_s: float) -> list[Segment]:
        """See `ResultStore.segments`."""
        with self._changed:
            found = [closed for closed in self._get(source).segments if _within(_span(closed), from_s, to_s)]
            return sorted(found, key=_span)

    def segment_documents(self, source: str, from_s: float, to_s: float) -> list[StoredSegment]:
        """See `ResultStore.segment_documents`."""
        return [stored_segment(segment) for segment in self.segments(source, from_s, to_s)]

    def gaps(self, source: str, from_s: float, to_s: float) -> list[Gap]:
        """See `ResultStore.gaps`."""
        with self._changed:
            found = [closed for closed in self._get(source).gaps if _within(_span(closed), from_s, to_s)]
            return sorted(found, key=_span)

    def gap_documents(self, source: str, from_s: float, to_s: float) -> list[StoredGap]:
        """See `ResultStore.gap_documents`."""
        return [stored_gap(gap) for gap in self.gaps(source, from_s, to_s)]

    def set_state(self, source: str, state: CameraState) -> None:
        """See `ResultStore.set_state`."""
        with self._changed:
            data = self._touch(source)
            data.state = state
            data.state_until = self._clock() + self._retention.state_s

    def clear_state(self, source: str) -> None:
        """See `ResultStore.clear_state`."""
        with self._changed:
            self._get(source).state_until = 0.0

    def state(self, source: str) -> CameraState | None:
        """See `ResultStore.state`."""
        with self._changed:
            data = self._get(source)
            return data.state if self._clock() < data.state_until else None

    def next_segment_end(self, source: str, from_s: float) -> float | None:
        """See `ResultStore.next_segment_end`."""
        with self._changed:
            ends = (_span(closed)[1] for closed in self._get(source).segments)
            return min((end for end in ends if end >= from_s), default=None)

    def request_previews(self, source: str) -> None:
        """See `ResultStore.request_previews`."""
        with self._changed:
            self._requested_until[source] = self._clock() + PREVIEW_REQUEST_TTL_S

    def preview_requests(self, sources: Sequence[str]) -> set[str]:
        """See `ResultStore.preview_requests`."""
        with self._changed:
            return {source for source in sources if self._clock() < self._requested_until.get(source, 0.0)}

    def set_preview(self, source: str, preview: Preview) -> None:
        """See `ResultStore.set_preview`."""
        with self._changed:
            self._previews[source] = (self._clock() + PREVIEW_MAX_AGE_S, preview)

    def preview(self, source: str) -> Preview | None:
        """See `ResultStore.preview`."""
        with self._changed:
            until, preview = self._previews.get(source, (0.0, None))
            return preview if self._clock() < until else None

    def erase(self, source: str, from_s: float, to_s: float) -> int:
        """See `ResultStore.erase`."""
        with self._changed:
            data = self._get(source)
            results = [frame for frame in data.results if not from_s <= _at(frame) < to_s]
            segments = {closed for closed in data.segments if not _within(_span(closed), from_s, to_s)}
            erased = len(data.results) - len(results) + len(data.segments) - len(segments)
            data.results = deque(results, self._retention.results)
            data.segments = segments
            if data.latest and from_s <= _at(data.latest) < to_s:
                data.latest = None
            return erased

    def _get(self, source: str) -> _Source:
        return self._sources.get(source) or _Source(deque(maxlen=self._retention.results))

    def _touch(self, source: str) -> _Source:
        data = self._sources.setdefault(source, self._get(source))
        data.updated_s = self._clock()
        return data

    def _following(self, source: str, after: str, max_items: int) -> list[LabelledFrame]:
        later = (frame for frame in self._get(source).results if _order(position_of(frame)) > _order(after))
        return list(islice(later, max_items))

    def _expire(self) -> None:
        now = self._clock()
        segments_from, results_from = now - self._retention.segments_s, now - self._retention.frames_s
        for source, data in list(self._sources.items()):
            if data.updated_s < now - self._retention.source_s:
                del self._sources[source]
            while data.results and _at(data.results[0]) < results_from:
                data.results.popleft()
            data.segments = {one for one in data.segments if _span(one)[1] >= segments_from}
            data.gaps = {one for one in data.gaps if _span(one)[1] >= segments_from}


def _order(position: str) -> tuple[int, int]:
    stream_start_ms, _, index = position.partition("-")
    return int(stream_start_ms), int(index or 0)


def _at(frame: LabelledFrame) -> float:
    return unix_time(frame.stream_id, frame.time_s)


def _span(one: Segment | Gap) -> tuple[float, float]:
    return unix_time(one.stream_id, one.start_s), unix_time(one.stream_id, one.end_s)


def _within(span: tuple[float, float], from_s: float, to_s: float) -> bool:
    start, end = span
    return end >= from_s and start < to_s
