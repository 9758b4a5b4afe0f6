"""The loops joined in one process: what passes through the queue is what `run_file` makes of the same file."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as threads_alive

import numpy as np
import pytest
import redis
from prometheus_client import CollectorRegistry

from fer_stream import FileSettings, factory
from fer_stream.broker.client import open_client
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import JOURNAL_START, Counts, Journal, JournalMessage, Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.config.live import LiveTimelineSettings
from fer_stream.config.settings import DetectorSettings
from fer_stream.errors import OutputError
from fer_stream.files import Engine, FileJob, run_job
from fer_stream.metrics import Metrics
from fer_stream.outputs.daily_tables import RollingTables
from fer_stream.pipeline import run_capture, run_classify, run_timeline
from fer_stream.records import (
    LABELS,
    U8,
    Detections,
    EndOfStream,
    Face,
    FaceCrop,
    FaceKey,
    FrameHeader,
    LabelledFrame,
    ModelSpec,
    Prediction,
    Quality,
    Segment,
    stream_id_of,
)
from fer_stream.store.protocol import Retention
from fer_stream.timeline.metrics import TimelineMetrics
from fer_stream.timeline.processor import TimelineProcessor
from tests.support.memory_broker import MemoryJournal, MemoryQueue
from tests.support.memory_store import MemoryStore

NAME = "clip"


@pytest.fixture(scope="module")
def engine(yunet_weights: Path) -> Engine:
    return Engine(FileSettings(detector=DetectorSettings(type="yunet", weights=yunet_weights)))


class Poisoned:
    """A classifier that fails on one crop, whatever batch it comes in."""

    def __init__(self, engine: Engine, poison: bytes) -> None:
        self.spec: ModelSpec = engine.classifier.spec
        self._real = engine.classifier
        self._poison = poison

    def predict(self, pixels: U8) -> ClassifierOutput:
        if any(one.tobytes() == self._poison for one in pixels):
            raise RuntimeError("poison")
        return self._real.predict(pixels)


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def through_the_queue(
    engine: Engine, clip: Path, *, poison: bytes = b""
) -> tuple[MemoryStore, TimelineProcessor, MemoryQueue]:
    """Capture, worker and timeline at the same time, on a queue of 40 crops that blocks the reader."""
    stop, ended = Event(), Event()
    journal, store = MemoryJournal(), MemoryStore()
    queue = MemoryQueue(
        journal,
        Overflow.file(capacity=40),
        Redelivery(visibility_timeout_s=0.05, max_deliveries=2),
        poll_timeout_s=0.02,
        stop=stop,
    )
    source = engine.open(clip, NAME)
    settings = LiveTimelineSettings(**engine.settings.timeline.model_dump(), allowed_lateness_s=60)
    keeper = TimelineProcessor(store, None, settings=lambda _: settings)

    def capture() -> None:
        follower = factory.make_extractor(
            source, engine.detector, engine.settings, metrics(), classify_interval_s=engine.settings.model.interval_s
        )
        run_capture(source.frames(), source, follower, queue, journal, metrics=metrics())
        ended.set()

    def classify() -> None:
        classifier = Poisoned(engine, poison) if poison else engine.classifier
        run_classify(
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
            TimelineMetrics(metrics(), now=time.time),
            stop=stop,
            monotonic=time.monotonic,
        )

    threads = [Thread(target=work) for work in (capture, classify, timeline)]
    for thread in threads:
        thread.start()
    assert ended.wait(60)
    deadline = time.monotonic() + 30
    while queue.counts(source.stream_id).pending and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return store, keeper, queue


def told(store: MemoryStore) -> list[tuple[int, Segment]]:
    return sorted(
        ((one.person_id, one) for one in store.segments(NAME, 0, time.time() + 1e6)),
        key=lambda pair: (pair[0], pair[1].start_s),
    )


@pytest.mark.parametrize("name", ["one_face_crying", "two_faces", "leave_and_return"])
def test_a_file_through_the_queue_is_a_file_through_run(engine: Engine, clips: Path, name: str) -> None:
    clip = clips / f"{name}.mp4"
    frames: list[LabelledFrame] = []
    summary = engine.process(engine.open(clip, NAME), frames.extend, metrics=metrics())
    store, keeper, _ = through_the_queue(engine, clip)
    assert keeper.loss_counts(NAME) == (0, 0)
    expected = [(person.person_id, segment) for person in summary.people for segment in person.segments]
    assert [(p, replace(s, stream_id="")) for p, s in told(store)] == [
        (p, replace(s, stream_id="")) for p, s in expected
    ]
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
    assert (counts.enqueued, counts.acked, counts.dead) == (len(poison), len(poison) - 1, 1)
    assert keeper.loss_counts(NAME) == (1, 0)
    assert [segment.label for _, segment in told(store)] == ["neutral", "happy"]


SOURCE = "door"
FPS = 10.0
EPOCHS = tuple(stream_id_of(SOURCE, round(1000 * time.time()) + late_ms) for late_ms in (0, 60_000))


def face(stream_id: str, person: int, index: int, emotion: str) -> Prediction:
    probs = np.full(7, 0.02, np.float32)
    probs[LABELS.index(emotion)] = 0.88
    box, key = np.array([0, 0, 50, 50], np.float32), FaceKey(stream_id, person, index)
    return Prediction(Face(key, index / FPS, 0.0, box, 0.9, Quality(0.9, "ok")), probs, "test")


def crop_of(one: Prediction) -> FaceCrop:
    return FaceCrop(one.face, np.zeros((48, 48), np.uint8))


def long_journal(rng: random.Random, lost: float) -> list[JournalMessage]:
    """Two epochs of two people, the first of which ends. Faces come up to 8 s late, and of `lost` never."""
    told: list[tuple[float, JournalMessage]] = []
    for epoch, stream_id in enumerate(EPOCHS):
        for index in range(300):
            at_s = 60 * epoch + index / FPS
            told.append((at_s, FrameHeader(stream_id, index, index / FPS, 2)))
            for person, emotion in ((1, LABELS[index // 50 % 7]), (2, LABELS[index // 80 % 7])):
                if rng.random() >= lost:
                    told.append((at_s + 8 * rng.random(), face(stream_id, person, index, emotion)))
    told.append((50.0, EndOfStream(EPOCHS[0], 30.0, 300, 600)))
    return [message for _, message in sorted(told, key=lambda pair: pair[0])]


class Followed:
    """What a timeline makes of a journal that grew while there was none."""

    def __init__(
        self, journal: Journal, told: Sequence[JournalMessage], folder: Path, allowed_lateness_s: float
    ) -> None:
        self.store, self.left = MemoryStore(Retention(results=100_000)), list[int]()
        folder.mkdir()
        files = RollingTables(folder, retention_days=None, clock=time.time)
        settings = LiveTimelineSettings().model_copy(update={"allowed_lateness_s": allowed_lateness_s})
        keeper = TimelineProcessor(self.store, files, settings=lambda _: settings)
        queue = MemoryQueue(journal, Overflow.file())
        journal.append(told)
        open_face = face(EPOCHS[1], 1, 300, "happy")
        journal.append([FrameHeader(EPOCHS[1], 300, 30.0, 1)])
        queue.enqueue([crop_of(open_face)])
        stop = Event()

        def sources() -> list[str]:
            self.left.append(len(journal.read({SOURCE: JOURNAL_START}, 100_000, 0)))
            if self.left[-2:] == [0, 0]:
                stop.set()
            return [SOURCE]

        counts = TimelineMetrics(metrics(), now=time.time)
        run_timeline(sources, queue, journal, keeper, counts, stop=stop, monotonic=time.monotonic)
        self.lost = keeper.loss_counts(SOURCE)
        self.files = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]

    @property
    def told(self) -> object:
        frames = self.store.results(SOURCE, JOURNAL_START, 9999, 0)
        shown = [(frame.stream_id, frame.index, len(frame.faces)) for frame in frames]
        return self.lost, self.files, shown, self.store.segments(SOURCE, 0, 1e12), self.store.gaps(SOURCE, 0, 1e12)


@pytest.mark.parametrize("lost", [0.0, 0.03])
@pytest.mark.parametrize("allowed_lateness_s", [15, math.inf])
def test_a_journal_that_is_read_in_many_turns_is_told_as_in_one(
    lost: float, allowed_lateness_s: float, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = long_journal(random.Random(1), lost)
    once = Followed(MemoryJournal(), told, tmp_path / "once", allowed_lateness_s)
    assert len(set(once.left)) == 2, "all of it, then nothing"
    assert once.lost[1] == 0

    for name, value in {"_MAX_ENTRIES": 50, "_MOST_A_TURN": 200, "_COMMIT_S": 0.0}.items():
        monkeypatch.setattr(f"fer_stream.pipeline.{name}", value)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    link = open_client(redis_url)
    often = Followed(RedisJournal(link), told, tmp_path / "often", allowed_lateness_s)
    link.close()
    assert often.told == once.told
    read = [before - after for before, after in pairwise(often.left) if before > after]
    assert len(read) == math.ceil(once.left[0] / 200), "each turn is committed and trimmed"
    assert max(read) == 200


def test_a_crop_that_cannot_be_read_keeps_those_behind_it_open(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.xadd(SourceKeys(SOURCE, 1).crops, {"s": EPOCHS[0], "c": b"of another version"})
    link = open_client(redis_url)
    queue, journal = RedisQueue(link), RedisJournal(link)
    faces = [face(EPOCHS[0], 1, index, "happy") for index in range(3)]
    queue.enqueue([crop_of(one) for one in faces])
    journal.append([FrameHeader(EPOCHS[0], index, index / FPS, 1) for index in range(3)])
    keeper = TimelineProcessor(MemoryStore(), None, settings=lambda _: LiveTimelineSettings())
    turns, stop = count(), Event()

    def sources() -> list[str]:
        turn = next(turns)
        if turn == 5:
            assert keeper.loss_counts(SOURCE) == (0, 0)
            queue.ack([(delivery, faces[delivery.crop.face.key.frame_index]) for delivery in queue.receive(8, 0)])
        elif turn == 8:
            stop.set()
        return [SOURCE]

    counts = TimelineMetrics(metrics(), now=time.time)
    run_timeline(sources, queue, journal, keeper, counts, stop=stop, monotonic=time.monotonic)
    assert keeper.loss_counts(SOURCE) == (0, 0)
    assert queue.counts(EPOCHS[0]) == Counts(enqueued=3, acked=3, dead=1)
    link.close()
