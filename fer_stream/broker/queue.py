"""Queue on Redis Streams for any number of processes. `docs/explanation/queues.md` is its public contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import count, groupby
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from redis.exceptions import OutOfMemoryError

from fer_stream.broker.client import ACK_PUBLISH, DROP_OLDEST, ENQUEUE, INCR_COUNTS
from fer_stream.broker.codec import decode, encode
from fer_stream.broker.consumer import Consumer, ConsumerOptions
from fer_stream.broker.protocols import Counts, Delivery, Overflow, Redelivery
from fer_stream.broker.source_registry import COUNTS_EXPIRE_MS, GROUP, SourceKeys, SourceRegistry
from fer_stream.errors import CodecError, QueueFull
from fer_stream.records import FaceCrop, Prediction, source_of, unix_time

if TYPE_CHECKING:
    from fer_stream.broker.client import Connection, RedisClient
    from fer_stream.broker.lease import Lease

OUTCOMES = ("enqueued", "acked", "dropped", "dead")
"""Suffixes of the counts of a stream in Redis, in the order of the fields of `Counts`."""

# Poll interval of a blocked producer. A worker needs about as long for a batch of 32.
_FULL_POLL_S = 0.01


class RedisQueue:
    """A `MessageQueue` on the streams of one Redis, Valkey or Redis Cluster. Not thread-safe.

    A capture creates one per source, because `overflow` and `lease` belong to the source. A worker creates one for
    all sources of the shards that it serves, with its `consumer` options.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        shards: int = 1,
        overflow: Overflow | None = None,
        lease: Lease | None = None,
        redelivery: Redelivery | None = None,
        consumer: ConsumerOptions | None = None,
    ) -> None:
        self.registry = SourceRegistry(client, shards)
        self._client = client
        self._overflow = overflow or Overflow.live()
        self._lease = lease
        self._redelivery = redelivery or Redelivery()
        options = consumer or ConsumerOptions()
        self._served = range(shards) if options.shards is None else options.shards
        self._consumer = Consumer(client, self.registry, self._served, self._redelivery, options)
        self._producer = uuid4().hex
        self._calls = count()
        self._free: Counter[str] = Counter()

    def enqueue(self, crops: Sequence[FaceCrop]) -> int:
        """See `MessageQueue.enqueue`. One round trip per source. A retry after a lost reply adds nothing twice."""
        add = self._add_or_drop if self._overflow.policy == "drop_oldest" else self._add_when_free
        by_source = groupby(sorted(crops, key=_source), key=_source)
        return sum(add(source, list(group)) for source, group in by_source)

    def receive(self, max_items: int, batch_timeout_s: float) -> list[Delivery]:
        """See `MessageQueue.receive`."""
        return self._consumer.receive(max_items, batch_timeout_s)

    def ack(self, results: Sequence[tuple[Delivery, Prediction]]) -> int:
        """See `MessageQueue.ack`. One round trip per shard.

        If a reply was lost with the connection, the returned number can be too low; the counts are correct.
        """

        def shard(result: tuple[Delivery, Prediction]) -> int:
            return self.registry.keys(_source(result[0].crop)).shard

        by_shard = groupby(sorted(results, key=shard), key=shard)
        return sum(self._ack_shard(list(group)) for _, group in by_shard)

    def depth(self) -> int:
        """See `MessageQueue.depth`; counts the shards that this queue serves."""
        return sum(self._length(keys) for keys in self.registry.sources(self._served, fresh=True))

    def counts(self, stream_id: str) -> Counts:
        """See `MessageQueue.counts`."""
        keys = self.registry.keys(source_of(stream_id))
        fields = [f"{stream_id}:{outcome}" for outcome in OUTCOMES]
        numbers = self._client.call(
            lambda connection: cast(list[bytes | None], connection.hmget(keys.counts, fields))
        )
        return Counts(*(int(number or 0) for number in numbers))

    def oldest_pending(self, sources: Collection[str]) -> dict[str, FaceCrop | None]:
        """See `MessageQueue.oldest_pending`. One round trip."""
        streams = [self.registry.keys(source).crops for source in sources]

        def read_first(connection: Connection) -> list[list[tuple[bytes, dict[bytes, bytes]]]]:
            pipeline = connection.pipeline(transaction=False)
            for stream in streams:
                pipeline.xrange(stream, count=1)
            return pipeline.execute()

        first = zip(sources, self._client.call(read_first), strict=True)
        return {source: _crop(fields) for source, entries in first for _, fields in entries}

    def pending_in_range(self, source: str, from_s: float, to_s: float) -> float | None:
        """Return the time of the oldest pending crop of `source` in [`from_s`, `to_s`), or None. Unix seconds."""
        entries = self._client.call(lambda connection: connection.xrange(self.registry.keys(source).crops))
        crops = (_crop(fields) for _, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], entries))
        times = (unix_time(crop.face.key.stream_id, crop.face.time_s) for crop in crops if crop)
        return min((time_s for time_s in times if from_s <= time_s < to_s), default=None)

    def consumer_count(self) -> int:
        """Return the number of workers of the served shards that polled within the visibility timeout.

        A worker that neither polls nor finishes a batch for longer is considered dead, and its crops are redelivered.
        """
        return len(self._consumer.active_consumers(self._redelivery.visibility_timeout_s))

    def remove_idle_consumers(self, idle_s: float = 600.0) -> int:
        """Remove workers that have not polled for `idle_s` seconds and have no crop in flight; return how many.

        `receive` does so about once a minute.
        """
        return self._consumer.remove_idle_consumers(idle_s)

    def close(self) -> None:
        """Deregister as a worker, unless crops are in flight. Those are redelivered after the visibility timeout."""
        self._consumer.close()

    def _add_or_drop(self, source: str, crops: list[FaceCrop]) -> int:
        """Add now. At the server's memory limit drop waiting crops, and the new ones if that does not suffice."""
        try:
            return self._add(source, crops)
        except OutOfMemoryError:
            dropped = self._drop_oldest(source, len(crops))
        try:
            return dropped + self._add(source, crops)
        except OutOfMemoryError:
            self._count_dropped(source, crops)
            return dropped + len(crops)

    def _add_when_free(self, source: str, crops: list[FaceCrop]) -> int:
        """Add crops as capacity becomes free. A stream has one producer, so free capacity stays free."""
        keys = self.registry.keys(source)
        while crops:
            free = self._free[source] or max(0, self._overflow.capacity - self._length(keys))
            now, later = crops[:free], crops[free:]
            if now and self._added(source, now):
                self._free[source] = free - len(now)
                crops = later
            elif self._client.stop.wait(_FULL_POLL_S):
                raise QueueFull(f"{source}: stopped while {len(crops)} crops waited for free capacity in the queue")
        return 0

    def _added(self, source: str, crops: list[FaceCrop]) -> bool:
        try:
            self._add(source, crops)
        except OutOfMemoryError:
            return False
        return True

    def _add(self, source: str, crops: list[FaceCrop]) -> int:
        keys = self.registry.register(source)
        arguments: list[str | bytes | int] = [
            GROUP,
            self._lease.token if self._lease else "",
            f"{self._producer}:{next(self._calls)}",
            *self._limits(),
            round(1000 * self._overflow.expire_s),
            COUNTS_EXPIRE_MS,
        ]
        for crop in crops:
            arguments += [crop.face.key.stream_id, encode(crop)]
        return cast(int, self._client.run(ENQUEUE, [keys.crops, keys.counts, keys.lease], arguments))

    def _limits(self) -> tuple[int, int, int]:
        """Return capacity, and maximum age in ms of waiting crops and of crops in flight; 0 means unlimited."""
        if self._overflow.policy == "block":
            return 0, 0, 0
        age_s = self._overflow.max_age_s
        if age_s is None:
            return self._overflow.capacity, 0, 0
        in_flight_s = age_s + self._redelivery.visibility_timeout_s
        return self._overflow.capacity, round(1000 * age_s), round(1000 * in_flight_s)

    def _drop_oldest(self, source: str, at_least: int) -> int:
        keys = self.registry.keys(source)
        return cast(int, self._client.run(DROP_OLDEST, [keys.crops, keys.counts], [GROUP, at_least]))

    def _count_dropped(self, source: str, crops: list[FaceCrop]) -> None:
        """Count crops that were never added as enqueued and dropped."""
        arguments: list[str | bytes | int] = [COUNTS_EXPIRE_MS]
        for stream_id, number in Counter(crop.face.key.stream_id for crop in crops).items():
            arguments += [f"{stream_id}:enqueued", number, f"{stream_id}:dropped", number]
        self._client.run(INCR_COUNTS, [self.registry.keys(source).counts], arguments)

    def _ack_shard(self, results: list[tuple[Delivery, Prediction]]) -> int:
        indices: dict[str, int] = {}
        names: list[str] = []
        arguments: list[str | bytes | int] = [GROUP]
        for delivery, prediction in results:
            source = _source(delivery.crop)
            if source not in indices:
                indices[source] = len(indices)
                keys = self.registry.keys(source)
                names += [keys.crops, keys.predictions, keys.counts]
            arguments += [indices[source], delivery.entry_id, delivery.crop.face.key.stream_id, encode(prediction)]
        return cast(int, self._client.run(ACK_PUBLISH, names, arguments))

    def _length(self, keys: SourceKeys) -> int:
        return self._client.call(lambda connection: connection.xlen(keys.crops))


def _crop(fields: dict[bytes, bytes]) -> FaceCrop | None:
    try:
        crop = decode(fields.get(b"c", b""))
    except CodecError:
        return None
    return crop if isinstance(crop, FaceCrop) else None


def _source(crop: FaceCrop) -> str:
    return source_of(crop.face.key.stream_id)
