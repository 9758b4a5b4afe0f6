"""What the timeline process counts, source by source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter

from fer_stream.metrics import Metrics
from fer_stream.records import LABELS, UNKNOWN, LabelledFrame, Prediction, source_of


class TimelineMetrics:
    """Counts what becomes of the faces of many sources.

    `is_live` tells whether the time from a picture to its result says anything: not where a file is played as fast as
    it goes. `is_wanted` tells whether a source is to be seen at all: the queue remembers for long what was removed.
    `now` is Unix time.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        now: Callable[[], float],
        is_live: Callable[[str], bool] = lambda _: True,
        is_wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.metrics = metrics
        self._now = now
        self._is_live = is_live
        self._is_wanted = is_wanted
        self._sources: dict[str, _Source] = {}
        self._unreadable = _Rising(metrics.journal_unreadable)
        self._unpublished = _Rising(metrics.results_rejected)

    def register(self, source: str, missing: int, late: int) -> None:
        """Count a source from now on; what it had lost until then, an earlier process counted."""
        if source not in self._sources:
            self._sources[source] = _Source(self.metrics, source, missing, late)
            if not self._is_wanted(source):
                self.remove(source)

    def remove(self, source: str) -> None:
        """Show this source no more, whatever may still come of it."""
        self.metrics.remove_source(source)

    def restore(self, source: str) -> None:
        """Show a source again that was forgotten. Its series begin at 0."""
        if known := self._sources.get(source):
            self._sources[source] = _Source(self.metrics, source, known.missing.told, known.late.told)

    def count_labels(self, source: str, frames: Iterable[LabelledFrame]) -> None:
        """Count the faces of frames with final labels."""
        counters = self._sources[source].labelled
        for frame in frames:
            for face in frame.faces:
                counters[face.label].inc()

    def lost(self, source: str, missing: int, late: int) -> None:
        """Count what is lost of a source by now, in all."""
        self._sources[source].missing.reach(missing)
        self._sources[source].late.reach(late)

    def kept_back(self, unreadable: int, unpublished: int) -> None:
        """Count the entries of the journal and the frames that came to nothing by now, in all."""
        self._unreadable.reach(unreadable)
        self._unpublished.reach(unpublished)

    def observe_latency(self, predictions: Sequence[Prediction]) -> None:
        """Observe how old the faces are whose results were just shown."""
        now = self._now()
        for prediction in predictions:
            if self._is_live(source_of(prediction.face.key.stream_id)):
                self.metrics.end_to_end.observe(max(0.0, now - prediction.face.captured_at))


class _Source:
    """The series of one source, which begin at 0."""

    def __init__(self, metrics: Metrics, source: str, missing: int, late: int) -> None:
        self.labelled = {label: metrics.faces_labelled.labels(source, label) for label in (*LABELS, UNKNOWN)}
        self.missing = _Rising(metrics.predictions_missing.labels(source), missing)
        self.late = _Rising(metrics.predictions_late.labels(source), late)


class _Rising:
    """A counter of something that is told as a sum."""

    def __init__(self, counter: Counter, told: int = 0) -> None:
        self._counter = counter
        self.told = told

    def reach(self, total: int) -> None:
        if total > self.told:
            self._counter.inc(total - self.told)
        self.told = total
