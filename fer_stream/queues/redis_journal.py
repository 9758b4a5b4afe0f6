"""The journal on Redis Streams: one stream per source, read by one timeline process per shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import cast

from fer_stream.errors import CodecError
from fer_stream.leases import Lease
from fer_stream.queues import scripts
from fer_stream.queues.codec import Message, decode, encode
from fer_stream.queues.directory import Directory
from fer_stream.queues.keys import shard_of
from fer_stream.queues.queue import Entry, journal_source
from fer_stream.records import FaceCrop
from fer_stream.redis_link import Link

# The owner trims what it has made use of; this is for a source that is gone for good.
_EXPIRE_MS = 7 * 86_400_000
# BLOCK must end before the socket's own timeout.
_LONGEST_BLOCK_S = 1.0


class RedisJournal:
    """A `Journal` on the streams to which `RedisQueue.settle` publishes.

    A capture makes one per source, under the source's `lease`; a timeline process one for the sources of a shard.
    """

    def __init__(self, link: Link, *, shards: int = 1, lease: Lease | None = None) -> None:
        self.directory = Directory(link, shards)
        self._link = link
        self._shards = shards
        self._lease = lease

    def append(self, messages: Sequence[Message]) -> None:
        """As `Journal.append`, also at the server's memory limit. A lost reply may leave messages twice."""
        for source, group in groupby(messages, key=journal_source):
            keys = self.directory.keys(source)
            token = self._lease.token if self._lease else ""
            arguments: list[str | bytes | int] = [token, _EXPIRE_MS, *(encode(message) for message in group)]
            self._link.run(scripts.APPEND, [keys.predictions, keys.lease], arguments)

    def read(self, after: Mapping[str, str], max_per_source: int, max_wait_s: float) -> list[Entry]:
        """As `Journal.read`, for sources of one shard."""
        if len({shard_of(source, self._shards) for source in after}) > 1:
            raise ValueError(f"Expected sources of one shard, received {sorted(after)}")
        sources = {self.directory.keys(source).predictions.encode(): source for source in after}
        streams = {stream: after[source] for stream, source in sources.items()}
        if not streams:
            return []
        block = max(1, round(1000 * min(max_wait_s, _LONGEST_BLOCK_S))) if max_wait_s > 0 else None
        reply = self._link.call(lambda client: client.xread(streams, count=max_per_source, block=block))  # type: ignore[arg-type]
        found = cast(list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]], reply)
        return [
            Entry(sources[stream], position.decode(), _message(fields))
            for stream, entries in found
            for position, fields in entries
        ]

    def trim(self, source: str, through: str) -> None:
        """As `Journal.trim`. Harmless from a process that is no longer the owner: it forgets what it has used."""
        milliseconds, _, number = through.partition("-")
        keep = f"{milliseconds}-{int(number or 0) + 1}"
        keys = self.directory.keys(source)
        self._link.call(lambda client: client.xtrim(keys.predictions, minid=keep, approximate=False))


def _message(fields: Mapping[bytes, bytes]) -> Message | None:
    try:
        message = decode(fields.get(b"m", b""))
    except CodecError:
        return None
    return None if isinstance(message, FaceCrop) else message
