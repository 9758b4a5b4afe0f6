"""Loops of the service in one process: the results equal those of `run_file`."""

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
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.metrics import Metrics
from fer_stream.outputs.daily_tables import DailyTables
from fer_stream.pipeline import Predictor, run_capture, run_classify, run_timeline
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
from fer_stream.timeline.processor import TimelineMetrics, TimelineProcessor
from tests.support.memory_broker import MemoryJournal, MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import wait_until

NAME = "clip"


@pytest.fixture(scope="module")
def engine(yunet_weights: Path) -> FileProcessor:
    return FileProcessor(FileSettings(detector=DetectorSettings(type="yunet", weights=yunet_weights)))


class Poisoned:
    """Classifier that fails on every batch with one certain crop."""

    def __init__(self, engine: FileProcessor, poison: bytes) -> None:
        self.spec: ModelSpec = engine.classifier.spec
        self._real = engine.classifier
        self._poison = poison

    def predict(self, pixels: U8) -> ClassifierOutput:
        if any(one.tobytes() == self._poison for one in pixels):
            raise RuntimeError("poison")
        return self._real.predict(pixels)


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


class Losses:
    """Metrics of a timeline, and the numbers of its lost faces."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.metrics = TimelineMetrics(Metrics(self._registry), now=time.time)

    def of(self, source: str) -> tuple[float | None, float | None]:
        """Return the numbers of missing and of late faces."""
        value, labels = self._registry.get_sample_value, {"source": source}
        return value("fer_predictions_missing_total", labels), value("fer_predictions_late_total", labels)


def through_the_queue(
    engine: FileProcessor, clip: Path, *, poison: bytes = b""
) -> tuple[MemoryStore, Losses, MemoryQueue]:
    """Run capture, worker and timeline concurrently, with a queue of 40 crops that blocks the capture."""
    stop, ended = Event(), Event()
    passes: list[None] = []
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
    losses = Losses()
    processor = TimelineProcessor(store, None, losses.metrics, settings=lambda _: settings)

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
            Predictor(classifier, 16, engine.settings.model.min_agreement, metrics()),
            batch_timeout_s=0,
            stop=stop,
            now=time.time,
        )

    def timeline() -> None:
        run_timeline(lambda: [NAME], queue, journal, processor, stop=stop, maintain=lambda: passes.append(None))

    threads = [Thread(target=work) for work in (capture, classify, timeline)]
    for thread in threads:
        thread.start()
    assert ended.wait(60)
    wait_until(lambda: queue.counts(source.stream_id).pending == 0)
    # One pass reads the last entries, the next one finalises them.
    last = len(passes) + 3
    wait_until(lambda: len(passes) > last)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return store, losses, queue


def segments_of(store: MemoryStore) -> list[tuple[int, Segment]]:
    return sorted(
        ((one.person_id, one) for one in store.segments(NAME, 0, time.time() + 1e6)),
        key=lambda pair: (pair[0], pair[1].start_s),
    )


@pytest.mark.parametrize("name", ["one_face_crying", "two_faces", "leave_and_return"])
def test_results_through_the_queue_equal_those_of_a_file_run(engine: FileProcessor, clips: Path, name: str) -> None:
    clip = clips / f"{name}.mp4"
    frames: list[LabelledFrame] = []
    summary = engine.process(engine.open(clip, NAME), frames.extend, metrics=metrics())
    store, losses, _ = through_the_queue(engine, clip)
    assert losses.of(NAME) == (0, 0)
    expected = [(person.person_id, segment) for person in summary.people for segment in person.segments]
    assert [(p, replace(s, stream_id="")) for p, s in segments_of(store)] == [
        (p, replace(s, stream_id="")) for p, s in expected
    ]
    shown = store.results(NAME, "0", 10_000, 0)
    assert [frame.index for frame in shown] == [frame.index for frame in frames]


def test_pipelining_does_not_change_the_results(engine: FileProcessor, clips: Path, tmp_path: Path) -> None:
    tables = []
    for threads in (1, 2):
        job = FileTask(clips / "leave_and_return.mp4", NAME, tmp_path / str(threads))
        job.output_dir.mkdir()
        process_file(FileProcessor(engine.settings, threads=threads), job)
        tables.append((job.output_dir / f"{NAME}.frames.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") > 100


def test_prefetch_thread_ends_when_the_sink_fails(engine: FileProcessor, clips: Path) -> None:
    def full(_: object) -> None:
        raise OutputError("No space left")

    with pytest.raises(OutputError, match="No space left"):
        engine.process(engine.open(clips / "two_faces.mp4", NAME), full, metrics=metrics())
    assert not [thread for thread in threads_alive() if "prefetch" in thread.name]


@pytest.mark.parametrize("threads", [1, 2])
def test_error_of_the_detector_is_raised_after_the_frames_before_it(
    engine: FileProcessor, clips: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FileProcessor(engine.settings, threads=threads)
    detect, looks, frames = failing.detector.detect, count(), list[LabelledFrame]()

    def fails(image: U8, input_size_px: int | None = None) -> Detections:
        if next(looks) == 20:
            raise RuntimeError("the detector is broken")
        return detect(image, input_size_px)

    monkeypatch.setattr(failing.detector, "detect", fails)
    with pytest.raises(RuntimeError, match="the detector is broken"):
        failing.process(failing.open(clips / "one_face_crying.mp4", NAME), frames.extend, metrics=metrics())
    assert frames


def test_crop_that_fails_does_not_affect_others(engine: FileProcessor, clips: Path) -> None:
    clip = clips / "one_face_smile.mp4"
    poison: list[bytes] = []
    engine.process(
        engine.open(clip, NAME),
        lambda _: None,
        metrics=metrics(),
        on_crops=lambda crops: poison.extend(c.pixels.tobytes() for c in crops),
    )
    store, losses, queue = through_the_queue(engine, clip, poison=poison[10])
    (stream_id,) = {frame.stream_id for frame in store.results(NAME, "0", 1, 0)}
    counts = queue.counts(stream_id)
    assert (counts.enqueued, counts.acked, counts.dead) == (len(poison), len(poison) - 1, 1)
    assert losses.of(NAME) == (1, 0)
    assert [segment.label for _, segment in segments_of(store)] == ["neutral", "happy"]


SOURCE = "door"
FPS = 10.0
SESSIONS = tuple(stream_id_of(SOURCE, round(1000 * time.time()) + late_ms) for late_ms in (0, 60_000))


def face(stream_id: str, person: int, index: int, emotion: str) -> Prediction:
    probs = np.full(7, 0.02, np.float32)
    probs[LABELS.index(emotion)] = 0.88
    box, key = np.array([0, 0, 50, 50], np.float32), FaceKey(stream_id, person, index)
    return Prediction(Face(key, index / FPS, 0.0, box, 0.9, Quality(0.9, "ok")), probs, "test")


def crop_of(one: Prediction) -> FaceCrop:
    return FaceCrop(one.face, np.zeros((48, 48), np.uint8))


def long_journal(rng: random.Random, lost: float) -> list[JournalMessage]:
    """Return two sessions of two people. Faces are up to 8 s late, and the share `lost` of them is missing."""
    sent: list[tuple[float, JournalMessage]] = []
    for session, stream_id in enumerate(SESSIONS):
        for index in range(300):
            at_s = 60 * session + index / FPS
            sent.append((at_s, FrameHeader(stream_id, index, index / FPS, 2)))
            for person, emotion in ((1, LABELS[index // 50 % 7]), (2, LABELS[index // 80 % 7])):
                if rng.random() >= lost:
                    sent.append((at_s + 8 * rng.random(), face(stream_id, person, index, emotion)))
    sent.append((50.0, EndOfStream(SESSIONS[0], 30.0, 300, 600)))
    return [message for _, message in sorted(sent, key=lambda pair: pair[0])]


class Processed:
    """Results of a timeline for a journal that grew while no timeline process was running."""

    def __init__(
        self, journal: Journal, sent: Sequence[JournalMessage], folder: Path, allowed_lateness_s: float
    ) -> None:
        self.store, self.left = MemoryStore(Retention(results=100_000)), list[int]()
        folder.mkdir()
        files = DailyTables(folder, retention_days=None, clock=time.time)
        settings = LiveTimelineSettings().model_copy(update={"allowed_lateness_s": allowed_lateness_s})
        losses = Losses()
        processor = TimelineProcessor(self.store, files, losses.metrics, settings=lambda _: settings)
        queue = MemoryQueue(journal, Overflow.file())
        journal.append(sent)
        open_face = face(SESSIONS[1], 1, 300, "happy")
        journal.append([FrameHeader(SESSIONS[1], 300, 30.0, 1)])
        queue.enqueue([crop_of(open_face)])
        stop = Event()

        def measure() -> None:
            self.left.append(len(journal.read({SOURCE: JOURNAL_START}, 100_000, 0)))
            if self.left[-2:] == [0, 0]:
                stop.set()

        run_timeline(lambda: [SOURCE], queue, journal, processor, stop=stop, maintain=measure)
        self.lost = losses.of(SOURCE)
        self.files = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]

    @property
    def results(self) -> object:
        frames = self.store.results(SOURCE, JOURNAL_START, 9999, 0)
        shown = [(frame.stream_id, frame.index, len(frame.faces)) for frame in frames]
        return self.lost, self.files, shown, self.store.segments(SOURCE, 0, 1e12), self.store.gaps(SOURCE, 0, 1e12)


@pytest.mark.parametrize("lost", [0.0, 0.03])
@pytest.mark.parametrize("allowed_lateness_s", [15, math.inf])
def test_results_do_not_depend_on_the_number_of_passes(
    lost: float, allowed_lateness_s: float, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = long_journal(random.Random(1), lost)
    once = Processed(MemoryJournal(), sent, tmp_path / "once", allowed_lateness_s)
    assert len(set(once.left)) == 2, "everything in the first pass, nothing in the second"
    assert once.lost[1] == 0

    for name, value in {"_ENTRIES_PER_READ": 50, "MAX_ENTRIES_PER_PASS": 200, "_COMMIT_INTERVAL_S": 0.0}.items():
        monkeypatch.setattr(f"fer_stream.pipeline.{name}", value)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    link = open_client(redis_url)
    often = Processed(RedisJournal(link), sent, tmp_path / "often", allowed_lateness_s)
    link.close()
    assert often.results == once.results
    read = [before - after for before, after in pairwise(often.left) if before > after]
    assert len(read) == math.ceil(once.left[0] / 200), "each pass is committed and trimmed"
    assert max(read) == 200


def test_undecodable_crop_keeps_later_crops_pending(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.xadd(SourceKeys(SOURCE, 1).crops, {"s": SESSIONS[0], "c": b"of another version"})
    link = open_client(redis_url)
    queue, journal = RedisQueue(link), RedisJournal(link)
    faces = [face(SESSIONS[0], 1, index, "happy") for index in range(3)]
    queue.enqueue([crop_of(one) for one in faces])
    journal.append([FrameHeader(SESSIONS[0], index, index / FPS, 1) for index in range(3)])
    losses = Losses()
    processor = TimelineProcessor(MemoryStore(), None, losses.metrics, settings=lambda _: LiveTimelineSettings())
    passes, stop = count(), Event()

    def classify_later() -> None:
        number = next(passes)
        if number == 5:
            assert losses.of(SOURCE) == (0, 0)
            queue.ack([(delivery, faces[delivery.crop.face.key.frame_index]) for delivery in queue.receive(8, 0)])
        elif number == 8:
            stop.set()

    run_timeline(lambda: [SOURCE], queue, journal, processor, stop=stop, maintain=classify_later)
    assert losses.of(SOURCE) == (0, 0)
    assert queue.counts(SESSIONS[0]) == Counts(enqueued=3, acked=3, dead=1)
    link.close()
