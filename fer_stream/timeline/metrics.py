"""Metrics of the timeline process, per source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from fer_stream.metrics import Metrics, Stage
from fer_stream.records import LABELS, UNKNOWN, LabelledFrame, Prediction, source_of
from fer_stream.timeline.builder import OnLoss


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
