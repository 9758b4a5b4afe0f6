"""The queue on Redis Streams, for any number of processes. `docs/queues.md` is its public contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import count, groupby
from typing import cast
from uuid import uuid4

from redis.exceptions import OutOfMemoryError

from fer_stream.broker import scripts
from fer_stream.broker.client import Client, Link
from fer_stream.broker.codec import decode, encode
from fer_stream.broker.consumer import Consumer
from fer_stream.broker.keys import COUNTS_EXPIRE_MS, GROUP, Keys
from fer_stream.broker.lease import Lease
from fer_stream.broker.protocols import Counts, DeadReason, Delivery, Overflow, Redelivery
from fer_stream.broker.source_registry import Directory
from fer_stream.errors import CodecError, QueueFull
from fer_stream.records import FaceCrop, Prediction, source_of, unix_time

_FATES = ("put", "settled", "dropped", "dead")
# How often a full queue is looked at again. A worker settles a batch of 32 in about as long.
_FULL_PAUSE_S = 0.01


class RedisQueue:
    """A `MessageQueue` on the streams of one Redis, Valkey or Redis Cluster.

    A capture makes one per source, because `overflow` and `lease` are the source's own. A worker makes one for all
    sources of the shards that it serves (by default all of them); `consumer` is its name, which no other worker
    may bear: what a dead one of that name had on loan is handed out again at once. `idle_s` is how long `take`
    waits for a first crop, and `on_dead` is told of every crop that this worker gives up. One thread at a time.
    """

    def __init__(
        self,
        link: Link,
        *,
        shards: int = 1,
        serves: Collection[int] | None = None,
        overflow: Overflow | None = None,
        lease: Lease | None = None,
        redelivery: Redelivery | None = None,
        consumer: str | None = None,
        idle_s: float = 1.0,
        on_dead: Callable[[DeadReason], object] = lambda _: None,
    ) -> None:
        self.directory = Directory(link, shards)
        self._link = link
        self._serves = range(shards) if serves is None else serves
        self._overflow = overflow or Overflow.live()
        self._lease = lease
        self._redelivery = redelivery or Redelivery()
        self._consumer = Consumer(
            link,
            self.directory,
            self._serves,
            self._redelivery,
            name=consumer or uuid4().hex,
            idle_s=idle_s,
            on_dead=on_dead,
        )
        self._producer = uuid4().hex
        self._pushes = count()
        self._credit: Counter[str] = Counter()

    def put(self, crops: Sequence[FaceCrop]) -> int:
        """As `MessageQueue.put`. One round trip per source; putting again after a lost reply puts nothing twice."""
        push = self._push_live if self._overflow.policy == "drop_oldest" else self._push_when_there_is_room
        by_source = groupby(sorted(crops, key=_source), key=_source)
        return sum(push(source, list(group)) for source, group in by_source)

    def take(self, max_items: int, max_wait_s: float) -> list[Delivery]:
        """As `MessageQueue.take`."""
        return self._consumer.take(max_items, max_wait_s)

    def settle(self, done: Sequence[tuple[Delivery, Prediction]]) -> int:
        """As `MessageQueue.settle`. One round trip per shard.

        After a reply that was lost with the connection the number may be too low; what was done is right.
        """
        published = 0
        pairs = sorted(done, key=lambda pair: self.directory.keys(_source(pair[0].crop)).shard)
        for _, group in groupby(pairs, key=lambda pair: self.directory.keys(_source(pair[0].crop)).shard):
            published += self._settle_shard(list(group))
        return published

    def depth(self) -> int:
        """As `MessageQueue.depth`, of the shards that this queue serves."""
        return sum(self._length(keys) for keys in self.directory.listed(self._serves, fresh=True))

    def counts(self, stream_id: str) -> Counts:
        """As `MessageQueue.counts`."""
        keys = self.directory.keys(source_of(stream_id))
        fields = [f"{stream_id}:{fate}" for fate in _FATES]
        numbers = self._link.call(lambda client: cast(list[bytes | None], client.hmget(keys.counts, fields)))
        return Counts(*(int(number or 0) for number in numbers))

    def oldest(self, sources: Collection[str]) -> dict[str, FaceCrop | None]:
        """As `MessageQueue.oldest`, in one round trip."""
        streams = [self.directory.keys(source).crops for source in sources]

        def ask(client: Client) -> list[list[tuple[bytes, dict[bytes, bytes]]]]:
            pipeline = client.pipeline(transaction=False)
            for stream in streams:
                pipeline.xrange(stream, count=1)
            return pipeline.execute()

        found = zip(sources, self._link.call(ask), strict=True)
        return {source: _crop(fields) for source, entries in found for _, fields in entries}

    def open_within(self, source: str, from_s: float, to_s: float) -> float | None:
        """Since when, in Unix seconds, faces of a source wait or are in work; None for none.

        Only those of the wall time from `from_s` to before `to_s` count.
        """
        entries = self._link.call(lambda client: client.xrange(self.directory.keys(source).crops))
        crops = (_crop(fields) for _, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], entries))
        times = (unix_time(crop.key.stream_id, crop.time_s) for crop in crops if crop)
        return min((at for at in times if from_s <= at < to_s), default=None)

    def workers(self) -> int:
        """How many workers of the shards that this queue serves asked for crops lately.

        A worker that is neither idle nor in the midst of a batch for longer than `Redelivery.after_s` is taken for
        dead, as its crops are.
        """
        return len(self._consumer.lively(self._redelivery.after_s))

    def tidy(self, idle_s: float = 600.0) -> int:
        """Remove workers that asked for nothing for `idle_s` seconds and have nothing on loan; how many.

        `take` does so about once a minute.
        """
        return self._consumer.tidy(idle_s)

    def close(self) -> None:
        """Sign off as a worker. What is still on loan will be handed to others."""
        self._consumer.close()

    def _push_live(self, source: str, crops: list[FaceCrop]) -> int:
        """Put now; at the server's memory limit make room, and where that is not enough drop the new crops."""
        try:
            return self._push(source, crops)
        except OutOfMemoryError:
            shed = self._shed(source, len(crops))
        try:
            return shed + self._push(source, crops)
        except OutOfMemoryError:
            self._lose(source, crops)
            return shed + len(crops)

    def _push_when_there_is_room(self, source: str, crops: list[FaceCrop]) -> int:
        """Put as room comes free. One producer per stream, so what was free once cannot be taken by another."""
        keys = self.directory.keys(source)
        while crops:
            room = self._credit[source] or max(0, self._overflow.capacity - self._length(keys))
            now, later = crops[:room], crops[room:]
            if now and self._pushed(source, now):
                self._credit[source] = room - len(now)
                crops = later
            elif self._link.stop.wait(_FULL_PAUSE_S):
                raise QueueFull(f"{source}: told to stop while {len(crops)} crops waited for room in the queue")
        return 0

    def _pushed(self, source: str, crops: list[FaceCrop]) -> bool:
        try:
            self._push(source, crops)
        except OutOfMemoryError:
            return False
        return True

    def _push(self, source: str, crops: list[FaceCrop]) -> int:
        keys = self.directory.add(source)
        arguments: list[str | bytes | int] = [
            GROUP,
            self._lease.token if self._lease else "",
            f"{self._producer}:{next(self._pushes)}",
            *self._limits(),
            round(1000 * self._overflow.expire_s),
            COUNTS_EXPIRE_MS,
        ]
        for crop in crops:
            arguments += [crop.key.stream_id, encode(crop)]
        return cast(int, self._link.run(scripts.PUT, [keys.crops, keys.counts, keys.lease], arguments))

    def _limits(self) -> tuple[int, int, int]:
        """Capacity, longest wait and longest stay in ms, as the script wants them: 0 is no limit."""
        if self._overflow.policy == "block":
            return 0, 0, 0
        age_s = self._overflow.max_age_s
        if age_s is None:
            return self._overflow.capacity, 0, 0
        return self._overflow.capacity, round(1000 * age_s), round(1000 * (age_s + self._redelivery.after_s))

    def _shed(self, source: str, at_least: int) -> int:
        keys = self.directory.keys(source)
        return cast(int, self._link.run(scripts.SHED, [keys.crops, keys.counts], [GROUP, at_least]))

    def _lose(self, source: str, crops: list[FaceCrop]) -> None:
        arguments: list[str | bytes | int] = [COUNTS_EXPIRE_MS]
        for stream_id, number in Counter(crop.key.stream_id for crop in crops).items():
            arguments += [f"{stream_id}:put", number, f"{stream_id}:dropped", number]
        self._link.run(scripts.TALLY, [self.directory.keys(source).counts], arguments)

    def _settle_shard(self, done: list[tuple[Delivery, Prediction]]) -> int:
        sources: dict[str, int] = {}
        names: list[str] = []
        arguments: list[str | bytes | int] = [GROUP]
        for delivery, prediction in done:
            source = _source(delivery.crop)
            if source not in sources:
                sources[source] = len(sources)
                keys = self.directory.keys(source)
                names += [keys.crops, keys.predictions, keys.counts]
            arguments += [sources[source], delivery.entry, delivery.crop.key.stream_id, encode(prediction)]
        return cast(int, self._link.run(scripts.SETTLE, names, arguments))

    def _length(self, keys: Keys) -> int:
        return self._link.call(lambda client: client.xlen(keys.crops))


def _crop(fields: dict[bytes, bytes]) -> FaceCrop | None:
    try:
        crop = decode(fields.get(b"c", b""))
    except CodecError:
        return None
    return crop if isinstance(crop, FaceCrop) else None


def _source(crop: FaceCrop) -> str:
    return source_of(crop.key.stream_id)
