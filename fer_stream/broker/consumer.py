"""The worker's side of the queue on Redis: reading batches, and taking over from workers that died."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, cast

from redis.exceptions import ResponseError

from fer_stream.broker import scripts
from fer_stream.broker.client import Client, Link, NoStreamError
from fer_stream.broker.codec import decode
from fer_stream.broker.keys import COUNTS_EXPIRE_MS, GROUP, Keys
from fer_stream.broker.protocols import DeadReason, Delivery, Redelivery
from fer_stream.broker.source_registry import Directory
from fer_stream.errors import CodecError
from fer_stream.records import FaceCrop

_log = logging.getLogger(__name__)

Fields = dict[bytes, bytes]
StreamEntry = tuple[bytes, Fields]

# A blocked read sees one shard; the others wait for so long at the most.
_SHARD_TURN_S = 0.1
# Where no source is listed yet there is nothing to block on.
_NO_SOURCE_PAUSE_S = 0.05
# So long a blocked read does not see a source that is new.
_LONGEST_BLOCK_S = 1.0
_TIDY_EVERY_S = 60.0
_MOST_DEAD = 1000
_MOST_LOANS = 10_000
# After all ids that a server gives. What is read there, other than with `>`, touches none of the worker's loans.
_BEYOND = "18446744073709551615-0"


class Consumer:
    """One worker, by the name under which its loans are booked. `on_dead` is told of every crop that it gives up.

    Whoever had the name before must be dead: what they had on loan is handed out again at once.
    """

    def __init__(
        self, link: Link, directory: Directory, serves: Collection[int], redelivery: Redelivery, *, name: str,
        idle_s: float, on_dead: Callable[[DeadReason], object],
    ) -> None:  # fmt: skip
        self._link = link
        self._directory = directory
        self._serves = serves
        self._redelivery = redelivery
        self._name = name
        self._idle_s = idle_s
        self._on_dead = on_dead
        self._fetched: list[Delivery] = []
        self._begun = False
        self._turn = 0
        self._reclaim_at = float("-inf")
        self._tidy_at = time.monotonic() + _TIDY_EVERY_S

    def take(self, max_items: int, max_wait_s: float) -> list[Delivery]:
        """As `MessageQueue.take`."""
        if not self._begun:
            self._end_old_loans()
            self._begun = True
        until = time.monotonic() + self._idle_s
        while True:
            again = self._reclaim()
            if again:
                return [again]
            self._fill(max_items)
            if self._fetched:
                break
            left = until - time.monotonic()
            if left <= 0 or self._link.stop.is_set():
                return []
            self._wait_for_first(left)
        # BLOCK is no clock, it may return 100 ms late: the window is a wait of our own.
        if len(self._fetched) < max_items and max_wait_s > 0:
            self._link.stop.wait(max_wait_s)
            self._fill(max_items)
        batch, self._fetched = self._fetched[:max_items], self._fetched[max_items:]
        return batch

    def tidy(self, idle_s: float = 600.0) -> int:
        """Remove workers that asked for nothing for `idle_s` seconds and have nothing on loan; how many."""
        return self._remove_consumers(idle_s, "")

    def lively(self, within_s: float) -> set[object]:
        """The names of the workers that asked any source for crops within the last `within_s` seconds."""
        return {
            one["name"]
            for keys in self._directory.listed(self._serves)
            for one in self._link.call(partial(_consumers, keys.crops))
            if int(one["idle"]) < 1000 * within_s
        }

    def close(self) -> None:
        """Sign off, unless crops are still on loan: these are handed to others when their time is over."""
        self._remove_consumers(0, self._name)

    def _remove_consumers(self, idle_s: float, only: str) -> int:
        removed = 0
        for keys in self._directory.listed(self._serves):
            self._ensure([keys])
            removed += cast(int, self._link.run(scripts.TIDY, [keys.crops], [GROUP, round(1000 * idle_s), only]))
        return removed

    def _shards(self) -> list[list[Keys]]:
        """The sources by shard, beginning with another shard each time."""
        by_shard: dict[int, list[Keys]] = {}
        for keys in self._directory.listed(self._serves):
            by_shard.setdefault(keys.shard, []).append(keys)
        shards = list(by_shard.values())
        self._turn += 1
        first = self._turn % max(1, len(shards))
        return shards[first:] + shards[:first]

    def _fill(self, room: int) -> None:
        """Fetch until `room` crops are at hand or no more are there, without waiting.

        COUNT is per stream: each source gets its part of the room, and further rounds what others left over. With
        more sources than room a few crops too many are fetched, and kept for the next batch.
        """
        more = True
        while more and len(self._fetched) < room:
            shards = self._shards()
            sources = sum(len(shard) for shard in shards)
            share = max(1, (room - len(self._fetched)) // max(1, sources))
            full = [self._fetch(shard, share) for shard in shards]
            more = any(full)

    def _wait_for_first(self, wait_s: float) -> None:
        """Wait up to about `wait_s` for a crop, and fetch it."""
        shards = self._shards()
        if not shards:
            self._link.stop.wait(min(wait_s, _NO_SOURCE_PAUSE_S))
            return
        turn_s = _LONGEST_BLOCK_S if len(shards) == 1 else _SHARD_TURN_S
        self._fetch(shards[0], 1, block_ms=max(1, round(1000 * min(wait_s, turn_s))))

    def _fetch(self, sources: list[Keys], share: int, block_ms: int | None = None) -> bool:
        """Fetch up to `share` crops of each source of one shard; whether one may have more."""
        streams = {keys.crops: ">" for keys in sources}
        by_stream = {keys.crops.encode(): keys for keys in sources}
        try:
            reply = self._link.call(
                lambda client: client.xreadgroup(GROUP, self._name, streams, count=share, block=block_ms)  # type: ignore[arg-type]
            )
        except NoStreamError:
            # One missing stream fails the whole read: a new source, one that expired, a server that restarted.
            self._ensure(sources)
            return True
        found = cast(list[tuple[bytes, list[StreamEntry]]], reply)
        for stream, entries in found:
            for entry, fields in entries:
                delivery = self._deliver(by_stream[stream], entry, fields, 1)
                if delivery:
                    self._fetched.append(delivery)
        return any(len(entries) >= share for _, entries in found)

    def _ensure(self, sources: list[Keys]) -> None:
        for keys in sources:
            self._link.run(scripts.ENSURE, [keys.crops, keys.counts], [GROUP, COUNTS_EXPIRE_MS])

    def _deliver(self, keys: Keys, entry: bytes, fields: Fields, attempt: int) -> Delivery | None:
        try:
            crop = decode(fields.get(b"c", b""))
            if isinstance(crop, FaceCrop):
                return Delivery(crop, entry.decode(), attempt)
            reason = f"a {type(crop).__name__} among the crops"
        except CodecError as error:
            reason = str(error)
        _log.error("%s: entry %s cannot be read, to the dead letters: %s", keys.source, entry.decode(), reason)
        self._bury(keys, entry, fields, attempt, "unreadable")
        return None

    def _end_old_loans(self) -> None:
        old_ms = round(1000 * self._redelivery.after_s)
        for keys in self._directory.listed(self._serves):
            with suppress(NoStreamError):
                if deleted := self._link.call(partial(_end_loans, keys.crops, self._name, old_ms)):
                    self._count_deleted(keys, deleted)

    def _reclaim(self) -> Delivery | None:
        """One crop whose worker did not settle it in time, or None; looks a few times per loan."""
        now = time.monotonic()
        if now < self._reclaim_at:
            return None
        for keys in self._directory.listed(self._serves):
            delivery = self._reclaim_from(keys)
            if delivery:
                return delivery
        self._reclaim_at = now + self._redelivery.after_s / 4
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_EVERY_S
            self.tidy()
        return None

    def _reclaim_from(self, keys: Keys) -> Delivery | None:
        start: bytes | str = "0-0"
        while True:
            start, claimed, deleted = self._claim(keys, start)
            if deleted:
                self._count_deleted(keys, len(deleted))
            for entry, fields in claimed:
                delivery = self._retry(keys, entry, fields)
                if delivery:
                    return delivery
            if start == b"0-0":
                self._show_up(keys)
                return None

    def _show_up(self, keys: Keys) -> None:
        """Read what cannot be there: before Redis 7.2 a worker that is given nothing is taken for an idle one."""
        with suppress(NoStreamError):
            self._link.call(lambda client: client.xreadgroup(GROUP, self._name, {keys.crops: _BEYOND}, count=1))

    def _claim(self, keys: Keys, start: bytes | str) -> tuple[bytes, list[StreamEntry], list[bytes]]:
        """One step of XAUTOCLAIM: where to go on, at most one crop, and ids on loan whose crop was deleted."""
        least_ms = round(1000 * self._redelivery.after_s)
        try:
            reply = self._link.call(
                lambda client: client.xautoclaim(keys.crops, GROUP, self._name, least_ms, start, count=1)
            )
        except NoStreamError:
            self._ensure([keys])
            return b"0-0", [], []
        return cast(tuple[bytes, list[StreamEntry], list[bytes]], tuple(cast(list[object], reply)))

    def _retry(self, keys: Keys, entry: bytes, fields: Fields) -> Delivery | None:
        """Hand out a claimed crop again, unless it was handed out often enough.

        The server's own count is asked: one of ours would not survive a worker that is killed.
        """
        pending = self._link.call(lambda client: client.xpending_range(keys.crops, GROUP, entry, entry, 1))
        attempt = cast(list[dict[str, int]], pending)[0]["times_delivered"] if pending else 1
        if attempt <= self._redelivery.deliveries:
            return self._deliver(keys, entry, fields, attempt)
        _log.error("%s: entry %s failed %d times, to the dead letters", keys.source, entry.decode(), attempt - 1)
        self._bury(keys, entry, fields, attempt - 1, "deliveries")
        return None

    def _bury(self, keys: Keys, entry: bytes, fields: Fields, attempts: int, reason: DeadReason) -> None:
        stream_id = fields.get(b"s", keys.source.encode())
        epitaph: list[str | bytes | int] = [
            "stream",
            stream_id,
            "entry",
            entry,
            "reason",
            reason,
            "deliveries",
            attempts,
        ]
        try:
            crop = decode(fields.get(b"c", b""))
        except CodecError:
            crop = None
        if isinstance(crop, FaceCrop):
            epitaph += ["track", crop.key.person_id, "frame", crop.key.frame_index, "time_s", repr(crop.time_s)]
        arguments = [GROUP, entry, stream_id, _MOST_DEAD, *epitaph]
        if self._link.run(scripts.BURY, [keys.crops, keys.counts, keys.dead], arguments):
            self._on_dead(reason)

    def _count_deleted(self, keys: Keys, number: int) -> None:
        """Someone else trimmed the stream. Which stream_id the crops had is gone with them: the latest one's."""
        stream_id = self._link.call(lambda client: cast(bytes | None, client.hget(keys.counts, "stream")))
        if stream_id is not None:
            field = f"{stream_id.decode()}:dropped"
            self._link.run(scripts.TALLY, [keys.counts], [COUNTS_EXPIRE_MS, field, number])


def _end_loans(stream: str, name: str, idle_ms: int, client: Client) -> int:
    """Have what `name` has on loan taken for so old; how many of it were deleted by someone else."""
    loans: list[Any] = [
        one["message_id"] for one in client.xpending_range(stream, GROUP, "-", "+", _MOST_LOANS, name)
    ]
    ended = client.xclaim(stream, GROUP, name, 0, loans, idle=idle_ms, justid=True) if loans else []
    return len(loans) - len(ended)


def _consumers(stream: str, client: Client) -> list[dict[str, bytes | int]]:
    """Who reads `stream`; nobody where it has no reader yet, or there is none."""
    try:
        return cast(list[dict[str, bytes | int]], client.xinfo_consumers(stream, GROUP))
    except ResponseError as error:
        if not str(error).startswith(("NOGROUP", "no such key")):
            raise
        return []
