"""Journal on Redis Streams: one stream per source, read by one timeline process per shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, cast

from redis.exceptions import OutOfMemoryError

from fer_stream.broker.client import APPEND
from fer_stream.broker.codec import decode, encode
from fer_stream.broker.protocols import JOURNAL_START, JournalEntry, JournalMessage, journal_source
from fer_stream.broker.source_registry import SourceKeys, SourceRegistry
from fer_stream.errors import CodecError, QueueError
from fer_stream.records import Face, FaceCrop, Prediction, shard_of, unix_time

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient
    from fer_stream.broker.lease import Lease

# The timeline trims processed entries. Expiry covers sources that were removed for good.
_EXPIRE_MS = 7 * 86_400_000
# BLOCK must end before the socket timeout.
_MAX_BLOCK_S = 1.0
_ENTRIES_PER_CALL = 500


class RedisJournal:
    """A `Journal` on the streams to which `RedisQueue.ack` publishes.

    A capture creates one per source, with the source's `lease`; a timeline process one for the sources of a shard.
    """

    def __init__(self, client: RedisClient, *, shards: int = 1, lease: Lease | None = None) -> None:
        self.registry = SourceRegistry(client, shards)
        self._client = client
        self._shards = shards
        self._lease = lease

    def append(self, messages: Sequence[JournalMessage]) -> None:
        """See `Journal.append`. Works at the server's memory limit. A lost reply can leave messages twice."""
        for source, group in groupby(messages, key=journal_source):
            keys = self._register(source)
            token = self._lease.token if self._lease else ""
            arguments: list[str | bytes | int] = [token, _EXPIRE_MS, *(encode(message) for message in group)]
            self._client.run(APPEND, [keys.predictions, keys.lease], arguments)

    def _register(self, source: str) -> SourceKeys:
        """Register a source, even one without faces so far; at the memory limit a later call does so."""
        try:
            return self.registry.register(source)
        except OutOfMemoryError:
            return self.registry.keys(source)

    def read(self, after: Mapping[str, str], max_per_source: int, max_wait_s: float) -> list[JournalEntry]:
        """See `Journal.read`. Raises `ValueError` if the sources are not all in one shard."""
        if len({shard_of(source, self._shards) for source in after}) > 1:
            raise ValueError(f"Expected sources of one shard, received {sorted(after)}")
        sources = {self.registry.keys(source).predictions.encode(): source for source in after}
        streams = {stream: after[source] for stream, source in sources.items()}
        if not streams:
            return []
        block = max(1, round(1000 * min(max_wait_s, _MAX_BLOCK_S))) if max_wait_s > 0 else None
        reply = self._client.call(
            lambda connection: connection.xread(streams, count=max_per_source, block=block)  # type: ignore[arg-type]
        )
        by_stream = cast(list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]], reply)
        return [
            JournalEntry(sources[stream], position.decode(), _message(fields))
            for stream, entries in by_stream
            for position, fields in entries
        ]

    def is_valid_position(self, source: str, position: str) -> bool:
        """See `Journal.is_valid_position`."""
        if position == JOURNAL_START:
            return True
        key = self.registry.keys(source).predictions
        try:
            info = self._client.call(lambda connection: cast(dict[str, bytes], connection.xinfo_stream(key)))
        except QueueError:
            if self._client.call(lambda connection: connection.exists(key)):
                raise
            return False
        return _parse(position) <= _parse(info["last-generated-id"].decode())

    def trim(self, source: str, through: str) -> None:
        """See `Journal.trim`. Needs no lease: a former owner deletes only entries that it has processed."""
        milliseconds, sequence = _parse(through)
        first_kept = f"{milliseconds}-{sequence + 1}"
        key = self.registry.keys(source).predictions
        self._client.call(lambda connection: connection.xtrim(key, minid=first_kept, approximate=False))

    def prediction_positions(self, source: str, from_s: float, to_s: float) -> list[str]:
        """Return the positions of the predictions whose Unix time is in [`from_s`, `to_s`)."""
        key, positions, start = self.registry.keys(source).predictions, list[str](), "-"
        while entries := self._client.call(
            lambda connection, start=start: connection.xrange(key, start, count=_ENTRIES_PER_CALL)  # type: ignore[misc]
        ):
            for position, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], entries):
                message = _message(fields)
                face = message.face if isinstance(message, Prediction) else message
                if isinstance(face, Face):
                    time_s = unix_time(face.key.stream_id, face.time_s)
                    positions += [position.decode()] if from_s <= time_s < to_s else []
                start = f"({position.decode()}"
        return positions

    def erase(self, source: str, positions: Sequence[str]) -> None:
        """Delete the entries at `positions`. The timeline counts erased predictions as missing."""
        key = self.registry.keys(source).predictions
        for first in range(0, len(positions), _ENTRIES_PER_CALL):
            chunk = positions[first : first + _ENTRIES_PER_CALL]
            self._client.call(lambda connection, chunk=chunk: connection.xdel(key, *chunk))  # type: ignore[misc]


def _parse(position: str) -> tuple[int, int]:
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence or 0)


def _message(fields: Mapping[bytes, bytes]) -> JournalMessage | None:
    try:
        message = decode(fields.get(b"m", b""))
    except CodecError:
        return None
    return None if isinstance(message, FaceCrop) else message
