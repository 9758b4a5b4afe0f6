"""Worker side of the queue on Redis: batches of crops, and redelivery of the crops of dead workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import uuid4

from redis.exceptions import ResponseError

from fer_stream.broker.client import (
    CREATE_GROUP,
    DEAD_LETTER,
    INCR_COUNTS,
    REMOVE_IDLE,
    Connection,
    RedisClient,
    StreamNotFoundError,
)
from fer_stream.broker.codec import decode
from fer_stream.broker.protocols import DeadReason, Delivery, Redelivery
from fer_stream.broker.source_registry import COUNTS_EXPIRE_MS, GROUP, SourceKeys, SourceRegistry
from fer_stream.errors import CodecError
from fer_stream.log import get_logger
from fer_stream.records import FaceCrop

_log = get_logger(__name__)

Fields = dict[bytes, bytes]
StreamEntry = tuple[bytes, Fields]

# A blocking read covers one shard. The other shards wait this long at most.
_SHARD_BLOCK_S = 0.1
# Poll interval while no source is registered, because there is no stream to block on.
_NO_SOURCE_POLL_S = 0.05
# A blocking read does not see sources that are registered meanwhile, so this bounds their delay.
_MAX_BLOCK_S = 1.0
_REMOVE_IDLE_INTERVAL_S = 60.0
_MAX_DEAD_LETTERS = 1000
_MAX_RECLAIMED = 10_000
# Above all ids that a server assigns. Reading from here, unlike with `>`, delivers nothing.
_AFTER_ALL_IDS = "18446744073709551615-0"


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Options of one worker.

    `name` must be unique among living workers, and is random by default. The crops in flight of a dead worker with
    the same name are redelivered at once. `shards` are those it serves, by default all. `receive` waits
    `poll_timeout_s` for a first crop. `on_dead` is called for every crop that this worker moves to the dead letters.
    """

    name: str | None = None
    shards: Collection[int] | None = None
    poll_timeout_s: float = 1.0
    on_dead: Callable[[DeadReason], object] = lambda _: None


class Consumer:
    """One worker, under whose name its crops in flight are recorded. Serves `shards`."""

    def __init__(
        self,
        client: RedisClient,
        registry: SourceRegistry,
        shards: Collection[int],
        redelivery: Redelivery,
        options: ConsumerOptions,
    ) -> None:
        self._client = client
        self._registry = registry
        self._shards = shards
        self._redelivery = redelivery
        self._options = options
        self._name = options.name or uuid4().hex
        self._fetched: list[Delivery] = []
        self._started = False
        self._round = 0
        self._next_reclaim_s = float("-inf")
        self._next_removal_s = time.monotonic() + _REMOVE_IDLE_INTERVAL_S

    def receive(self, max_items: int, batch_timeout_s: float) -> list[Delivery]:
        """See `MessageQueue.receive`."""
        if not self._started:
            self._reclaim_own()
            self._started = True
        deadline_s = time.monotonic() + self._options.poll_timeout_s
        while True:
            redelivered = self._reclaim()
            if redelivered:
                return [redelivered]
            self._fill(max_items)
            if self._fetched:
                break
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0 or self._client.stop.is_set():
                return []
            self._wait_for_first(remaining_s)
        # BLOCK can return 100 ms late, so the batch timeout is a wait in this process.
        if len(self._fetched) < max_items and batch_timeout_s > 0:
            self._client.stop.wait(batch_timeout_s)
            self._fill(max_items)
        batch, self._fetched = self._fetched[:max_items], self._fetched[max_items:]
        return batch

    def remove_idle_consumers(self, idle_s: float = 600.0) -> int:
        """Remove workers that have not polled for `idle_s` seconds and have no crop in flight; return how many."""
        return self._remove_consumers(idle_s, "")

    def active_consumers(self, within_s: float) -> set[object]:
        """Return the names of the workers that polled any source within the last `within_s` seconds."""
        return {
            consumer["name"]
            for keys in self._registry.sources(self._shards)
            for consumer in self._client.call(partial(_consumers, keys.crops))
            if int(consumer["idle"]) < 1000 * within_s
        }

    def close(self) -> None:
        """Deregister, unless crops are in flight. Those are redelivered after the visibility timeout."""
        self._remove_consumers(0, self._name)

    def _remove_consumers(self, idle_s: float, only: str) -> int:
        removed = 0
        for keys in self._registry.sources(self._shards):
            self._create_groups([keys])
            arguments: list[str | bytes | int] = [GROUP, round(1000 * idle_s), only]
            removed += cast(int, self._client.run(REMOVE_IDLE, [keys.crops], arguments))
        return removed

    def _by_shard(self) -> list[list[SourceKeys]]:
        """Return the sources grouped by shard, rotated by one shard on each call."""
        by_shard: dict[int, list[SourceKeys]] = {}
        for keys in self._registry.sources(self._shards):
            by_shard.setdefault(keys.shard, []).append(keys)
        shards = list(by_shard.values())
        self._round += 1
        first = self._round % max(1, len(shards))
        return shards[first:] + shards[:first]

    def _fill(self, size: int) -> None:
        """Fetch until `size` crops are buffered or none is waiting. Does not block.

        COUNT applies to each stream: each source gets an equal share, and further rounds distribute the rest. With
        more sources than `size` a few more crops are fetched, and kept for the next batch.
        """
        more = True
        while more and len(self._fetched) < size:
            shards = self._by_shard()
            sources = sum(len(shard) for shard in shards)
            share = max(1, (size - len(self._fetched)) // max(1, sources))
            full = [self._fetch(shard, share) for shard in shards]
            more = any(full)

    def _wait_for_first(self, wait_s: float) -> None:
        """Wait up to about `wait_s` for a crop, and fetch it."""
        shards = self._by_shard()
        if not shards:
            self._client.stop.wait(min(wait_s, _NO_SOURCE_POLL_S))
            return
        max_block_s = _MAX_BLOCK_S if len(shards) == 1 else _SHARD_BLOCK_S
        self._fetch(shards[0], 1, block_ms=max(1, round(1000 * min(wait_s, max_block_s))))

    def _fetch(self, sources: list[SourceKeys], share: int, block_ms: int | None = None) -> bool:
        """Fetch up to `share` crops of each source of one shard; return whether a source may have more."""
        streams = {keys.crops: ">" for keys in sources}
        by_stream = {keys.crops.encode(): keys for keys in sources}
        try:
            reply = self._client.call(
                lambda connection: connection.xreadgroup(
                    GROUP,
                    self._name,
                    streams,  # type: ignore[arg-type]
                    count=share,
                    block=block_ms,
                )
            )
        except StreamNotFoundError:
            # One missing stream fails the whole read: the source is new, has expired, or the server restarted.
            self._create_groups(sources)
            return True
        by_entries = cast(list[tuple[bytes, list[StreamEntry]]], reply)
        for stream, entries in by_entries:
            for entry_id, fields in entries:
                delivery = self._deliver(by_stream[stream], entry_id, fields, 1)
                if delivery:
                    self._fetched.append(delivery)
        return any(len(entries) >= share for _, entries in by_entries)

    def _create_groups(self, sources: list[SourceKeys]) -> None:
        for keys in sources:
            self._client.run(CREATE_GROUP, [keys.crops, keys.counts], [GROUP, COUNTS_EXPIRE_MS])

    def _deliver(self, keys: SourceKeys, entry_id: bytes, fields: Fields, attempt: int) -> Delivery | None:
        """Return the crop of an entry, or move an entry that cannot be decoded to the dead letters."""
        try:
            crop = decode(fields.get(b"c", b""))
            if isinstance(crop, FaceCrop):
                return Delivery(crop, entry_id.decode(), attempt)
            error = f"expected a FaceCrop, received a {type(crop).__name__}"
        except CodecError as codec_error:
            error = str(codec_error)
        _log.error("crop_unreadable", source=keys.source, entry_id=entry_id.decode(), error=error)
        self._dead_letter(keys, entry_id, fields, attempt, "unreadable")
        return None

    def _reclaim_own(self) -> None:
        """Make the crops in flight of an earlier worker of the same name due for redelivery."""
        idle_ms = self._visibility_timeout_ms()
        for keys in self._registry.sources(self._shards):
            with suppress(StreamNotFoundError):
                if deleted := self._client.call(partial(_set_idle, keys.crops, self._name, idle_ms)):
                    self._count_dropped(keys, deleted)

    def _visibility_timeout_ms(self) -> int:
        return round(1000 * self._redelivery.visibility_timeout_s)

    def _reclaim(self) -> Delivery | None:
        """Return one crop that was not acknowledged in time, or None; checks four times per visibility timeout."""
        now_s = time.monotonic()
        if now_s < self._next_reclaim_s:
            return None
        for keys in self._registry.sources(self._shards):
            delivery = self._reclaim_from(keys)
            if delivery:
                return delivery
        self._next_reclaim_s = now_s + self._redelivery.visibility_timeout_s / 4
        if now_s >= self._next_removal_s:
            self._next_removal_s = now_s + _REMOVE_IDLE_INTERVAL_S
            self.remove_idle_consumers()
        return None

    def _reclaim_from(self, keys: SourceKeys) -> Delivery | None:
        start: bytes | str = "0-0"
        while True:
            start, claimed, deleted = self._claim(keys, start)
            if deleted:
                self._count_dropped(keys, len(deleted))
            for entry_id, fields in claimed:
                delivery = self._retry(keys, entry_id, fields)
                if delivery:
                    return delivery
            if start == b"0-0":
                self._heartbeat(keys)
                return None

    def _heartbeat(self, keys: SourceKeys) -> None:
        """Read past the end of the stream: before Redis 7.2 only successful reads reset a consumer's idle time."""
        streams: dict[Any, Any] = {keys.crops: _AFTER_ALL_IDS}
        with suppress(StreamNotFoundError):
            self._client.call(lambda connection: connection.xreadgroup(GROUP, self._name, streams, count=1))

    def _claim(self, keys: SourceKeys, start: bytes | str) -> tuple[bytes, list[StreamEntry], list[bytes]]:
        """Run one step of XAUTOCLAIM; return the next start, at most one crop, and ids in flight that were
        deleted."""
        idle_ms = self._visibility_timeout_ms()
        try:
            reply = self._client.call(
                lambda connection: connection.xautoclaim(keys.crops, GROUP, self._name, idle_ms, start, count=1)
            )
        except StreamNotFoundError:
            self._create_groups([keys])
            return b"0-0", [], []
        return cast(tuple[bytes, list[StreamEntry], list[bytes]], tuple(cast(list[object], reply)))

    def _retry(self, keys: SourceKeys, entry_id: bytes, fields: Fields) -> Delivery | None:
        """Deliver a claimed crop again, or move it to the dead letters after the maximum number of deliveries.

        The server's delivery count is used, because it survives the death of workers.
        """
        pending = self._client.call(
            lambda connection: connection.xpending_range(keys.crops, GROUP, entry_id, entry_id, 1)
        )
        attempt = cast(list[dict[str, int]], pending)[0]["times_delivered"] if pending else 1
        if attempt <= self._redelivery.max_deliveries:
            return self._deliver(keys, entry_id, fields, attempt)
        _log.error("crop_not_acknowledged", source=keys.source, entry_id=entry_id.decode(), deliveries=attempt - 1)
        self._dead_letter(keys, entry_id, fields, attempt - 1, "deliveries")
        return None

    def _dead_letter(
        self, keys: SourceKeys, entry_id: bytes, fields: Fields, deliveries: int, reason: DeadReason
    ) -> None:
        stream_id = fields.get(b"s", keys.source.encode())
        metadata: list[str | bytes | int] = ["stream_id", stream_id, "entry_id", entry_id]
        metadata += ["reason", reason, "deliveries", deliveries]
        try:
            crop = decode(fields.get(b"c", b""))
        except CodecError:
            crop = None
        if isinstance(crop, FaceCrop):
            metadata += ["person_id", crop.face.key.person_id, "frame_index", crop.face.key.frame_index]
            metadata += ["time_s", repr(crop.face.time_s)]
        arguments = [GROUP, entry_id, stream_id, _MAX_DEAD_LETTERS, *metadata]
        if self._client.run(DEAD_LETTER, [keys.crops, keys.counts, keys.dead], arguments):
            self._options.on_dead(reason)

    def _count_dropped(self, keys: SourceKeys, number: int) -> None:
        """Count crops in flight that were deleted from the stream, under the latest stream_id: theirs is lost."""
        stream_id = self._client.call(
            lambda connection: cast(bytes | None, connection.hget(keys.counts, "stream_id"))
        )
        if stream_id is not None:
            field = f"{stream_id.decode()}:dropped"
            self._client.run(INCR_COUNTS, [keys.counts], [COUNTS_EXPIRE_MS, field, number])


def _set_idle(stream: str, name: str, idle_ms: int, connection: Connection) -> int:
    """Set the idle time of the crops in flight of `name`; return how many of them were deleted from the stream."""
    pending: list[Any] = [
        entry["message_id"] for entry in connection.xpending_range(stream, GROUP, "-", "+", _MAX_RECLAIMED, name)
    ]
    claimed = connection.xclaim(stream, GROUP, name, 0, pending, idle=idle_ms, justid=True) if pending else []
    return len(pending) - len(claimed)


def _consumers(stream: str, connection: Connection) -> list[dict[str, bytes | int]]:
    """Return the consumers of `stream`; empty if the stream or its group does not exist."""
    try:
        return cast(list[dict[str, bytes | int]], connection.xinfo_consumers(stream, GROUP))
    except ResponseError as error:
        if not str(error).startswith(("NOGROUP", "no such key")):
            raise
        return []
