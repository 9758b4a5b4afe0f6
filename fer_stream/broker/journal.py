"""The journal on Redis Streams: one stream per source, read by one timeline process per shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import cast

from redis.exceptions import OutOfMemoryError

from fer_stream.broker import scripts
from fer_stream.broker.client import Link
from fer_stream.broker.codec import Message, decode, encode
from fer_stream.broker.keys import Keys, shard_of
from fer_stream.broker.lease import Lease
from fer_stream.broker.protocols import START, Entry, journal_source
from fer_stream.broker.source_registry import Directory
from fer_stream.errors import CodecError, QueueError
from fer_stream.records import FaceCrop, Prediction, unix_time

# The owner trims what it has made use of; this is for a source that is gone for good.
_EXPIRE_MS = 7 * 86_400_000
# BLOCK must end before the socket's own timeout.
_LONGEST_BLOCK_S = 1.0
_AT_ONCE = 500


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
            keys = self._listed(source)
            token = self._lease.token if self._lease else ""
            arguments: list[str | bytes | int] = [token, _EXPIRE_MS, *(encode(message) for message in group)]
            self._link.run(scripts.APPEND, [keys.predictions, keys.lease], arguments)

    def _listed(self, source: str) -> Keys:
        """List a source, even one that has shown nobody yet; at the memory limit that has to wait."""
        try:
            return self.directory.add(source)
        except OutOfMemoryError:
            return self.directory.keys(source)

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

    def knows(self, source: str, position: str) -> bool:
        """As `Journal.knows`."""
        if position == START:
            return True
        keys = self.directory.keys(source)
        try:
            info = self._link.call(lambda client: cast(dict[str, bytes], client.xinfo_stream(keys.predictions)))
        except QueueError:
            if self._link.call(lambda client: client.exists(keys.predictions)):
                raise
            return False
        return _number(position) <= _number(info["last-generated-id"].decode())

    def trim(self, source: str, through: str) -> None:
        """As `Journal.trim`. Harmless from a process that is no longer the owner: it forgets what it has used."""
        milliseconds, number = _number(through)
        keep = f"{milliseconds}-{number + 1}"
        keys = self.directory.keys(source)
        self._link.call(lambda client: client.xtrim(keys.predictions, minid=keep, approximate=False))

    def faces(self, source: str, from_s: float, to_s: float) -> list[str]:
        """The positions of the predictions of the wall time from `from_s` to before `to_s` that wait here."""
        key, found, start = self.directory.keys(source).predictions, list[str](), "-"
        while entries := self._link.call(lambda client, start=start: client.xrange(key, start, count=_AT_ONCE)):  # type: ignore[misc]
            for position, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], entries):
                message = _message(fields)
                if isinstance(message, Prediction):
                    at = unix_time(message.key.stream_id, message.time_s)
                    found += [position.decode()] if from_s <= at < to_s else []
                start = f"({position.decode()}"
        return found

    def erase(self, source: str, positions: Sequence[str]) -> None:
        """Delete messages. To the timeline, faces that are announced and never come are missing faces."""
        key = self.directory.keys(source).predictions
        for first in range(0, len(positions), _AT_ONCE):
            self._link.call(lambda client, first=first: client.xdel(key, *positions[first : first + _AT_ONCE]))  # type: ignore[misc]


def _number(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number or 0)


def _message(fields: Mapping[bytes, bytes]) -> Message | None:
    try:
        message = decode(fields.get(b"m", b""))
    except CodecError:
        return None
    return None if isinstance(message, FaceCrop) else message
