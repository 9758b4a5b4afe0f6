"""The results of one process, kept in memory, for any number of threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fer_stream.records import Gap, LabelledFrame, Segment, unix_time
from fer_stream.store.protocol import PREVIEW_S, WATCH_S, CameraState, Checkpoint, Preview, Retention, position_of


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
    heard_at: float = 0.0


class MemoryStore:
    """A `ResultStore` in memory. `clock` gives Unix seconds."""

    def __init__(self, retention: Retention | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._retention = retention or Retention()
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._watched_until: dict[str, float] = {}
        self._previews: dict[str, tuple[float, Preview]] = {}
        self._changed = threading.Condition()

    def publish(self, source: str, frames: Sequence[LabelledFrame]) -> int:
        """As `ResultStore.publish`."""
        with self._changed:
            kept = self._heard(source)
            added = 0
            for frame in frames:
                order = _order(position_of(frame))
                if order > kept.newest:
                    kept.results.append(frame)
                    kept.latest, kept.latest_until = frame, self._clock() + self._retention.frames_s
                    kept.newest = order
                    added += 1
            self._expire()
            self._changed.notify_all()
            return added

    def commit(
        self, source: str, checkpoint: Checkpoint, segments: Sequence[Segment], gaps: Sequence[Gap]
    ) -> None:
        """As `ResultStore.commit`."""
        with self._changed:
            kept = self._heard(source)
            kept.checkpoint = checkpoint
            kept.segments.update(segments)
            kept.gaps.update(gaps)
            self._expire()

    def checkpoint(self, source: str) -> Checkpoint | None:
        """As `ResultStore.checkpoint`."""
        with self._changed:
            return self._known(source).checkpoint

    def sources(self) -> list[str]:
        """As `ResultStore.sources`."""
        with self._changed:
            self._expire()
            return sorted(self._sources)

    def latest(self, source: str) -> LabelledFrame | None:
        """As `ResultStore.latest`."""
        with self._changed:
            kept = self._known(source)
            return kept.latest if self._clock() < kept.latest_until else None

    def results(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[LabelledFrame]:
        """As `ResultStore.results`."""
        with self._changed:
            self._changed.wait_for(lambda: self._following(source, after, 1), max_wait_s)
            return self._following(source, after, max_items)

    def segments(self, source: str, from_s: float, to_s: float) -> list[Segment]:
        """As `ResultStore.segments`."""
        with self._changed:
            found = [
                closed for closed in self._known(source).segments if _within(_segment_span(closed), from_s, to_s)
            ]
            return sorted(found, key=_segment_span)

    def gaps(self, source: str, from_s: float, to_s: float) -> list[Gap]:
        """As `ResultStore.gaps`."""
        with self._changed:
            found = [closed for closed in self._known(source).gaps if _within(_gap_span(closed), from_s, to_s)]
            return sorted(found, key=_gap_span)

    def set_state(self, source: str, state: CameraState) -> None:
        """As `ResultStore.set_state`."""
        with self._changed:
            kept = self._heard(source)
            kept.state = state
            kept.state_until = self._clock() + self._retention.state_s

    def state(self, source: str) -> CameraState | None:
        """As `ResultStore.state`."""
        with self._changed:
            kept = self._known(source)
            return kept.state if self._clock() < kept.state_until else None

    def next_end(self, source: str, from_s: float) -> float | None:
        """As `ResultStore.next_end`."""
        with self._changed:
            ends = (_segment_span(closed)[1] for closed in self._known(source).segments)
            return min((end for end in ends if end >= from_s), default=None)

    def watch(self, source: str) -> None:
        """As `ResultStore.watch`."""
        with self._changed:
            self._watched_until[source] = self._clock() + WATCH_S

    def watched(self, sources: Sequence[str]) -> set[str]:
        """As `ResultStore.watched`."""
        with self._changed:
            return {source for source in sources if self._clock() < self._watched_until.get(source, 0.0)}

    def set_preview(self, source: str, preview: Preview) -> None:
        """As `ResultStore.set_preview`."""
        with self._changed:
            self._previews[source] = (self._clock() + PREVIEW_S, preview)

    def preview(self, source: str) -> Preview | None:
        """As `ResultStore.preview`."""
        with self._changed:
            until, preview = self._previews.get(source, (0.0, None))
            return preview if self._clock() < until else None

    def forget(self, source: str, from_s: float, to_s: float) -> int:
        """As `ResultStore.forget`."""
        with self._changed:
            kept = self._known(source)
            results = [frame for frame in kept.results if not from_s <= _at(frame) < to_s]
            segments = {closed for closed in kept.segments if not _within(_segment_span(closed), from_s, to_s)}
            erased = len(kept.results) - len(results) + len(kept.segments) - len(segments)
            kept.results = deque(results, self._retention.results)
            kept.segments = segments
            if kept.latest and from_s <= _at(kept.latest) < to_s:
                kept.latest = None
            return erased

    def _known(self, source: str) -> _Source:
        return self._sources.get(source) or _Source(deque(maxlen=self._retention.results))

    def _heard(self, source: str) -> _Source:
        kept = self._sources.setdefault(source, self._known(source))
        kept.heard_at = self._clock()
        return kept

    def _following(self, source: str, after: str, max_items: int) -> list[LabelledFrame]:
        later = (frame for frame in self._known(source).results if _order(position_of(frame)) > _order(after))
        return list(islice(later, max_items))

    def _expire(self) -> None:
        now = self._clock()
        segments_from, results_from = now - self._retention.segments_s, now - self._retention.frames_s
        for source, kept in list(self._sources.items()):
            if kept.heard_at < now - self._retention.source_s:
                del self._sources[source]
            while kept.results and _at(kept.results[0]) < results_from:
                kept.results.popleft()
            kept.segments = {one for one in kept.segments if _segment_span(one)[1] >= segments_from}
            kept.gaps = {one for one in kept.gaps if _gap_span(one)[1] >= segments_from}


def _order(position: str) -> tuple[int, int]:
    stream_start_ms, _, index = position.partition("-")
    return int(stream_start_ms), int(index or 0)


def _at(frame: LabelledFrame) -> float:
    return unix_time(frame.stream_id, frame.time_s)


def _segment_span(closed: Segment) -> tuple[float, float]:
    return unix_time(closed.stream_id, closed.start_s), unix_time(closed.stream_id, closed.end_s)


def _gap_span(closed: Gap) -> tuple[float, float]:
    return unix_time(closed.stream_id, closed.start_s), unix_time(closed.stream_id, closed.end_s)


def _within(span: tuple[float, float], from_s: float, to_s: float) -> bool:
    start, end = span
    return end >= from_s and start < to_s
