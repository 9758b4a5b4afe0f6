"""The contract of queue and journal, held by every backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from redis import Redis, RedisCluster

from fer_stream.broker.client import Link, open_link
from fer_stream.broker.codec import Message
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import START, Counts, Delivery, Entry, Journal, MessageQueue, Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.errors import QueueFull
from fer_stream.records import EndOfStream, FaceCrop, FrameHeader, Gap, Prediction
from tests.support.memory_broker import MemoryJournal, MemoryQueue

MakeCrop = Callable[..., FaceCrop]
Answer = Callable[[FaceCrop], Prediction]

STREAM = "door@1"
IDLE_S = 0.15


@dataclass
class Rig:
    """One queue as a capture, two workers and the timeline see it."""

    capture: MessageQueue
    worker: MessageQueue
    other: MessageQueue
    journal: Journal
    stop: threading.Event

    def positions(self, source: str = "door") -> list[str]:
        return [entry.position for entry in self.read(source)]

    def read(self, source: str = "door") -> list[Entry]:
        return self.journal.read({source: START}, 1000, 0)


MakeRig = Callable[..., Rig]


@pytest.fixture(params=["memory", "valkey", "redis", "cluster"])
def rig(request: pytest.FixtureRequest) -> Iterator[MakeRig]:
    """Makes a rig with the overflow policy and the redelivery that a test wants."""
    links: list[Link] = []

    def in_memory(overflow: Overflow, redelivery: Redelivery) -> Rig:
        stop = threading.Event()
        journal = MemoryJournal()
        queue = MemoryQueue(journal, overflow, redelivery, idle_s=IDLE_S, stop=stop)
        return Rig(queue, queue, queue, journal, stop)

    def on_server(overflow: Overflow, redelivery: Redelivery) -> Rig:
        url = request.getfixturevalue(f"{request.param}_url")
        cluster = request.param == "cluster"
        with (RedisCluster if cluster else Redis).from_url(url) as client:
            client.flushall()
        link = open_link(url, cluster=cluster, patience_s=5)
        links.append(link)
        capture, worker, other = (
            RedisQueue(link, shards=2, overflow=overflow, redelivery=redelivery, idle_s=IDLE_S) for _ in range(3)
        )
        return Rig(capture, worker, other, RedisJournal(link, shards=2), link.stop)

    def make(overflow: Overflow | None = None, redelivery: Redelivery | None = None) -> Rig:
        build = in_memory if request.param == "memory" else on_server
        return build(overflow or Overflow.live(), redelivery or Redelivery())

    yield make
    for link in links:
        link.close()


def frames(batch: list[Delivery]) -> list[int]:
    return [delivery.crop.key.frame_index for delivery in batch]


def test_a_crop_goes_through_unchanged_and_its_prediction_reaches_the_journal(
    rig: MakeRig, crop: MakeCrop, answer: Answer
) -> None:
    queue = rig()
    sent = crop(7)
    assert queue.capture.put([sent]) == 0
    [delivery] = queue.worker.take(16, 0)
    assert delivery.attempt == 1
    assert delivery.crop.key == sent.key
    assert (delivery.crop.time_s, delivery.crop.captured_at) == (sent.time_s, sent.captured_at)
    np.testing.assert_array_equal(delivery.crop.pixels, sent.pixels)
    np.testing.assert_array_equal(delivery.crop.xyxy, sent.xyxy)

    assert queue.worker.settle([(delivery, answer(sent))]) == 1
    [entry] = queue.read()
    assert isinstance(entry.message, Prediction)
    assert entry.message.key == sent.key
    assert entry.message.model_id == "test-model"
    np.testing.assert_array_equal(entry.message.probs, answer(sent).probs)


def test_crops_of_one_source_come_in_order(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.put([crop(0), crop(1)])
    queue.capture.put([crop(2)])
    assert frames(queue.worker.take(2, 0)) == [0, 1]
    assert frames(queue.worker.take(2, 0)) == [2]


def test_take_returns_empty_when_its_idle_time_is_over(rig: MakeRig) -> None:
    queue = rig()
    started = time.monotonic()
    assert queue.worker.take(4, 0) == []
    assert time.monotonic() - started >= IDLE_S


def test_take_waits_for_a_batch_to_fill(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.put([crop(0)])
    late = threading.Timer(0.05, lambda: queue.capture.put([crop(1), crop(2)]))
    late.start()
    batch = queue.worker.take(3, 0.5)
    late.join()
    assert frames(batch) == [0, 1, 2]


def test_no_crop_is_on_loan_twice(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.put([crop(frame) for frame in range(6)])
    first = queue.worker.take(3, 0)
    second = queue.other.take(6, 0)
    assert sorted(frames(first) + frames(second)) == list(range(6))
    assert queue.worker.take(6, 0) == []


def test_a_busy_source_leaves_room_for_a_quiet_one(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.put([crop(frame, "door") for frame in range(40)])
    queue.capture.put([crop(frame, "yard") for frame in range(2)])
    queue.worker.take(1, 0)
    batch = queue.worker.take(8, 0)
    assert len(batch) == 8
    assert [delivery.crop.key.stream_id for delivery in batch].count("yard@1") >= 1


def test_never_more_than_asked_for_and_every_source_in_its_turn(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    sources = [f"cam-{number}" for number in range(9)]
    for source in sources:
        queue.capture.put([crop(0, source)])
    seen: list[str] = []
    while batch := queue.worker.take(4, 0):
        assert len(batch) <= 4
        seen += [delivery.crop.key.stream_id for delivery in batch]
    assert sorted(seen) == [f"{source}@1" for source in sources]


def test_a_crop_is_published_once_whoever_settles_it(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig()
    queue.capture.put([crop(0), crop(1)])
    done = [(delivery, answer(delivery.crop)) for delivery in queue.worker.take(2, 0)]
    assert queue.worker.settle(done) == 2
    assert queue.other.settle(done) == 0
    assert len(queue.read()) == 2
    assert queue.capture.counts(STREAM) == Counts(put=2, settled=2)


def test_depth_is_what_waits_and_what_is_in_work(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig()
    queue.capture.put([crop(frame) for frame in range(5)])
    taken = queue.worker.take(2, 0)
    assert queue.worker.depth() == 5
    queue.worker.settle([(delivery, answer(delivery.crop)) for delivery in taken])
    assert queue.worker.depth() == 3


def oldest(queue: Rig) -> dict[str, int]:
    found = queue.capture.oldest(["door", "hall"])
    return {source: crop.key.frame_index for source, crop in found.items() if crop}


def test_the_oldest_crop_is_the_one_no_prediction_is_out_for(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig()
    assert oldest(queue) == {}
    queue.capture.put([crop(3), crop(4)])
    [first] = queue.worker.take(1, 0)
    assert oldest(queue) == {"door": 3}
    queue.worker.settle([(first, answer(first.crop))])
    assert oldest(queue) == {"door": 4}
    assert queue.capture.oldest([]) == {}


def test_live_overload_drops_the_oldest_and_counts_it(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.live(capacity=4))
    assert queue.capture.put([crop(frame) for frame in range(4)]) == 0
    assert queue.capture.put([crop(4), crop(5)]) == 2
    assert frames(queue.worker.take(16, 0)) == [2, 3, 4, 5]
    assert queue.capture.counts(STREAM) == Counts(put=6, dropped=2)


def test_live_overload_leaves_crops_in_work_alone(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig(Overflow.live(capacity=3))
    queue.capture.put([crop(frame) for frame in range(3)])
    taken = queue.worker.take(3, 0)
    assert queue.capture.put([crop(frame) for frame in range(3, 10)]) == 4
    assert queue.worker.settle([(delivery, answer(delivery.crop)) for delivery in taken]) == 3
    assert frames(queue.worker.take(16, 0)) == [7, 8, 9]


def test_live_crops_do_not_grow_old(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.live(max_age_s=0.1))
    queue.capture.put([crop(0), crop(1)])
    time.sleep(0.2)
    assert queue.capture.put([crop(2)]) == 2
    assert frames(queue.worker.take(16, 0)) == [2]


def test_a_crop_that_stays_in_work_too_long_is_dropped_and_not_published_later(
    rig: MakeRig, crop: MakeCrop, answer: Answer
) -> None:
    queue = rig(Overflow.live(max_age_s=0.1), Redelivery(after_s=0.1))
    queue.capture.put([crop(0)])
    [stuck] = queue.worker.take(1, 0)
    time.sleep(0.3)
    assert queue.capture.put([crop(1)]) == 1
    assert queue.worker.settle([(stuck, answer(stuck.crop))]) == 0
    assert queue.capture.counts(STREAM) == Counts(put=2, dropped=1)


def test_drops_are_counted_for_the_stream_they_belonged_to(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.live(capacity=2))
    queue.capture.put([crop(0, epoch=1), crop(1, epoch=1)])
    queue.capture.put([crop(0, epoch=2)])
    assert queue.capture.counts("door@1") == Counts(put=2, dropped=1)
    assert queue.capture.counts("door@2") == Counts(put=1)


def test_a_file_waits_for_room_and_loses_nothing(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig(Overflow.file(capacity=4))
    crops = [crop(frame) for frame in range(30)]
    producer = threading.Thread(target=lambda: queue.capture.put(crops))
    producer.start()
    seen: list[int] = []
    while len(seen) < 30:
        batch = queue.worker.take(3, 0)
        assert queue.worker.depth() <= 4
        seen += frames(batch)
        queue.worker.settle([(delivery, answer(delivery.crop)) for delivery in batch])
    producer.join(5)
    assert seen == list(range(30))
    assert queue.capture.counts(STREAM) == Counts(put=30, settled=30)


def test_a_blocked_put_can_be_stopped(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.file(capacity=2))
    threading.Timer(0.1, queue.stop.set).start()
    with pytest.raises(QueueFull, match="door"):
        queue.capture.put([crop(frame) for frame in range(5)])
    assert queue.capture.counts(STREAM).put == 2


def test_a_crop_that_is_not_settled_comes_again_alone(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig(redelivery=Redelivery(after_s=0.1))
    queue.capture.put([crop(0), crop(1)])
    lost = queue.worker.take(2, 0)
    time.sleep(0.2)
    [again] = queue.other.take(16, 0)
    [later] = queue.other.take(16, 0)
    assert [again.attempt, later.attempt] == [2, 2]
    assert frames([again, later]) == [0, 1]
    assert queue.other.settle([(again, answer(again.crop)), (later, answer(later.crop))]) == 2
    assert queue.worker.settle([(delivery, answer(delivery.crop)) for delivery in lost]) == 0
    assert queue.capture.counts(STREAM) == Counts(put=2, settled=2)


def test_after_three_deliveries_a_crop_is_dead(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(redelivery=Redelivery(after_s=0.05, deliveries=3))
    queue.capture.put([crop(0)])
    attempts = []
    deadline = time.monotonic() + 5
    while queue.capture.counts(STREAM).dead == 0 and time.monotonic() < deadline:
        attempts += [delivery.attempt for delivery in queue.worker.take(4, 0)]
        time.sleep(0.06)
    assert attempts == [1, 2, 3]
    assert queue.capture.counts(STREAM) == Counts(put=1, dead=1)
    assert queue.worker.depth() == 0


def test_the_journal_keeps_what_captures_and_workers_say_in_order(rig: MakeRig) -> None:
    journal = rig().journal
    said: list[Message] = [
        FrameHeader(STREAM, 0, 0.0, 1),
        Gap("door", 1.0, 2.5, "stall"),
        EndOfStream(STREAM, 3.0, 15, 9),
    ]
    journal.append(said[:1])
    journal.append(said[1:])
    entries = journal.read({"door": START}, 10, 0)
    assert [entry.message for entry in entries] == said
    assert {entry.source for entry in entries} == {"door"}


def test_the_journal_is_read_from_a_position_on(rig: MakeRig) -> None:
    queue = rig()
    marks = [FrameHeader(STREAM, index, index / 5, 0) for index in range(5)]
    queue.journal.append(marks)
    positions = queue.positions()
    two = queue.journal.read({"door": positions[1]}, 2, 0)
    assert [entry.message for entry in two] == marks[2:4]
    assert queue.journal.read({"door": positions[-1]}, 10, 0) == []


def test_reading_the_journal_waits_for_something_new(rig: MakeRig) -> None:
    queue = rig()
    mark = FrameHeader(STREAM, 0, 0.0, 0)
    late = threading.Timer(0.1, lambda: queue.journal.append([mark]))
    late.start()
    assert [entry.message for entry in queue.journal.read({"door": START}, 10, 0.9)] == [mark]
    late.join()


def test_a_journal_knows_its_positions_also_when_it_is_trimmed(rig: MakeRig) -> None:
    queue = rig()
    assert queue.journal.knows("door", START)
    queue.journal.append([FrameHeader(STREAM, index, float(index), 0) for index in range(3)])
    last = queue.positions()[-1]
    queue.journal.trim("door", last)
    assert queue.journal.knows("door", last)


def test_what_is_trimmed_is_gone_and_the_rest_stays(rig: MakeRig) -> None:
    queue = rig()
    marks = [FrameHeader(STREAM, index, index / 5, 0) for index in range(5)]
    queue.journal.append(marks)
    queue.journal.trim("door", queue.positions()[2])
    assert [entry.message for entry in queue.read()] == marks[3:]


def test_counts_add_up_under_threads(rig: MakeRig, crop: MakeCrop, answer: Answer) -> None:
    queue = rig(Overflow.live(capacity=8))
    ended = threading.Event()

    def work(worker: MessageQueue) -> None:
        while not ended.is_set() or worker.depth():
            worker.settle([(delivery, answer(delivery.crop)) for delivery in worker.take(4, 0)])

    workers = [threading.Thread(target=work, args=[worker]) for worker in (queue.worker, queue.other)]
    for thread in workers:
        thread.start()
    reported = sum(queue.capture.put([crop(frame), crop(frame, track=2)]) for frame in range(200))
    ended.set()
    for thread in workers:
        thread.join(10)
    counts = queue.capture.counts(STREAM)
    assert counts.put == 400
    assert counts.dropped == reported
    assert counts.open == 0
    keys = [entry.message.key for entry in queue.read() if isinstance(entry.message, Prediction)]
    assert len(keys) == len(set(keys)) == counts.settled
