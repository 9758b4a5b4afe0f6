"""MemoryQueue against a model of it that keeps plain lists."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fer_stream.broker.protocols import START, Delivery, Overflow, Redelivery
from fer_stream.records import FaceCrop, FaceKey, Prediction, Quality
from tests.support.memory_broker import MemoryJournal, MemoryQueue

CAPACITY = 5
AFTER_S = 10.0
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
            Redelivery(AFTER_S, deliveries=2),
            idle_s=0.0,
            clock=lambda: self.now_s,
        )
        self.next_frame = 0
        self.waiting: dict[str, list[int]] = {source: [] for source in SOURCES}
        self.loans: dict[int, tuple[str, int, float]] = {}
        self.held: list[Delivery] = []
        self.fates = {source: dict.fromkeys(("put", "settled", "dropped", "dead"), 0) for source in SOURCES}

    def count(self, source: str, fate: str) -> None:
        self.fates[source][fate] += 1

    @rule(source=st.sampled_from(SOURCES), number=st.integers(1, 8))
    def put(self, source: str, number: int) -> None:
        frames = range(self.next_frame, self.next_frame + number)
        self.next_frame += number
        crops = [
            FaceCrop(FaceKey(f"{source}@1", 1, frame), 0.0, 0.0, BOX, 1.0, Quality(1.0, "ok"), PIXELS)
            for frame in frames
        ]
        dropped = self.queue.put(crops)
        for frame in frames:
            self.count(source, "put")
            self.waiting[source].append(frame)
        excess = max(0, len(self.waiting[source]) - CAPACITY)
        del self.waiting[source][:excess]
        self.fates[source]["dropped"] += excess
        assert dropped == excess

    @rule(most=st.integers(1, 6))
    def take(self, most: int) -> None:
        overdue = {frame for frame, (_, _, until) in self.loans.items() if until <= self.now_s}
        batch = self.queue.take(most, 0)
        self._bury()
        if batch and batch[0].attempt > 1:
            assert len(batch) == 1
            assert batch[0].crop.key.frame_index in overdue
        else:
            assert len(batch) == min(most, sum(map(len, self.waiting.values())))
        for delivery in batch:
            self._lend(delivery)
        self.held += batch

    def _bury(self) -> None:
        """The dead letters of the queue are the ones the model lent twice and for too long."""
        for key in self.queue.dead:
            if key.frame_index in self.loans:
                source, attempt, until = self.loans.pop(key.frame_index)
                assert attempt == 2
                assert until <= self.now_s
                self.count(source, "dead")

    def _lend(self, delivery: Delivery) -> None:
        key = delivery.crop.key
        source = key.stream_id.removesuffix("@1")
        if delivery.attempt == 1:
            assert self.waiting[source].pop(0) == key.frame_index
        self.loans[key.frame_index] = (source, delivery.attempt, self.now_s + AFTER_S)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if not self.held:
            return
        chosen = data.draw(st.lists(st.sampled_from(self.held), unique_by=lambda delivery: delivery.entry))
        done = [(delivery, _answer(delivery.crop)) for delivery in chosen]
        expected = [delivery for delivery in chosen if delivery.crop.key.frame_index in self.loans]
        assert self.queue.settle(done) == len(expected)
        for delivery in expected:
            source, _, _ = self.loans.pop(delivery.crop.key.frame_index)
            self.count(source, "settled")

    @rule(seconds=st.sampled_from([1.0, AFTER_S]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def counts_and_depth_agree(self) -> None:
        for source in SOURCES:
            counts = self.queue.counts(f"{source}@1")
            held = len(self.waiting[source]) + sum(loan[0] == source for loan in self.loans.values())
            assert counts.open == held
            assert asdict(counts) == self.fates[source]
        assert self.queue.depth() == len(self.loans) + sum(map(len, self.waiting.values()))

    @invariant()
    def nothing_is_published_twice(self) -> None:
        entries = self.journal.read(dict.fromkeys(SOURCES, START), 10_000, 0)
        keys = [entry.message.key for entry in entries if isinstance(entry.message, Prediction)]
        assert len(keys) == len(set(keys)) == sum(fates["settled"] for fates in self.fates.values())


def _answer(crop: FaceCrop) -> Prediction:
    probs = np.full(7, 1 / 7, np.float32)
    return Prediction(crop.key, crop.time_s, crop.captured_at, crop.xyxy, crop.confidence, crop.quality, probs, "m")


TestMemoryQueue = MemoryQueueMachine.TestCase
TestMemoryQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
