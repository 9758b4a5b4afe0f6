"""The loops joined in one process: what passes through the queue is what `run_file` makes of the same file."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as threads_alive

import pytest
from prometheus_client import CollectorRegistry

from fer_stream import FileSettings, build
from fer_stream.config import DetectorSettings
from fer_stream.errors import OutputError
from fer_stream.filejob import Engine, FileJob, run_job
from fer_stream.metrics import Metrics
from fer_stream.pipeline import run_capture, run_recognize, run_timeline
from fer_stream.queues.memory import MemoryJournal, MemoryQueue
from fer_stream.queues.queue import Overflow, Redelivery
from fer_stream.recognize.classifier import Judgement
from fer_stream.records import U8, Detections, EmotionSegment, LabelledFrame, ModelSpec
from fer_stream.timeline.counts import TimelineCounts
from fer_stream.timeline.keeper import TimelineKeeper
from fer_stream.timeline.memory import MemoryStore

NAME = "clip"


@pytest.fixture(scope="module")
def engine(yunet_weights: Path) -> Engine:
    return Engine(FileSettings(detector=DetectorSettings(kind="yunet", weights=yunet_weights)))


class Poisoned:
    """A classifier that fails on one crop, whatever batch it comes in."""

    def __init__(self, engine: Engine, poison: bytes) -> None:
        self.spec: ModelSpec = engine.classifier.spec
        self._real = engine.classifier
        self._poison = poison

    def predict(self, pixels: U8) -> Judgement:
        if any(one.tobytes() == self._poison for one in pixels):
            raise RuntimeError("poison")
        return self._real.predict(pixels)


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def through_the_queue(
    engine: Engine, clip: Path, *, poison: bytes = b""
) -> tuple[MemoryStore, TimelineKeeper, MemoryQueue]:
    """Capture, worker and timeline at the same time, on a queue of 40 crops that blocks the reader."""
    stop, ended = Event(), Event()
    journal, store = MemoryJournal(), MemoryStore()
    queue = MemoryQueue(
        journal, Overflow.file(capacity=40), Redelivery(after_s=0.05, deliveries=2), idle_s=0.02, stop=stop
    )
    source = engine.open(clip, NAME)
    keeper = TimelineKeeper(store, None, settings=engine.settings.timeline, lateness_s=lambda _: 60)

    def capture() -> None:
        follower = build.make_follower(
            source, engine.detector, engine.settings, metrics(), classify_every_s=engine.settings.model.every_s
        )
        run_capture(source.frames(), source, follower, queue, journal, metrics=metrics())
        ended.set()

    def recognize() -> None:
        classifier = Poisoned(engine, poison) if poison else engine.classifier
        run_recognize(
            queue,
            classifier,
            max_batch=16,
            min_agreement=engine.settings.model.min_agreement,
            max_wait_s=0,
            metrics=metrics(),
            stop=stop,
            now=time.time,
        )

    def timeline() -> None:
        run_timeline(
            lambda: [NAME],
            queue,
            journal,
            keeper,
            TimelineCounts(metrics(), now=time.time),
            stop=stop,
            monotonic=time.monotonic,
        )

    threads = [Thread(target=work) for work in (capture, recognize, timeline)]
    for thread in threads:
        thread.start()
    assert ended.wait(60)
    deadline = time.monotonic() + 30
    while queue.counts(source.stream_id).open and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return store, keeper, queue


def told(store: MemoryStore) -> list[tuple[int, EmotionSegment]]:
    return sorted(
        ((one.track_id, one.segment) for one in store.segments(NAME, 0, time.time() + 1e6)),
        key=lambda pair: (pair[0], pair[1].start_s),
    )


@pytest.mark.parametrize("name", ["one_face_crying", "two_faces", "leave_and_return"])
def test_a_file_through_the_queue_is_a_file_through_run(engine: Engine, clips: Path, name: str) -> None:
    clip = clips / f"{name}.mp4"
    frames: list[LabelledFrame] = []
    summary = engine.process(engine.open(clip, NAME), frames.extend, metrics=metrics())
    store, keeper, _ = through_the_queue(engine, clip)
    assert keeper.lost(NAME) == (0, 0)
    expected = [(person.track_id, segment) for person in summary.people for segment in person.segments]
    assert told(store) == expected
    shown = store.results(NAME, "0", 10_000, 0)
    assert [frame.index for frame in shown] == [frame.index for frame in frames]


def test_reading_ahead_changes_nothing(engine: Engine, clips: Path, tmp_path: Path) -> None:
    tables = []
    for threads in (1, 2):
        job = FileJob(clips / "leave_and_return.mp4", NAME, tmp_path / str(threads))
        job.out.mkdir()
        run_job(Engine(engine.settings, threads=threads), job)
        tables.append(job.at("frames.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") > 100


def test_whoever_reads_ahead_ends_with_what_fails_behind(engine: Engine, clips: Path) -> None:
    def full(_: object) -> None:
        raise OutputError("No space left")

    with pytest.raises(OutputError, match="No space left"):
        engine.process(engine.open(clips / "two_faces.mp4", NAME), full, metrics=metrics())
    assert not [thread for thread in threads_alive() if "read-ahead" in thread.name]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_fails_ahead_is_raised_behind_what_was_found_before(
    engine: Engine, clips: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Engine(engine.settings, threads=threads)
    detect, looks, frames = failing.detector.detect, count(), list[LabelledFrame]()

    def fails(image: U8) -> Detections:
        if next(looks) == 20:
            raise RuntimeError("the detector is broken")
        return detect(image)

    monkeypatch.setattr(failing.detector, "detect", fails)
    with pytest.raises(RuntimeError, match="the detector is broken"):
        failing.process(failing.open(clips / "one_face_crying.mp4", NAME), frames.extend, metrics=metrics())
    assert frames


def test_a_poison_crop_costs_itself_alone(engine: Engine, clips: Path) -> None:
    clip = clips / "one_face_smile.mp4"
    poison: list[bytes] = []
    engine.process(
        engine.open(clip, NAME),
        lambda _: None,
        metrics=metrics(),
        look=lambda crops: poison.extend(c.pixels.tobytes() for c in crops),
    )
    store, keeper, queue = through_the_queue(engine, clip, poison=poison[10])
    (stream_id,) = {frame.stream_id for frame in store.results(NAME, "0", 1, 0)}
    counts = queue.counts(stream_id)
    assert (counts.put, counts.settled, counts.dead) == (len(poison), len(poison) - 1, 1)
    assert keeper.lost(NAME) == (1, 0)
    assert [segment.label for _, segment in told(store)] == ["neutral", "happy"]
