"""From the journal into the store and the files: once, whatever stops in between."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_stream.broker.protocols import JOURNAL_START, JournalEntry
from fer_stream.config.live import LiveTimelineSettings
from fer_stream.errors import LeaseLost
from fer_stream.outputs.daily_tables import RollingTables
from fer_stream.records import LABELS, Face, FaceKey, FrameHeader, Prediction, Quality
from fer_stream.timeline.processor import TimelineProcessor
from fer_stream.timeline.source_timeline import Watermark
from tests.support.memory_store import MemoryStore

FPS = 10.0
SOURCE = "door"
EPOCH_MS = int(time.time() * 1000)
STREAM = f"{SOURCE}@{EPOCH_MS}"


def waiting(allowed_lateness_s: float) -> LiveTimelineSettings:
    return LiveTimelineSettings().model_copy(update={"allowed_lateness_s": allowed_lateness_s})


def entries(first: int, last: int) -> list[JournalEntry]:
    """What a journal holds of the frames from `first` to before `last`, happy at first and sad from frame 50 on."""
    told = []
    for index in range(first, last):
        probs = np.full(7, 0.02, np.float32)
        probs[LABELS.index("happy" if index < 50 else "sad")] = 0.88
        box = np.array([0, 0, 50, 50], np.float32)
        key = FaceKey(STREAM, 1, index)
        face = Prediction(Face(key, index / FPS, 0.0, box, 0.9, Quality(0.9, "ok")), probs, "test")
        told += [
            JournalEntry(SOURCE, f"{index + 1}-1", face),
            JournalEntry(SOURCE, f"{index + 1}-2", FrameHeader(STREAM, index, index / FPS, 1)),
        ]
    return told


def make(store: MemoryStore, folder: Path) -> TimelineProcessor:
    files = RollingTables(folder, retention_days=None, clock=time.time)
    keeper = TimelineProcessor(store, files, settings=lambda _: waiting(math.inf))
    keeper.open(SOURCE)
    return keeper


def feed(keeper: TimelineProcessor, told: list[JournalEntry]) -> None:
    horizon = keeper.watermark(SOURCE, None)
    keeper.add(told)
    keeper.advance(SOURCE, horizon)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / SOURCE).iterdir())}


def test_what_was_written_after_the_last_commit_is_written_once(tmp_path: Path) -> None:
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
    feed(before, entries(60, 100))  # written, but the process dies before it commits
    after = make(store, broken)
    assert after.positions == {SOURCE: "60-2"}
    feed(after, entries(60, 120))
    after.commit()
    assert written(broken) == written(whole)
    assert [one.label for one in store.segments(SOURCE, 0, math.inf)] == ["happy"]
    assert [frame.index for frame in store.results(SOURCE, "0", 1000, 0)] == list(range(120))


def test_a_crash_before_the_first_commit_leaves_nothing_twice(tmp_path: Path) -> None:
    store = MemoryStore()
    feed(make(store, tmp_path), entries(0, 60))
    again = make(store, tmp_path)
    assert again.positions == {SOURCE: "0"}
    feed(again, entries(0, 60))
    (table,) = [text for name, text in written(tmp_path).items() if name.endswith(".frames.csv")]
    rows = table.decode().splitlines()[1:]
    assert len(rows) == len({row.partition(",")[0] for row in rows})


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    keeper = make(MemoryStore(), tmp_path)
    feed(keeper, [JournalEntry(SOURCE, "1-1", None), *entries(1, 3)])
    assert keeper.unreadable == 1
    assert keeper.positions == {SOURCE: "3-2"}


def test_who_lost_the_timelines_touches_no_file(tmp_path: Path) -> None:
    ours = [True]
    store, files = MemoryStore(), RollingTables(tmp_path, retention_days=None, clock=time.time)
    keeper = TimelineProcessor(store, files, settings=lambda _: waiting(math.inf), owns=lambda: ours[0])
    keeper.open(SOURCE)
    feed(keeper, entries(0, 60))
    before = written(tmp_path)
    ours[0] = False
    with pytest.raises(LeaseLost, match="nothing more was written"):
        feed(keeper, entries(60, 120))
    with pytest.raises(LeaseLost):
        keeper.commit()
    assert written(tmp_path) == before


def test_a_source_may_be_waited_for_longer_than_when_it_was_opened() -> None:
    waits_s = [2.0]
    keeper = TimelineProcessor(MemoryStore(), None, settings=lambda _: waiting(waits_s[-1]))
    keeper.open(SOURCE)
    told, horizon = entries(0, 100), Watermark(STREAM, 0.0)
    keeper.add(told[1:50])
    keeper.advance(SOURCE, horizon)
    assert keeper.loss_counts(SOURCE) == (1, 0)
    waits_s.append(math.inf)
    keeper.add(told[51:])
    keeper.advance(SOURCE, horizon)
    assert keeper.loss_counts(SOURCE) == (1, 0)
    keeper.add(told[50:51])
    assert keeper.loss_counts(SOURCE) == (1, 0)


def test_a_journal_that_began_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    keeper = make(MemoryStore(), tmp_path)
    feed(keeper, entries(0, 3))
    keeper.restart(SOURCE)
    assert keeper.positions == {SOURCE: JOURNAL_START}


def test_a_full_disk_stops_the_files_and_not_the_service(
    small_disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(32)
    (disk / "hog").write_bytes(os.urandom(24_000))
    store = MemoryStore()
    keeper = make(store, disk)
    with caplog.at_level(logging.ERROR):
        for start in range(0, 400, 20):
            feed(keeper, entries(start, start + 20))
            keeper.commit()
    assert [frame.index for frame in store.results(SOURCE, "0", 1000, 0)] == list(range(400))
    assert str(disk) in caplog.text, "and says so"
    table = next((disk / SOURCE).glob("*.frames.csv")).read_text()
    assert table.endswith("\n")
    assert 0 < len(table.splitlines()) < 380
