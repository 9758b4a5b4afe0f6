"""Queue and journal inside one process, for any number of threads."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from fer_stream.broker.codec import Message
from fer_stream.broker.protocols import START, Counts, Delivery, Entry, Journal, Overflow, Redelivery, journal_source
from fer_stream.errors import QueueFull
from fer_stream.records import FaceCrop, FaceKey, Prediction, source_of


class MemoryJournal:
    """A `Journal` in memory."""

    def __init__(self) -> None:
        self._entries: dict[str, deque[Entry]] = {}
        self._numbers = count(int(START) + 1)
        self._changed = threading.Condition()

    def append(self, messages: Sequence[Message]) -> None:
        """As `Journal.append`."""
        with self._changed:
            for message in messages:
                source = journal_source(message)
                entry = Entry(source, str(next(self._numbers)), message)
                self._entries.setdefault(source, deque()).append(entry)
            self._changed.notify_all()

    def knows(self, source: str, position: str) -> bool:
        """As `Journal.knows`."""
        return True

    def read(self, after: Mapping[str, str], max_per_source: int, max_wait_s: float) -> list[Entry]:
        """As `Journal.read`."""
        with self._changed:
            self._changed.wait_for(lambda: self._following(after, 1), max_wait_s)
            return self._following(after, max_per_source)

    def trim(self, source: str, through: str) -> None:
        """As `Journal.trim`."""
        with self._changed:
            entries = self._entries.get(source, deque())
            while entries and int(entries[0].position) <= int(through):
                entries.popleft()

    def _following(self, after: Mapping[str, str], max_per_source: int) -> list[Entry]:
        found: list[Entry] = []
        for source, position in after.items():
            later = [entry for entry in self._entries.get(source, ()) if int(entry.position) > int(position)]
            found += later[:max_per_source]
        return found


@dataclass(slots=True)
class _Item:
    """A crop that waits or is in work; `put_at` and `until` are seconds of the queue's clock."""

    crop: FaceCrop
    put_at: float
    attempt: int = 0
    until: float = 0.0

    @property
    def stream_id(self) -> str:
        return self.crop.key.stream_id


@dataclass(slots=True)
class _Source:
    """The crops of one source by entry number, in the order in which they were put."""

    waiting: dict[int, _Item] = field(default_factory=dict)
    loans: dict[int, _Item] = field(default_factory=dict)


class MemoryQueue:
    """A `MessageQueue` in memory.

    Predictions go to `journal`, dead letters to `dead`. `idle_s` is how long `take` waits for a first crop;
    `stop` ends a blocked put.
    """

    def __init__(
        self,
        journal: Journal,
        overflow: Overflow,
        redelivery: Redelivery = Redelivery(),  # noqa: B008 - frozen
        *,
        idle_s: float = 1.0,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dead: deque[FaceKey] = deque(maxlen=1000)
        self._journal = journal
        self._overflow = overflow
        self._redelivery = redelivery
        self._idle_s = idle_s
        self._stop = stop or threading.Event()
        self._clock = clock
        self._numbers = count()
        self._sources: dict[str, _Source] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._changed = threading.Condition()

    def put(self, crops: Sequence[FaceCrop]) -> int:
        """As `MessageQueue.put`."""
        dropped = 0
        with self._changed:
            for crop in crops:
                name = source_of(crop.key.stream_id)
                source = self._sources.setdefault(name, _Source())
                self._wait_for_room(name, source)
                source.waiting[next(self._numbers)] = _Item(crop, self._clock())
                self._count(crop.key.stream_id, "put")
                dropped += self._shed(source)
                self._changed.notify_all()
        return dropped

    def take(self, max_items: int, max_wait_s: float) -> list[Delivery]:
        """As `MessageQueue.take`."""
        with self._changed:
            deadline = time.monotonic() + self._idle_s
            while not (batch := self._redeliver() or self._draw(max_items)):
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                # A loan may run out while nothing is put, and nobody tells.
                self._changed.wait(min(left, self._redelivery.after_s / 4))
            if batch[0].attempt == 1 and len(batch) < max_items:
                room = max_items - len(batch)
                self._changed.wait_for(lambda: self._ready() >= room, max_wait_s)
                batch += self._draw(room)
            return batch

    def settle(self, done: Sequence[tuple[Delivery, Prediction]]) -> int:
        """As `MessageQueue.settle`."""
        with self._changed:
            published = []
            for delivery, prediction in done:
                source = self._sources[source_of(delivery.crop.key.stream_id)]
                if source.loans.pop(int(delivery.entry), None):
                    self._count(delivery.crop.key.stream_id, "settled")
                    published.append(prediction)
            self._journal.append(published)
            self._changed.notify_all()
            return len(published)

    def depth(self) -> int:
        """As `MessageQueue.depth`."""
        with self._changed:
            return sum(len(source.waiting) + len(source.loans) for source in self._sources.values())

    def counts(self, stream_id: str) -> Counts:
        """As `MessageQueue.counts`."""
        with self._changed:
            return Counts(**self._counts.get(stream_id, Counter()))

    def oldest(self, sources: Collection[str]) -> dict[str, FaceCrop]:
        """As `MessageQueue.oldest`."""
        with self._changed:
            known = ((source, self._sources.get(source, _Source())) for source in sources)
            items = ((source, found.waiting | found.loans) for source, found in known)
            return {source: crops[min(crops)].crop for source, crops in items if crops}

    def _count(self, stream_id: str, what: str) -> None:
        self._counts.setdefault(stream_id, Counter())[what] += 1

    def _ready(self) -> int:
        return sum(len(source.waiting) for source in self._sources.values())

    def _wait_for_room(self, name: str, source: _Source) -> None:
        if self._overflow.policy != "block":
            return
        while len(source.waiting) + len(source.loans) >= self._overflow.capacity:
            if self._stop.is_set():
                raise QueueFull(f"{name}: told to stop while {self._overflow.capacity} crops waited for a worker")
            self._changed.wait(0.05)

    def _shed(self, source: _Source) -> int:
        """Drop what the policy does not keep."""
        if self._overflow.policy == "block":
            return 0
        excess = len(source.waiting) - self._overflow.capacity
        gone = list(source.waiting)[: max(0, excess)]
        if self._overflow.max_age_s is not None:
            since = self._clock() - self._overflow.max_age_s
            gone += [number for number, item in source.waiting.items() if item.put_at < since and number not in gone]
            since -= self._redelivery.after_s
            gone += [number for number, item in source.loans.items() if item.put_at < since]
        for number in gone:
            item = source.waiting.pop(number, None) or source.loans.pop(number)
            self._count(item.stream_id, "dropped")
        return len(gone)

    def _draw(self, room: int) -> list[Delivery]:
        """Up to `room` crops, one of each source in turn; a source that was served goes to the end."""
        batch: list[Delivery] = []
        turn = deque(name for name, source in self._sources.items() if source.waiting)
        while turn and len(batch) < room:
            name = turn.popleft()
            source = self._sources[name] = self._sources.pop(name)
            number = next(iter(source.waiting))
            batch.append(self._lend(source, number, source.waiting.pop(number)))
            if source.waiting:
                turn.append(name)
        return batch

    def _lend(self, source: _Source, number: int, item: _Item) -> Delivery:
        item.attempt += 1
        item.until = self._clock() + self._redelivery.after_s
        source.loans[number] = item
        return Delivery(item.crop, str(number), item.attempt)

    def _redeliver(self) -> list[Delivery]:
        """One crop whose loan ran out, or none."""
        now = self._clock()
        for source in self._sources.values():
            for number, item in list(source.loans.items()):
                if item.until > now:
                    continue
                del source.loans[number]
                if item.attempt < self._redelivery.deliveries:
                    return [self._lend(source, number, item)]
                self._count(item.stream_id, "dead")
                self.dead.append(item.crop.key)
        return []
