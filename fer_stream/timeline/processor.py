"""Keeps the timelines of many sources: from the journal into the result store and the files, and never twice.

What came out of the journal is committed with the position up to which it was read, the state of the timeline and
the lengths of the files, in one step. After a crash the files are cut back to those lengths and the journal is read
on from that position, so that nothing is written twice and nothing is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fer_stream.broker.protocols import JOURNAL_START, JournalEntry
from fer_stream.config.live import LiveTimelineSettings
from fer_stream.errors import FilesStopped, LeaseLost, StoreFull
from fer_stream.outputs.base import RollingWriter
from fer_stream.records import FaceCrop, Gap, LabelledFrame, Segment
from fer_stream.store.protocol import Checkpoint, ResultStore
from fer_stream.timeline.source_timeline import SourceTimeline, Watermark

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class SourceState:
    """One source: where its journal was read to, and what a commit has yet to write."""

    timeline: SourceTimeline
    position: str = JOURNAL_START
    committed: str = JOURNAL_START
    segments: list[Segment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class TimelineProcessor:
    """The timelines of the sources of one shard. `files` None writes none.

    `settings` are those of a source, as they are by then; `owns` tells whether the timelines are ours still. It is
    asked before files are touched, because they cannot tell who writes, as the store can; where it says no, `open`,
    `settle` and `commit` raise `LeaseLost`.

    `unreadable` counts entries of the journal that are no messages, `unpublished` frames that a full store refused.
    """

    def __init__(
        self,
        store: ResultStore,
        files: RollingWriter | None,
        *,
        settings: Callable[[str], LiveTimelineSettings],
        owns: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._files = files
        self._settings = settings
        self._owns = owns
        self._kept: dict[str, SourceState] = {}
        self.unreadable = self.unpublished = 0

    def open(self, source: str) -> None:
        """Begin with a source, or go on with it from its last commit. Does nothing for one that is open."""
        if source in self._kept:
            return
        kept = SourceState(SourceTimeline(partial(self._settings, source)))
        checkpoint = self._store.checkpoint(source)
        if checkpoint is not None:
            kept.timeline.restore(checkpoint.state)
            kept.position = kept.committed = checkpoint.position
        self._kept[source] = kept
        offsets = checkpoint.files if checkpoint else {}
        self._write(lambda files: files.truncate(source, offsets))
        if checkpoint is None:
            # A crash before the first commit must find where the files of former days end.
            self._commit(source, kept)

    @property
    def positions(self) -> dict[str, str]:
        """Where the journal of each source is to be read on."""
        return {source: kept.position for source, kept in self._kept.items()}

    def restart(self, source: str) -> None:
        """Read the journal of a source from its beginning: it is another one than that which was read so far."""
        _log.error("%s: the queue's server lost the journal, reading the new one from its beginning", source)
        self._kept[source].position = JOURNAL_START

    def loss_counts(self, source: str) -> tuple[int, int]:
        """Faces of a source that never came, and that came too late."""
        timeline = self._kept[source].timeline
        return timeline.missing, timeline.late

    def add(self, entries: Iterable[JournalEntry]) -> None:
        """Take entries of the journal, in order."""
        for entry in entries:
            kept = self._kept[entry.source]
            kept.position = entry.position
            if entry.message is None:
                self.unreadable += 1
            else:
                kept.timeline.add([entry.message])

    def watermark(self, source: str, oldest: FaceCrop | None) -> Watermark:
        """As `SourceTimeline.horizon`."""
        return self._kept[source].timeline.watermark(oldest)

    def advance(self, source: str, horizon: Watermark | None) -> Sequence[LabelledFrame]:
        """Make final what can be, as `SourceTimeline.settle`, and show it; the frames that became final."""
        kept = self._kept[source]
        kept.timeline.advance(horizon)
        news = kept.timeline.drain()
        self._publish(source, news.provisional)
        kept.segments += news.segments
        kept.gaps += news.gaps
        self._write(lambda files: files.append_frames(source, news.frames))
        self._write(lambda files: files.append_segments(source, news.segments, news.gaps))
        return news.frames

    def commit(self) -> list[tuple[str, str]]:
        """Commit what happened since the last time; the sources concerned and what of their journals is done with."""
        done = []
        for source, kept in self._kept.items():
            if kept.position != kept.committed or kept.segments or kept.gaps:
                self._commit(source, kept)
                done.append((source, kept.position))
        return done

    def _commit(self, source: str, kept: SourceState) -> None:
        offsets = self._owned(self._files).offsets(source) if self._files else {}
        checkpoint = Checkpoint(kept.position, kept.timeline.state(), offsets)
        self._store.commit(source, checkpoint, kept.segments, kept.gaps)
        kept.committed, kept.segments, kept.gaps = kept.position, [], []

    def _publish(self, source: str, frames: Sequence[LabelledFrame]) -> None:
        """Show frames at once. A store that is full shows none for now: segments and files do without."""
        if frames:
            try:
                self._store.publish(source, frames)
            except StoreFull as error:
                self.unpublished += len(frames)
                _log.error("%s", error)

    def _write(self, write: Callable[[RollingWriter], None]) -> None:
        if self._files is None:
            return
        try:
            write(self._owned(self._files))
        except FilesStopped as error:
            _log.error("%s", error)

    def _owned(self, files: RollingWriter) -> RollingWriter:
        if not self._owns():
            raise LeaseLost("Another process may keep these timelines by now: nothing more was written to files.")
        return files
