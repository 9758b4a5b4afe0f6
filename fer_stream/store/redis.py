"""The results on one Redis or Valkey server. `docs/reference/store.md` is their public description."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Literal, cast
from uuid import uuid4

from redis.exceptions import ClusterCrossSlotError, OutOfMemoryError, RedisClusterException

from fer_stream.broker.client import Connection, RedisClient
from fer_stream.broker.lease import Lease
from fer_stream.errors import ConfigError, QueueError, StoreFull
from fer_stream.records import Gap, LabelledFrame, Segment, unix_time
from fer_stream.store import scripts
from fer_stream.store.preview_channel import Channel
from fer_stream.store.protocol import WATCH_S, CameraState, Checkpoint, Preview, Retention, position_of
from fer_stream.store.schemas import (
    frame_from_json,
    frame_to_json,
    gap_from_json,
    gap_to_json,
    segment_from_json,
    segment_to_json,
    start_at,
)

SOURCES = "fer:store:sources"
"""Sorted set: the names of all sources, by the Unix time at which they were written last."""

# As long as the journal on the queue's server keeps what follows the checkpoint.
_CHECKPOINT_S = 7 * 86_400
# BLOCK must end before the socket's own timeout.
_LONGEST_BLOCK_S = 1.0
_ERASE_AT_ONCE = 500

Argument = str | bytes | int
Entries = list[tuple[bytes, dict[bytes, bytes]]]


class Keys:
    """The keys of one source."""

    def __init__(self, source: str) -> None:
        self.results = f"fer:store:{source}:results"
        self.latest = f"fer:store:{source}:latest"
        self.segments = f"fer:store:{source}:segments"
        self.gaps = f"fer:store:{source}:gaps"
        self.state = f"fer:store:{source}:state"
        self.checkpoint = f"fer:store:{source}:checkpoint"
        self.watched = f"fer:store:{source}:watched"


def lease_key(shard: int) -> str:
    """The key of the lease of the timeline process of `shard`."""
    return f"fer:store:lease:timeline:{shard}"


class RedisStore:
    """A `ResultStore` on one server, which may not be a Redis Cluster.

    A timeline process makes one under the `lease` of its shard, whose key must lie on the same server; captures and
    readers make one without. `retention` matters to those who write. May be used by several threads.

    Raises `ConfigError` where the server is part of a Cluster.
    """

    def __init__(self, link: RedisClient, *, lease: Lease | None = None, retention: Retention | None = None) -> None:
        self._link = link
        self._lease = lease
        self._retention = retention or Retention()
        self._pictures = Channel(link)
        self._refuse_cluster()

    def publish(self, source: str, frames: Sequence[LabelledFrame]) -> int:
        """As `ResultStore.publish`, in one round trip; `StoreFull` is the server's memory limit.

        After a reply that was lost with the connection the number may be too low; what was done is right.
        """
        if not frames:
            return 0
        keys, kept = Keys(source), self._retention
        arguments = [*self._head(source), kept.results, ceil(kept.frames_s)]
        for frame in frames:
            arguments += [*position_of(frame).split("-"), _number(_at(frame)), frame_to_json(frame)]
        try:
            names = [keys.results, keys.latest, SOURCES, self._lease_key()]
            return cast(int, self._link.run(scripts.PUBLISH, names, arguments))
        except OutOfMemoryError:
            raise StoreFull(
                f"{self._link.name} is at its memory limit, {len(frames)} results of {source} were not added: raise "
                f"its maxmemory, or keep fewer results or days of segments"
            ) from None

    def commit(
        self, source: str, checkpoint: Checkpoint, segments: Sequence[Segment], gaps: Sequence[Gap]
    ) -> None:
        """As `ResultStore.commit`, in one round trip, also at the server's memory limit."""
        keys, keep_s = Keys(source), ceil(self._retention.segments_s)
        arguments: list[Argument] = [
            *self._head(source),
            uuid4().hex,
            *(checkpoint.position, checkpoint.state, json.dumps(dict(checkpoint.files))),
            *(max(keep_s, _CHECKPOINT_S), keep_s, len(segments)),
        ]
        for segment in segments:
            arguments += [*_span(segment), segment_to_json(segment)]
        for gap in gaps:
            arguments += [*_span(gap), gap_to_json(gap)]
        names = [keys.checkpoint, keys.segments, keys.gaps, SOURCES, self._lease_key()]
        self._link.run(scripts.COMMIT, names, arguments)

    def checkpoint(self, source: str) -> Checkpoint | None:
        """As `ResultStore.checkpoint`."""
        fields = ["position", "state", "files"]
        reply = self._link.call(lambda client: client.hmget(Keys(source).checkpoint, fields))
        position, state, files = cast(list[bytes | None], reply)
        if position is None or state is None or files is None:
            return None
        return Checkpoint(position.decode(), state, json.loads(files))

    def sources(self) -> list[str]:
        """As `ResultStore.sources`."""
        names = self._link.call(lambda client: cast(list[bytes], client.zrange(SOURCES, 0, -1)))
        return sorted(name.decode() for name in names)

    def latest(self, source: str) -> LabelledFrame | None:
        """As `ResultStore.latest`."""
        frame = self._link.call(lambda client: cast(bytes | None, client.hget(Keys(source).latest, "frame")))
        return None if frame is None else frame_from_json(frame)

    def results(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[LabelledFrame]:
        """As `ResultStore.results`. BLOCK being no clock, the wait may be 0.1 s longer."""
        until = time.monotonic() + max_wait_s
        while True:
            left_s = until - time.monotonic()
            found = self._read(Keys(source).results, after, max_items, left_s)
            if found or left_s <= 0 or self._link.stop.is_set():
                return found

    def segments(self, source: str, from_s: float, to_s: float) -> list[Segment]:
        """As `ResultStore.segments`."""
        return [segment_from_json(text) for text in self._spans(source, "segments", from_s, to_s)]

    def gaps(self, source: str, from_s: float, to_s: float) -> list[Gap]:
        """As `ResultStore.gaps`."""
        return [gap_from_json(text) for text in self._spans(source, "gaps", from_s, to_s)]

    def set_state(self, source: str, state: CameraState) -> None:
        """As `ResultStore.set_state`, in one round trip, also at the server's memory limit."""
        fields: list[Argument] = [
            *("up", int(state.up), "since", _number(state.since), "reason", state.reason or ""),
            *("text", state.text, "failures", state.failures),
            *("width", state.width or 0, "height", state.height or 0),
        ]
        arguments = [source, ceil(self._retention.source_s), round(1000 * self._retention.state_s), *fields]
        self._link.run(scripts.STATE, [Keys(source).state, SOURCES], arguments)

    def state(self, source: str) -> CameraState | None:
        """As `ResultStore.state`."""
        reply = self._link.call(lambda client: client.hgetall(Keys(source).state))
        found = {name.decode(): value.decode() for name, value in cast(dict[bytes, bytes], reply).items()}
        if not found:
            return None
        return CameraState(
            up=found["up"] == "1",
            since=float(found["since"]),
            reason=found["reason"] or None,
            text=found["text"],
            failures=int(found["failures"]),
            width=int(found.get("width", 0)) or None,
            height=int(found.get("height", 0)) or None,
        )

    def next_end(self, source: str, from_s: float) -> float | None:
        """As `ResultStore.next_end`."""
        segments = Keys(source).segments
        found = self._link.call(
            lambda client: cast(
                list[tuple[bytes, float]],
                client.zrangebyscore(segments, from_s, "+inf", start=0, num=1, withscores=True),
            )
        )
        return found[0][1] if found else None

    def watch(self, source: str) -> None:
        """As `ResultStore.watch`, also at the server's memory limit."""
        self._link.run(scripts.WATCH, [Keys(source).watched], [round(1000 * WATCH_S)])

    def watched(self, sources: Sequence[str]) -> set[str]:
        """As `ResultStore.watched`, in one round trip."""
        if not sources:
            return set()
        keys = [Keys(source).watched for source in sources]
        marks = self._link.call(lambda client: cast(list[bytes | None], client.mget(keys)))
        return {source for source, mark in zip(sources, marks, strict=True) if mark is not None}

    def set_preview(self, source: str, preview: Preview) -> None:
        """As `ResultStore.set_preview`: a message, which the server does not keep at all."""
        self._pictures.send(source, preview)

    def preview(self, source: str) -> Preview | None:
        """As `ResultStore.preview`."""
        return self._pictures.newest(source)

    def close(self) -> None:
        """Listen for pictures no more. The link stays open."""
        self._pictures.close()

    def forget(self, source: str, from_s: float, to_s: float) -> int:
        """As `ResultStore.forget`. A persistent server keeps what was erased in its file until it rewrites that."""
        keys = Keys(source)
        erased = sum(self._erase(keys.results, ids) for ids in self._ids(keys.results, from_s, to_s))
        at = self._link.call(lambda client: cast(bytes | None, client.hget(keys.latest, "at")))
        if at is not None and from_s <= float(at) < to_s:
            self._link.call(lambda client: client.delete(keys.latest))
        texts = self._spans(source, "segments", from_s, to_s)
        if texts:
            erased += self._link.call(lambda client: client.zrem(keys.segments, *texts))
        return erased

    def compact(self) -> bool:
        """Have the server rewrite its append-only file, so that what was erased leaves the disk too.

        False where it does not let us, or is at it already.
        """
        try:
            self._link.call(lambda client: client.bgrewriteaof())
        except QueueError:
            return False
        return True

    def _erase(self, stream: str, ids: list[bytes]) -> int:
        return self._link.call(lambda client: client.xdel(stream, *ids))

    def _head(self, source: str) -> list[Argument]:
        return [self._lease.token if self._lease else "", source, ceil(self._retention.source_s)]

    def _lease_key(self) -> str:
        return self._lease.key if self._lease else lease_key(0)

    def _read(self, stream: str, after: str, max_items: int, wait_s: float) -> list[LabelledFrame]:
        block = max(1, round(1000 * min(wait_s, _LONGEST_BLOCK_S))) if wait_s > 0 else None
        reply = self._link.call(lambda client: client.xread({stream: after}, count=max_items, block=block))
        found = cast(list[tuple[bytes, Entries]], reply)
        return [frame_from_json(fields[b"frame"]) for _, entries in found for _, fields in entries]

    def _ids(self, stream: str, from_s: float, to_s: float) -> Iterator[list[bytes]]:
        """The ids of the results of a stretch of wall time, some at a time. Ids tell the epoch, not the time."""
        entries = self._entries(stream, "-")
        while entries:
            ids = [entry for entry, fields in entries if from_s <= float(fields[b"at"]) < to_s]
            if ids:
                yield ids
            entries = self._entries(stream, f"({entries[-1][0].decode()}")

    def _entries(self, stream: str, start: str) -> Entries:
        return self._link.call(lambda client: cast(Entries, client.xrange(stream, start, "+", _ERASE_AT_ONCE)))

    def _spans(self, source: str, what: Literal["segments", "gaps"], from_s: float, to_s: float) -> list[bytes]:
        """What reaches into a stretch of wall time, by its beginning.

        Sorted by their end: those that begin before `to_s` end before `to_s` + the longest of all.
        """
        keys = Keys(source)
        spans = keys.segments if what == "segments" else keys.gaps
        longest_s = self._link.call(
            lambda client: cast(bytes | None, client.hget(keys.checkpoint, f"longest_{what}_s"))
        )
        end_s = to_s + int(longest_s or 0)
        texts = self._link.call(lambda client: cast(list[bytes], client.zrangebyscore(spans, from_s, end_s)))
        begun = sorted((start_at(text), text) for text in texts)
        return [text for at, text in begun if at < to_s]

    def _refuse_cluster(self) -> None:
        if self._link.call(_is_cluster):
            raise ConfigError(
                f"{self._link.name} is part of a Redis Cluster, where the store cannot be: give store.url a server "
                f"of its own"
            )


def _is_cluster(client: Connection) -> bool:
    """Whether keys of different hash slots may not meet in one script."""
    try:
        client.eval(scripts.PROBE.text, 2, "fer:store:probe:0", "fer:store:probe:1")
    except (ClusterCrossSlotError, RedisClusterException):
        return True
    return False


def _at(frame: LabelledFrame) -> float:
    return unix_time(frame.stream_id, frame.time_s)


def _number(at: float) -> str:
    return f"{at:.6f}"


def _span(one: Segment | Gap) -> tuple[str, str]:
    return _number(unix_time(one.stream_id, one.start_s)), _number(unix_time(one.stream_id, one.end_s))
