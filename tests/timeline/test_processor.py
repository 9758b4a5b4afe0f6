"""Results in the store and the files, exactly once, despite crashes."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fer_stream.broker.protocols import JOURNAL_START, JournalEntry
from fer_stream.config.live import LiveTimelineSettings
from fer_stream.errors import LeaseLost
from fer_stream.metrics import Metrics
from fer_stream.outputs.daily_tables import DailyTables
from fer_stream.records import LABELS, Face, FaceKey, FrameHeader, Prediction, Quality
from fer_stream.timeline.processor import TimelineMetrics, TimelineProcessor
from fer_stream.timeline.source_timeline import Watermark
from tests.support.memory_store import MemoryStore

FPS = 10.0
SOURCE = "door"
SESSION_MS = int(time.time() * 1000)
STREAM = f"{SOURCE}@{SESSION_MS}"


def waiting(allowed_lateness_s: float) -> LiveTimelineSettings:
    return LiveTimelineSettings().model_copy(update={"allowed_lateness_s": allowed_lateness_s})


def entries(first: int, last: int) -> list[JournalEntry]:
    """Return journal entries of the frames [`first`, `last`), happy before frame 50 and sad from then on."""
    journal = []
    for index in range(first, last):
        probs = np.full(7, 0.02, np.float32)
        probs[LABELS.index("happy" if index < 50 else "sad")] = 0.88
        box = np.array([0, 0, 50, 50], np.float32)
        key = FaceKey(STREAM, 1, index)
        face = Prediction(Face(key, index / FPS, 0.0, box, 0.9, Quality(0.9, "ok")), probs, "test")
        journal += [
            JournalEntry(SOURCE, f"{index + 1}-1", face),
            JournalEntry(SOURCE, f"{index + 1}-2", FrameHeader(STREAM, index, index / FPS, 1)),
        ]
    return journal


def make_metrics() -> TimelineMetrics:
    return TimelineMetrics(Metrics(CollectorRegistry()), now=time.time)


def make(store: MemoryStore, folder: Path, metrics: TimelineMetrics | None = None) -> TimelineProcessor:
    files = DailyTables(folder, retention_days=None, clock=time.time)
    processor = TimelineProcessor(store, files, metrics or make_metrics(), settings=lambda _: waiting(math.inf))
    processor.open(SOURCE)
    return processor


def feed(processor: TimelineProcessor, journal: list[JournalEntry]) -> None:
    watermark = processor.watermark(SOURCE, None)
    processor.add(journal)
    processor.advance(SOURCE, watermark)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / SOURCE).iterdir())}


def test_results_after_the_last_commit_are_written_once(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    undisturbed = make(MemoryStore(), whole)
    feed(undisturbed, entries(0, 120))
    undisturbed.commit()

    store = MemoryStore()
    before = make(store, broken)
    feed(before, entries(0, 60))
    before.commit()
    feed(before, entries(60, 100))  # written, but the process dies before the commit
    after = make(store, broken)
    assert after.positions == {SOURCE: "60-2"}
    feed(after, entries(60, 120))
    after.commit()
    assert written(broken) == written(whole)
    assert [one.label for one in store.segments(SOURCE, 0, math.inf)] == ["happy"]
    assert [frame.index for frame in store.results(SOURCE, "0", 1000, 0)] == list(range(120))


def test_crash_before_the_first_commit_does_not_duplicate_rows(tmp_path: Path) -> None:
    store = MemoryStore()
    feed(make(store, tmp_path), entries(0, 60))
    again = make(store, tmp_path)
    assert again.positions == {SOURCE: "0"}
    feed(again, entries(0, 60))
    (table,) = [text for name, text in written(tmp_path).items() if name.endswith(".frames.csv")]
    rows = table.decode().splitlines()[1:]
    assert len(rows) == len({row.partition(",")[0] for row in rows})


def test_unreadable_entries_are_counted(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    processor = make(MemoryStore(), tmp_path, TimelineMetrics(Metrics(registry), now=time.time))
    feed(processor, [JournalEntry(SOURCE, "1-1", None), *entries(1, 3)])
    assert registry.get_sample_value("fer_journal_unreadable_total") == 1
    assert processor.positions == {SOURCE: "3-2"}


def test_files_are_not_modified_after_the_lease_is_lost(tmp_path: Path) -> None:
    owned = [True]
    store, files = MemoryStore(), DailyTables(tmp_path, retention_days=None, clock=time.time)
    processor = TimelineProcessor(
        store, files, make_metrics(), settings=lambda _: waiting(math.inf), owns=lambda: owned[0]
    )
    processor.open(SOURCE)
    feed(processor, entries(0, 60))
    before = written(tmp_path)
    owned[0] = False
    with pytest.raises(LeaseLost, match="stopped writing"):
        feed(processor, entries(60, 120))
    with pytest.raises(LeaseLost):
        processor.commit()
    assert written(tmp_path) == before


def test_changed_lateness_applies_to_open_sources() -> None:
    waits_s = [2.0]
    registry = CollectorRegistry()
    metrics = TimelineMetrics(Metrics(registry), now=time.time)
    processor = TimelineProcessor(MemoryStore(), None, metrics, settings=lambda _: waiting(waits_s[-1]))

    def losses() -> tuple[float | None, ...]:
        names = ("fer_predictions_missing_total", "fer_predictions_late_total")
        return tuple(registry.get_sample_value(name, {"source": SOURCE}) for name in names)

    processor.open(SOURCE)
    journal, watermark = entries(0, 100), Watermark(STREAM, 0.0)
    processor.add(journal[1:50])
    processor.advance(SOURCE, watermark)
    assert losses() == (1, 0)
    waits_s.append(math.inf)
    processor.add(journal[51:])
    processor.advance(SOURCE, watermark)
    assert losses() == (1, 0)
    processor.add(journal[50:51])
    assert losses() == (1, 0)


def test_new_journal_is_read_from_its_beginning(tmp_path: Path) -> None:
    processor = make(MemoryStore(), tmp_path)
    feed(processor, entries(0, 3))
    processor.restart(SOURCE)
    assert processor.positions == {SOURCE: JOURNAL_START}


def test_full_disk_suspends_the_files_but_not_the_service(
    small_disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(32)
    (disk / "hog").write_bytes(os.urandom(24_000))
    store = MemoryStore()
    processor = make(store, disk)
    with caplog.at_level(logging.ERROR):
        for start in range(0, 400, 20):
            feed(processor, entries(start, start + 20))
            processor.commit()
    assert [frame.index for frame in store.results(SOURCE, "0", 1000, 0)] == list(range(400))
    assert any(str(disk) in getattr(record, "error", "") for record in caplog.records)
    table = next((disk / SOURCE).glob("*.frames.csv")).read_text()
    assert table.endswith("\n")
    assert 0 < len(table.splitlines()) < 380
