"""MemoryQueue against a model that consists of plain lists."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fer_stream.broker.protocols import JOURNAL_START, Delivery, Overflow, Redelivery
from fer_stream.records import Face, FaceCrop, FaceKey, Prediction, Quality
from tests.support.memory_broker import MemoryJournal, MemoryQueue

CAPACITY = 5
VISIBILITY_TIMEOUT_S = 10.0
SOURCES = ("door", "yard")
BOX = np.zeros(4, np.float32)
PIXELS = np.zeros((48, 48), np.uint8)


class MemoryQueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.journal = MemoryJournal()
        self.queue = MemoryQueue(
            self.journal,
            Overflow("drop_oldest", CAPACITY, None, 60.0),
            Redelivery(VISIBILITY_TIMEOUT_S, max_deliveries=2),
            poll_timeout_s=0.0,
            clock=lambda: self.now_s,
        )
        self.next_frame = 0
        self.waiting: dict[str, list[int]] = {source: [] for source in SOURCES}
        self.in_flight: dict[int, tuple[str, int, float]] = {}
        self.received: list[Delivery] = []
        self.outcomes = {source: dict.fromkeys(("enqueued", "acked", "dropped", "dead"), 0) for source in SOURCES}

    def count(self, source: str, outcome: str) -> None:
        self.outcomes[source][outcome] += 1

    @rule(source=st.sampled_from(SOURCES), number=st.integers(1, 8))
    def enqueue(self, source: str, number: int) -> None:
        frames = range(self.next_frame, self.next_frame + number)
        self.next_frame += number
        crops = [
            FaceCrop(Face(FaceKey(f"{source}@1", 1, frame), 0.0, 0.0, BOX, 1.0, Quality(1.0, "ok")), PIXELS)
            for frame in frames
        ]
        dropped = self.queue.enqueue(crops)
        for frame in frames:
            self.count(source, "enqueued")
            self.waiting[source].append(frame)
        excess = max(0, len(self.waiting[source]) - CAPACITY)
        del self.waiting[source][:excess]
        self.outcomes[source]["dropped"] += excess
        assert dropped == excess

    @rule(most=st.integers(1, 6))
    def receive(self, most: int) -> None:
        expired = {frame for frame, (_, _, visible_s) in self.in_flight.items() if visible_s <= self.now_s}
        batch = self.queue.receive(most, 0)
        self._count_dead_letters()
        if batch and batch[0].attempt > 1:
            assert len(batch) == 1
            assert batch[0].crop.face.key.frame_index in expired
        else:
            assert len(batch) == min(most, sum(map(len, self.waiting.values())))
        for delivery in batch:
            self._deliver(delivery)
        self.received += batch

    def _count_dead_letters(self) -> None:
        """Check that dead letters are the crops that were delivered twice and not acknowledged in time."""
        for key in self.queue.dead:
            if key.frame_index in self.in_flight:
                source, attempt, visible_s = self.in_flight.pop(key.frame_index)
                assert attempt == 2
                assert visible_s <= self.now_s
                self.count(source, "dead")

    def _deliver(self, delivery: Delivery) -> None:
        key = delivery.crop.face.key
        source = key.stream_id.removesuffix("@1")
        if delivery.attempt == 1:
            assert self.waiting[source].pop(0) == key.frame_index
        self.in_flight[key.frame_index] = (source, delivery.attempt, self.now_s + VISIBILITY_TIMEOUT_S)

    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        if not self.received:
            return
        chosen = data.draw(st.lists(st.sampled_from(self.received), unique_by=lambda delivery: delivery.entry_id))
        results = [(delivery, _predict(delivery.crop)) for delivery in chosen]
        expected = [delivery for delivery in chosen if delivery.crop.face.key.frame_index in self.in_flight]
        assert self.queue.ack(results) == len(expected)
        for delivery in expected:
            source, _, _ = self.in_flight.pop(delivery.crop.face.key.frame_index)
            self.count(source, "acked")

    @rule(seconds=st.sampled_from([1.0, VISIBILITY_TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def counts_and_depth_agree(self) -> None:
        for source in SOURCES:
            counts = self.queue.counts(f"{source}@1")
            pending = len(self.waiting[source]) + sum(name == source for name, _, _ in self.in_flight.values())
            assert counts.pending == pending
            assert asdict(counts) == self.outcomes[source]
        assert self.queue.depth() == len(self.in_flight) + sum(map(len, self.waiting.values()))

    @invariant()
    def nothing_is_published_twice(self) -> None:
        entries = self.journal.read(dict.fromkeys(SOURCES, JOURNAL_START), 10_000, 0)
        keys = [entry.message.face.key for entry in entries if isinstance(entry.message, Prediction)]
        assert len(keys) == len(set(keys)) == sum(outcomes["acked"] for outcomes in self.outcomes.values())


def _predict(crop: FaceCrop) -> Prediction:
    return Prediction(crop.face, np.full(7, 1 / 7, np.float32), "m")


TestMemoryQueue = MemoryQueueMachine.TestCase
TestMemoryQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
