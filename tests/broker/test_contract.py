"""Contract of queue and journal, run against every implementation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from redis import Redis, RedisCluster

from fer_stream.broker.client import Connection, RedisClient, open_client
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import (
    JOURNAL_START,
    Counts,
    Delivery,
    Journal,
    JournalEntry,
    JournalMessage,
    MessageQueue,
    Overflow,
    Redelivery,
)
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.source_registry import GROUP, SourceKeys
from fer_stream.errors import QueueFull
from fer_stream.records import EndOfStream, FaceCrop, FrameHeader, Gap, Prediction
from tests.support.memory_broker import MemoryJournal, MemoryQueue
from tests.support.waiting import wait_until

MakeCrop = Callable[..., FaceCrop]
Predict = Callable[[FaceCrop], Prediction]

STREAM = "door@1"
POLL_TIMEOUT_S = 0.15
SHARDS = 2


@dataclass
class Rig:
    """One queue as seen by a capture, two workers and the timeline.

    `pass_time` returns when the given seconds have passed on the clock of the queue; `expire_in_flight` ends the
    visibility timeout of all crops in flight.
    """

    capture: MessageQueue
    worker: MessageQueue
    other: MessageQueue
    journal: Journal
    stop: threading.Event
    pass_time: Callable[[float], None]
    expire_in_flight: Callable[[], None]

    def positions(self, source: str = "door") -> list[str]:
        return [entry.position for entry in self.read(source)]

    def read(self, source: str = "door") -> list[JournalEntry]:
        return self.journal.read({source: JOURNAL_START}, 1000, 0)


MakeRig = Callable[..., Rig]


def in_memory(overflow: Overflow, redelivery: Redelivery) -> Rig:
    now_s = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    stop = threading.Event()
    journal = MemoryJournal()
    queue = MemoryQueue(journal, overflow, redelivery, poll_timeout_s=POLL_TIMEOUT_S, stop=stop, clock=lambda: now_s)
    return Rig(queue, queue, queue, journal, stop, pass_time, lambda: pass_time(redelivery.visibility_timeout_s))


def on_server(client: RedisClient, overflow: Overflow, redelivery: Redelivery) -> Rig:
    crops = SourceKeys("door", SHARDS).crops

    def expire_in_flight(connection: Connection) -> None:
        in_flight: list[dict[str, Any]] = connection.xpending_range(crops, GROUP, "-", "+", 1000)
        for pending in in_flight:
            connection.xclaim(
                crops,
                GROUP,
                pending["consumer"],
                0,
                [pending["message_id"]],
                idle=round(1000 * redelivery.visibility_timeout_s),
                justid=True,
            )

    capture, worker, other = (
        RedisQueue(
            client,
            shards=SHARDS,
            overflow=overflow,
            redelivery=redelivery,
            consumer=ConsumerOptions(poll_timeout_s=POLL_TIMEOUT_S),
        )
        for _ in range(3)
    )
    return Rig(
        capture,
        worker,
        other,
        RedisJournal(client, shards=SHARDS),
        client.stop,
        wait_for_wall_clock,
        lambda: client.call(expire_in_flight),
    )


def wait_for_wall_clock(seconds: float) -> None:
    """Wait until the TIME of the servers, which is this machine's clock in ms, has advanced by `seconds`."""
    end_s = time.time() + seconds + 0.001
    wait_until(lambda: time.time() > end_s)


@pytest.fixture(params=["memory", "valkey", "redis", "cluster"])
def rig(request: pytest.FixtureRequest) -> Iterator[MakeRig]:
    """Return a factory of rigs with an overflow policy and redelivery settings."""
    clients: list[RedisClient] = []

    def make(overflow: Overflow | None = None, redelivery: Redelivery | None = None) -> Rig:
        overflow, redelivery = overflow or Overflow.live(), redelivery or Redelivery()
        if request.param == "memory":
            return in_memory(overflow, redelivery)
        url = request.getfixturevalue(f"{request.param}_url")
        cluster = request.param == "cluster"
        with (RedisCluster if cluster else Redis).from_url(url) as connection:
            connection.flushall()
        clients.append(open_client(url, cluster=cluster, retry_timeout_s=5))
        return on_server(clients[-1], overflow, redelivery)

    yield make
    for client in clients:
        client.close()


def frames(batch: list[Delivery]) -> list[int]:
    return [delivery.crop.face.key.frame_index for delivery in batch]


def test_crop_is_delivered_unchanged_and_its_prediction_reaches_the_journal(
    rig: MakeRig, crop: MakeCrop, predict: Predict
) -> None:
    queue = rig()
    sent = crop(7)
    assert queue.capture.enqueue([sent]) == 0
    [delivery] = queue.worker.receive(16, 0)
    assert delivery.attempt == 1
    assert delivery.crop.face.key == sent.face.key
    assert (delivery.crop.face.time_s, delivery.crop.face.captured_at) == (sent.face.time_s, sent.face.captured_at)
    np.testing.assert_array_equal(delivery.crop.pixels, sent.pixels)
    np.testing.assert_array_equal(delivery.crop.face.xyxy, sent.face.xyxy)

    assert queue.worker.ack([(delivery, predict(sent))]) == 1
    [entry] = queue.read()
    assert isinstance(entry.message, Prediction)
    assert entry.message.face.key == sent.face.key
    assert entry.message.model_id == "test-model"
    np.testing.assert_array_equal(entry.message.probs, predict(sent).probs)


def test_crops_of_one_source_are_delivered_in_order(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.enqueue([crop(0), crop(1)])
    queue.capture.enqueue([crop(2)])
    assert frames(queue.worker.receive(2, 0)) == [0, 1]
    assert frames(queue.worker.receive(2, 0)) == [2]


def test_receive_returns_an_empty_batch_after_the_poll_timeout(rig: MakeRig) -> None:
    assert rig().worker.receive(4, 0) == []


def test_receive_waits_for_the_batch_to_fill(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.enqueue([crop(0)])
    late = threading.Timer(0.05, lambda: queue.capture.enqueue([crop(1), crop(2)]))
    late.start()
    batch = queue.worker.receive(3, 1.0)
    late.join()
    assert frames(batch) == [0, 1, 2]


def test_crop_in_flight_is_not_delivered_to_another_worker(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.enqueue([crop(frame) for frame in range(6)])
    first = queue.worker.receive(3, 0)
    second = queue.other.receive(6, 0)
    assert sorted(frames(first) + frames(second)) == list(range(6))
    assert queue.worker.receive(6, 0) == []


def test_batch_contains_crops_of_a_quiet_source_beside_a_busy_one(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    queue.capture.enqueue([crop(frame, "door") for frame in range(40)])
    queue.capture.enqueue([crop(frame, "yard") for frame in range(2)])
    queue.worker.receive(1, 0)
    batch = queue.worker.receive(8, 0)
    assert len(batch) == 8
    assert [delivery.crop.face.key.stream_id for delivery in batch].count("yard@1") >= 1


def test_batches_have_at_most_the_requested_size_and_cover_all_sources(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig()
    sources = [f"cam-{number}" for number in range(9)]
    for source in sources:
        queue.capture.enqueue([crop(0, source)])
    received: list[str] = []
    while batch := queue.worker.receive(4, 0):
        assert len(batch) <= 4
        received += [delivery.crop.face.key.stream_id for delivery in batch]
    assert sorted(received) == [f"{source}@1" for source in sources]


def test_crop_acknowledged_by_two_workers_is_published_once(rig: MakeRig, crop: MakeCrop, predict: Predict) -> None:
    queue = rig()
    queue.capture.enqueue([crop(0), crop(1)])
    done = [(delivery, predict(delivery.crop)) for delivery in queue.worker.receive(2, 0)]
    assert queue.worker.ack(done) == 2
    assert queue.other.ack(done) == 0
    assert len(queue.read()) == 2
    assert queue.capture.counts(STREAM) == Counts(enqueued=2, acked=2)


def test_depth_counts_waiting_crops_and_crops_in_flight(rig: MakeRig, crop: MakeCrop, predict: Predict) -> None:
    queue = rig()
    queue.capture.enqueue([crop(frame) for frame in range(5)])
    taken = queue.worker.receive(2, 0)
    assert queue.worker.depth() == 5
    queue.worker.ack([(delivery, predict(delivery.crop)) for delivery in taken])
    assert queue.worker.depth() == 3


def oldest(queue: Rig) -> dict[str, int]:
    found = queue.capture.oldest_pending(["door", "hall"])
    return {source: crop.face.key.frame_index for source, crop in found.items() if crop}


def test_oldest_pending_is_the_first_crop_without_a_prediction(
    rig: MakeRig, crop: MakeCrop, predict: Predict
) -> None:
    queue = rig()
    assert oldest(queue) == {}
    queue.capture.enqueue([crop(3), crop(4)])
    [first] = queue.worker.receive(1, 0)
    assert oldest(queue) == {"door": 3}
    queue.worker.ack([(first, predict(first.crop))])
    assert oldest(queue) == {"door": 4}
    assert queue.capture.oldest_pending([]) == {}


def test_drop_oldest_drops_and_counts_the_oldest_crops(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.live(capacity=4))
    assert queue.capture.enqueue([crop(frame) for frame in range(4)]) == 0
    assert queue.capture.enqueue([crop(4), crop(5)]) == 2
    assert frames(queue.worker.receive(16, 0)) == [2, 3, 4, 5]
    assert queue.capture.counts(STREAM) == Counts(enqueued=6, dropped=2)


def test_drop_oldest_keeps_crops_in_flight(rig: MakeRig, crop: MakeCrop, predict: Predict) -> None:
    queue = rig(Overflow.live(capacity=3))
    queue.capture.enqueue([crop(frame) for frame in range(3)])
    taken = queue.worker.receive(3, 0)
    assert queue.capture.enqueue([crop(frame) for frame in range(3, 10)]) == 4
    assert queue.worker.ack([(delivery, predict(delivery.crop)) for delivery in taken]) == 3
    assert frames(queue.worker.receive(16, 0)) == [7, 8, 9]


def test_waiting_crops_are_dropped_at_their_maximum_age(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.live(max_age_s=0.001))
    queue.capture.enqueue([crop(0), crop(1)])
    queue.pass_time(0.002)
    assert queue.capture.enqueue([crop(2)]) == 2
    assert frames(queue.worker.receive(16, 0)) == [2]


def test_crop_in_flight_beyond_its_maximum_age_is_dropped_and_not_published(
    rig: MakeRig, crop: MakeCrop, predict: Predict
) -> None:
    queue = rig(Overflow.live(max_age_s=0.001), Redelivery(visibility_timeout_s=0.001))
    queue.capture.enqueue([crop(0)])
    [late] = queue.worker.receive(1, 0)
    queue.pass_time(0.004)
    assert queue.capture.enqueue([crop(1)]) == 1
    assert queue.worker.ack([(late, predict(late.crop))]) == 0
    assert queue.capture.counts(STREAM) == Counts(enqueued=2, dropped=1)


def test_drops_are_counted_for_the_session_of_the_crop(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.live(capacity=2))
    queue.capture.enqueue([crop(0, session=1), crop(1, session=1)])
    queue.capture.enqueue([crop(0, session=2)])
    assert queue.capture.counts("door@1") == Counts(enqueued=2, dropped=1)
    assert queue.capture.counts("door@2") == Counts(enqueued=1)


def test_blocked_producer_waits_for_free_capacity_and_loses_nothing(
    rig: MakeRig, crop: MakeCrop, predict: Predict
) -> None:
    queue = rig(Overflow.file(capacity=4))
    crops = [crop(frame) for frame in range(30)]
    producer = threading.Thread(target=lambda: queue.capture.enqueue(crops))
    producer.start()
    received: list[int] = []
    while len(received) < 30:
        batch = queue.worker.receive(3, 0)
        assert queue.worker.depth() <= 4
        received += frames(batch)
        queue.worker.ack([(delivery, predict(delivery.crop)) for delivery in batch])
    producer.join(5)
    assert received == list(range(30))
    assert queue.capture.counts(STREAM) == Counts(enqueued=30, acked=30)


def test_blocked_enqueue_can_be_stopped(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(Overflow.file(capacity=2))

    def stop_when_full() -> None:
        wait_until(lambda: queue.other.counts(STREAM).enqueued == 2)
        queue.stop.set()

    stopper = threading.Thread(target=stop_when_full)
    stopper.start()
    with pytest.raises(QueueFull, match="door"):
        queue.capture.enqueue([crop(frame) for frame in range(5)])
    stopper.join()
    assert queue.capture.counts(STREAM).enqueued == 2


def test_unacknowledged_crops_are_redelivered_one_at_a_time(rig: MakeRig, crop: MakeCrop, predict: Predict) -> None:
    queue = rig(redelivery=Redelivery(visibility_timeout_s=60))
    queue.capture.enqueue([crop(0), crop(1)])
    lost = queue.worker.receive(2, 0)
    queue.expire_in_flight()
    [first] = queue.other.receive(16, 0)
    [second] = queue.other.receive(16, 0)
    assert [first.attempt, second.attempt] == [2, 2]
    assert frames([first, second]) == [0, 1]
    assert queue.other.ack([(first, predict(first.crop)), (second, predict(second.crop))]) == 2
    assert queue.worker.ack([(delivery, predict(delivery.crop)) for delivery in lost]) == 0
    assert queue.capture.counts(STREAM) == Counts(enqueued=2, acked=2)


def test_crop_is_dead_after_the_maximum_number_of_deliveries(rig: MakeRig, crop: MakeCrop) -> None:
    queue = rig(redelivery=Redelivery(visibility_timeout_s=60, max_deliveries=3))
    queue.capture.enqueue([crop(0)])
    attempts = [delivery.attempt for delivery in queue.worker.receive(4, 0)]
    for _ in range(3):
        queue.expire_in_flight()
        attempts += [delivery.attempt for delivery in queue.other.receive(4, 0)]
    assert attempts == [1, 2, 3]
    assert queue.capture.counts(STREAM) == Counts(enqueued=1, dead=1)
    assert queue.worker.depth() == 0


def test_journal_keeps_messages_in_order(rig: MakeRig) -> None:
    journal = rig().journal
    messages: list[JournalMessage] = [
        FrameHeader(STREAM, 0, 0.0, 1),
        Gap("door@1", 1.0, 2.5, "stall"),
        EndOfStream(STREAM, 3.0, 15, 9),
    ]
    journal.append(messages[:1])
    journal.append(messages[1:])
    entries = journal.read({"door": JOURNAL_START}, 10, 0)
    assert [entry.message for entry in entries] == messages
    assert {entry.source for entry in entries} == {"door"}


def test_journal_is_read_from_a_position(rig: MakeRig) -> None:
    queue = rig()
    headers = [FrameHeader(STREAM, index, index / 5, 0) for index in range(5)]
    queue.journal.append(headers)
    positions = queue.positions()
    two = queue.journal.read({"door": positions[1]}, 2, 0)
    assert [entry.message for entry in two] == headers[2:4]
    assert queue.journal.read({"door": positions[-1]}, 10, 0) == []


def test_reading_the_journal_waits_for_a_new_entry(rig: MakeRig) -> None:
    queue = rig()
    header = FrameHeader(STREAM, 0, 0.0, 0)
    late = threading.Timer(0.1, lambda: queue.journal.append([header]))
    late.start()
    assert [entry.message for entry in queue.journal.read({"door": JOURNAL_START}, 10, 0.9)] == [header]
    late.join()


def test_positions_remain_valid_after_trimming(rig: MakeRig) -> None:
    queue = rig()
    assert queue.journal.is_valid_position("door", JOURNAL_START)
    queue.journal.append([FrameHeader(STREAM, index, float(index), 0) for index in range(3)])
    last = queue.positions()[-1]
    queue.journal.trim("door", last)
    assert queue.journal.is_valid_position("door", last)


def test_trim_deletes_entries_up_to_the_position(rig: MakeRig) -> None:
    queue = rig()
    headers = [FrameHeader(STREAM, index, index / 5, 0) for index in range(5)]
    queue.journal.append(headers)
    queue.journal.trim("door", queue.positions()[2])
    assert [entry.message for entry in queue.read()] == headers[3:]


def test_counts_are_consistent_with_concurrent_workers(rig: MakeRig, crop: MakeCrop, predict: Predict) -> None:
    queue = rig(Overflow.live(capacity=8))
    finished = threading.Event()

    def work(worker: MessageQueue) -> None:
        while not finished.is_set() or worker.depth():
            worker.ack([(delivery, predict(delivery.crop)) for delivery in worker.receive(4, 0)])

    workers = [threading.Thread(target=work, args=[worker]) for worker in (queue.worker, queue.other)]
    for thread in workers:
        thread.start()
    reported = sum(queue.capture.enqueue([crop(frame), crop(frame, person_id=2)]) for frame in range(200))
    finished.set()
    for thread in workers:
        thread.join(10)
    counts = queue.capture.counts(STREAM)
    assert counts.enqueued == 400
    assert counts.dropped == reported
    assert counts.pending == 0
    keys = [entry.message.face.key for entry in queue.read() if isinstance(entry.message, Prediction)]
    assert len(keys) == len(set(keys)) == counts.acked
