"""Timelines of many sources, from the journal to the result store and the files, exactly once.

The results are committed atomically with the journal position, the state of the timeline and the lengths of the
files. After a crash the files are truncated to these lengths and the journal is read from that position, so that
nothing is written twice or omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fer_stream.broker.protocols import JOURNAL_START, JournalEntry
from fer_stream.errors import LeaseLost, OutputUnavailable, StoreFull
from fer_stream.log import get_logger
from fer_stream.records import LABELS, UNKNOWN, FaceCrop, Gap, LabelledFrame, Prediction, Segment, source_of
from fer_stream.store.protocol import Checkpoint, ResultStore
from fer_stream.timeline.builder import OnLoss
from fer_stream.timeline.source_timeline import SourceTimeline, Watermark

if TYPE_CHECKING:
    from fer_stream.config.live import LiveTimelineSettings
    from fer_stream.metrics import Metrics, Stage
    from fer_stream.outputs.registry import RollingOutput


class TimelineMetrics:
    """Counters of the faces of many sources.

    `is_live` returns whether the latency of a source is meaningful: not for a file played faster than real time.
    `is_wanted` returns whether a source is exported: the queue lists removed sources for a while. `now` returns Unix
    time.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        now: Callable[[], float],
        is_live: Callable[[str], bool] = lambda _: True,
        is_wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._metrics = metrics
        self._now = now
        self._is_live = is_live
        self._is_wanted = is_wanted
        self._sources: dict[str, _SourceCounters] = {}
        self._rows_lost: dict[str, int] = {}

    def timed(self, stage: Stage) -> AbstractContextManager[None]:
        """Return a context that measures the duration of a stage."""
        return self._metrics.timed(stage)

    def register(self, source: str) -> OnLoss:
        """Create the series of a source, and return the callbacks that count its lost faces."""
        if source not in self._sources:
            self._sources[source] = _SourceCounters(self._metrics, source)
            if not self._is_wanted(source):
                self.remove(source)
        # Looked up at each call, because `restore` replaces the counters.
        return OnLoss(
            missing=lambda count: self._sources[source].missing.inc(count),
            late=lambda count: self._sources[source].late.inc(count),
        )

    def remove(self, source: str) -> None:
        """Stop exporting a source, even if more of its faces follow."""
        self._metrics.remove_source(source)

    def restore(self, source: str) -> None:
        """Export a removed source again. Its series start at 0."""
        if source in self._sources:
            self._sources[source] = _SourceCounters(self._metrics, source)

    def count_labels(self, source: str, frames: Iterable[LabelledFrame]) -> None:
        """Count the faces of frames with final labels."""
        counters = self._sources[source].labels
        for frame in frames:
            for face in frame.faces:
                counters[face.label].inc()

    def count_lost_rows(self, source: str, total: int) -> None:
        """Count the rows of tables that could not be written, given their `total` since the start."""
        self._sources[source].rows_lost.inc(total - self._rows_lost.get(source, 0))
        self._rows_lost[source] = total

    def count_unreadable(self) -> None:
        """Count a journal entry that cannot be decoded."""
        self._metrics.journal_unreadable.inc()

    def count_rejected(self, results: int) -> None:
        """Count results that the store rejected."""
        self._metrics.results_rejected.inc(results)

    def observe_latency(self, predictions: Sequence[Prediction]) -> None:
        """Observe the age of the faces whose results were just published."""
        now = self._now()
        for prediction in predictions:
            if self._is_live(source_of(prediction.face.key.stream_id)):
                self._metrics.end_to_end.observe(max(0.0, now - prediction.face.captured_at))


class _SourceCounters:
    """Counters of one source, all created at once so that each starts at 0."""

    def __init__(self, metrics: Metrics, source: str) -> None:
        self.labels = {label: metrics.faces_labelled.labels(source, label) for label in (*LABELS, UNKNOWN)}
        self.missing = metrics.predictions_missing.labels(source)
        self.late = metrics.predictions_late.labels(source)
        self.rows_lost = metrics.rows_lost.labels(source)


_log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class SourceState:
    """Timeline of a source, its position in the journal, and the results to commit."""

    timeline: SourceTimeline
    position: str = JOURNAL_START
    committed: str = JOURNAL_START
    segments: list[Segment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


class TimelineProcessor:
    """Timelines of the sources of one shard. `files` None writes no files.

    `settings` returns the current settings of a source. `owns` returns whether this process still owns the shard. It
    is called before files are modified, because files, unlike the store, cannot verify a lease; if it returns False,
    `open`, `advance` and `commit` raise `LeaseLost`.
    """

    def __init__(
        self,
        store: ResultStore,
        files: RollingOutput | None,
        metrics: TimelineMetrics,
        *,
        settings: Callable[[str], LiveTimelineSettings],
        owns: Callable[[], bool] = lambda: True,
    ) -> None:
        self.metrics = metrics
        self._store = store
        self._files = files
        self._settings = settings
        self._owns = owns
        self._sources: dict[str, SourceState] = {}

    def open(self, source: str) -> None:
        """Start a source, or continue it from its last commit. Does nothing if it is open."""
        if source in self._sources:
            return
        on_loss = self.metrics.register(source)
        state = SourceState(SourceTimeline(partial(self._settings, source), on_loss=on_loss))
        checkpoint = self._store.checkpoint(source)
        if checkpoint is not None:
            state.timeline.restore(checkpoint.state)
            state.position = state.committed = checkpoint.position
        self._sources[source] = state
        offsets = checkpoint.files if checkpoint else {}
        self._write(source, lambda files: files.truncate(source, offsets))
        if checkpoint is None:
            # After a crash before the first commit, the lengths of existing files must be available.
            self._commit(source, state)

    @property
    def positions(self) -> dict[str, str]:
        """Position of each source after which to read its journal."""
        return {source: state.position for source, state in self._sources.items()}

    def restart(self, source: str) -> None:
        """Read the journal of a source from its beginning, because its server lost the previous one."""
        _log.error("journal_lost", source=source, action="reading the new journal from its beginning")
        self._sources[source].position = JOURNAL_START

    def add(self, entries: Iterable[JournalEntry]) -> None:
        """Add entries of the journal, in order."""
        for entry in entries:
            state = self._sources[entry.source]
            state.position = entry.position
            if entry.message is None:
                self.metrics.count_unreadable()
            else:
                state.timeline.add([entry.message])

    def watermark(self, source: str, oldest: FaceCrop | None) -> Watermark:
        """See `SourceTimeline.watermark`."""
        return self._sources[source].timeline.watermark(oldest)

    def advance(self, source: str, watermark: Watermark | None) -> None:
        """Finalise frames, see `SourceTimeline.advance`, and publish the results."""
        state = self._sources[source]
        state.timeline.advance(watermark)
        update = state.timeline.drain()
        self._publish(source, update.provisional)
        state.segments += update.segments
        state.gaps += update.gaps
        self._write(source, lambda files: files.append_frames(source, update.frames))
        self._write(source, lambda files: files.append_segments(source, update.segments, update.gaps))
        self.metrics.count_labels(source, update.frames)
        if self._files is not None:
            self.metrics.count_lost_rows(source, self._files.lost_rows(source))

    def commit(self) -> list[tuple[str, str]]:
        """Commit the results since the last call; return the sources concerned and their journal positions."""
        committed = []
        for source, state in self._sources.items():
            if state.position != state.committed or state.segments or state.gaps:
                self._commit(source, state)
                committed.append((source, state.position))
        return committed

    def _commit(self, source: str, state: SourceState) -> None:
        offsets = self._owned(self._files).offsets(source) if self._files else {}
        checkpoint = Checkpoint(state.position, state.timeline.state(), offsets)
        self._store.commit(source, checkpoint, state.segments, state.gaps)
        state.committed, state.segments, state.gaps = state.position, [], []

    def _publish(self, source: str, frames: Sequence[LabelledFrame]) -> None:
        """Publish provisional frames. If the store is full they are omitted, unlike segments and files."""
        if frames:
            try:
                self._store.publish(source, frames)
            except StoreFull as error:
                self.metrics.count_rejected(len(frames))
                _log.error("results_rejected", source=source, results=len(frames), error=str(error))

    def _write(self, source: str, write: Callable[[RollingOutput], None]) -> None:
        if self._files is None:
            return
        try:
            write(self._owned(self._files))
        except OutputUnavailable as error:
            _log.error("writing_stopped", output="tables", source=source, error=str(error))

    def _owned(self, files: RollingOutput) -> RollingOutput:
        if not self._owns():
            raise LeaseLost("Lease lost to another process; stopped writing.")
        return files
