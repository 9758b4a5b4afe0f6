"""Queue and journal in memory, for any number of threads of one process."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from fer_stream.broker.protocols import (
    JOURNAL_START,
    Counts,
    Delivery,
    Journal,
    JournalEntry,
    JournalMessage,
    Overflow,
    Redelivery,
    journal_source,
)
from fer_stream.errors import QueueFull
from fer_stream.records import FaceCrop, FaceKey, Prediction, source_of


class MemoryJournal:
    """A `Journal` in memory."""

    def __init__(self) -> None:
        self._entries: dict[str, deque[JournalEntry]] = {}
        self._positions = count(int(JOURNAL_START) + 1)
        self._changed = threading.Condition()

    def append(self, messages: Sequence[JournalMessage]) -> None:
        """See `Journal.append`."""
        with self._changed:
            for message in messages:
                source = journal_source(message)
                entry = JournalEntry(source, str(next(self._positions)), message)
                self._entries.setdefault(source, deque()).append(entry)
            self._changed.notify_all()

    def is_valid_position(self, source: str, position: str) -> bool:
        """See `Journal.is_valid_position`."""
        return True

    def read(self, after: Mapping[str, str], max_per_source: int, max_wait_s: float) -> list[JournalEntry]:
        """See `Journal.read`."""
        with self._changed:
            self._changed.wait_for(lambda: self._following(after, 1), max_wait_s)
            return self._following(after, max_per_source)

    def trim(self, source: str, through: str) -> None:
        """See `Journal.trim`."""
        with self._changed:
            entries = self._entries.get(source, deque())
            while entries and int(entries[0].position) <= int(through):
                entries.popleft()

    def _following(self, after: Mapping[str, str], max_per_source: int) -> list[JournalEntry]:
        following: list[JournalEntry] = []
        for source, position in after.items():
            later = [entry for entry in self._entries.get(source, ()) if int(entry.position) > int(position)]
            following += later[:max_per_source]
        return following


@dataclass(slots=True)
class _Item:
    """A pending crop. `enqueued_s` and `visible_s` (next delivery) are seconds of the queue's clock."""

    crop: FaceCrop
    enqueued_s: float
    attempt: int = 0
    visible_s: float = 0.0

    @property
    def stream_id(self) -> str:
        return self.crop.face.key.stream_id


@dataclass(slots=True)
class _Source:
    """The pending crops of one source by entry number, in the order in which they were enqueued."""

    waiting: dict[int, _Item] = field(default_factory=dict)
    in_flight: dict[int, _Item] = field(default_factory=dict)


class MemoryQueue:
    """A `MessageQueue` in memory.

    Predictions go to `journal`, dead letters to `dead`. `receive` waits `poll_timeout_s` for a first crop; `stop`
    ends a blocked `enqueue`.
    """

    def __init__(
        self,
        journal: Journal,
        overflow: Overflow,
        redelivery: Redelivery = Redelivery(),  # noqa: B008 - frozen
        *,
        poll_timeout_s: float = 1.0,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dead: deque[FaceKey] = deque(maxlen=1000)
        self._journal = journal
        self._overflow = overflow
        self._redelivery = redelivery
        self._poll_timeout_s = poll_timeout_s
        self._stop = stop or threading.Event()
        self._clock = clock
        self._numbers = count()
        self._sources: dict[str, _Source] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._changed = threading.Condition()

    def enqueue(self, crops: Sequence[FaceCrop]) -> int:
        """See `MessageQueue.enqueue`."""
        dropped = 0
        with self._changed:
            for crop in crops:
                name = source_of(crop.face.key.stream_id)
                source = self._sources.setdefault(name, _Source())
                self._wait_until_free(name, source)
                source.waiting[next(self._numbers)] = _Item(crop, self._clock())
                self._count(crop.face.key.stream_id, "enqueued")
                dropped += self._apply_overflow(source)
                self._changed.notify_all()
        return dropped

    def receive(self, max_items: int, batch_timeout_s: float) -> list[Delivery]:
        """See `MessageQueue.receive`."""
        with self._changed:
            deadline_s = time.monotonic() + self._poll_timeout_s
            while not (batch := self._redeliver() or self._deliver(max_items)):
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return []
                # A visibility timeout can end without a notification.
                self._changed.wait(min(remaining_s, self._redelivery.visibility_timeout_s / 4))
            if batch[0].attempt == 1 and len(batch) < max_items:
                free = max_items - len(batch)
                self._changed.wait_for(lambda: self._waiting() >= free, batch_timeout_s)
                batch += self._deliver(free)
            return batch

    def ack(self, results: Sequence[tuple[Delivery, Prediction]]) -> int:
        """See `MessageQueue.ack`."""
        with self._changed:
            published = []
            for delivery, prediction in results:
                source = self._sources[source_of(delivery.crop.face.key.stream_id)]
                if source.in_flight.pop(int(delivery.entry_id), None):
                    self._count(delivery.crop.face.key.stream_id, "acked")
                    published.append(prediction)
            self._journal.append(published)
            self._changed.notify_all()
            return len(published)

    def depth(self) -> int:
        """See `MessageQueue.depth`."""
        with self._changed:
            return sum(len(source.waiting) + len(source.in_flight) for source in self._sources.values())

    def counts(self, stream_id: str) -> Counts:
        """See `MessageQueue.counts`."""
        with self._changed:
            return Counts(**self._counts.get(stream_id, Counter()))

    def oldest_pending(self, sources: Collection[str]) -> dict[str, FaceCrop]:
        """See `MessageQueue.oldest_pending`."""
        with self._changed:
            by_name = ((name, self._sources.get(name, _Source())) for name in sources)
            pending = ((name, source.waiting | source.in_flight) for name, source in by_name)
            return {name: items[min(items)].crop for name, items in pending if items}

    def _count(self, stream_id: str, outcome: str) -> None:
        self._counts.setdefault(stream_id, Counter())[outcome] += 1

    def _waiting(self) -> int:
        return sum(len(source.waiting) for source in self._sources.values())

    def _wait_until_free(self, name: str, source: _Source) -> None:
        if self._overflow.policy != "block":
            return
        while len(source.waiting) + len(source.in_flight) >= self._overflow.capacity:
            if self._stop.is_set():
                raise QueueFull(f"{name}: stopped while {self._overflow.capacity} crops waited for a worker")
            self._changed.wait(0.05)

    def _apply_overflow(self, source: _Source) -> int:
        """Drop the crops beyond the limits of the overflow policy; return how many."""
        if self._overflow.policy == "block":
            return 0
        excess = len(source.waiting) - self._overflow.capacity
        dropped = list(source.waiting)[: max(0, excess)]
        if self._overflow.max_age_s is not None:
            since_s = self._clock() - self._overflow.max_age_s
            too_old = [number for number, item in source.waiting.items() if item.enqueued_s < since_s]
            dropped += [number for number in too_old if number not in dropped]
            since_s -= self._redelivery.visibility_timeout_s
            dropped += [number for number, item in source.in_flight.items() if item.enqueued_s < since_s]
        for number in dropped:
            item = source.waiting.pop(number, None) or source.in_flight.pop(number)
            self._count(item.stream_id, "dropped")
        return len(dropped)

    def _deliver(self, max_items: int) -> list[Delivery]:
        """Deliver up to `max_items` waiting crops, one per source in turn; a served source goes to the end."""
        batch: list[Delivery] = []
        names = deque(name for name, source in self._sources.items() if source.waiting)
        while names and len(batch) < max_items:
            name = names.popleft()
            source = self._sources[name] = self._sources.pop(name)
            number = next(iter(source.waiting))
            batch.append(self._start_delivery(source, number, source.waiting.pop(number)))
            if source.waiting:
                names.append(name)
        return batch

    def _start_delivery(self, source: _Source, number: int, item: _Item) -> Delivery:
        item.attempt += 1
        item.visible_s = self._clock() + self._redelivery.visibility_timeout_s
        source.in_flight[number] = item
        return Delivery(item.crop, str(number), item.attempt)

    def _redeliver(self) -> list[Delivery]:
        """Deliver one crop whose visibility timeout has ended, or none."""
        now_s = self._clock()
        for source in self._sources.values():
            for number, item in list(source.in_flight.items()):
                if item.visible_s > now_s:
                    continue
                del source.in_flight[number]
                if item.attempt < self._redelivery.max_deliveries:
                    return [self._start_delivery(source, number, item)]
                self._count(item.stream_id, "dead")
                self.dead.append(item.crop.face.key)
        return []
