"""Result store on one Redis or Valkey server. `docs/reference/store.md` is its public description."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING, Literal, TypeVar, cast
from uuid import uuid4

from redis.exceptions import ClusterCrossSlotError, OutOfMemoryError, RedisClusterException

from fer_stream.broker.client import FENCE, Connection, RedisClient, Script, load_script
from fer_stream.errors import ConfigError, QueueError, StoreFull
from fer_stream.records import Gap, LabelledFrame, Segment, unix_time
from fer_stream.store.preview_channel import PreviewChannel
from fer_stream.store.protocol import (
    PREVIEW_REQUEST_TTL_S,
    CameraState,
    Checkpoint,
    Preview,
    Retention,
    position_of,
)
from fer_stream.store.schemas import (
    FrameDocument,
    StoredGap,
    StoredSegment,
    frame_document,
    frame_of,
    gap_of,
    parse_frame,
    parse_gap,
    parse_segment,
    segment_of,
    stored_gap,
    stored_segment,
    to_json,
)

if TYPE_CHECKING:
    from fer_stream.broker.lease import Lease

SOURCES = "fer:store:sources"
"""Sorted set of the names of all sources, with the Unix time of their last update as score."""

# The journal on the queue's server keeps the entries after a checkpoint as long as this.
_CHECKPOINT_RETENTION_S = 7 * 86_400
# BLOCK must end before the socket timeout.
_MAX_BLOCK_S = 1.0
_ENTRIES_PER_CALL = 500

# Results may be rejected at the memory limit. The history is small, and a failed commit would stop the timeline.
_PUBLISH = load_script(__package__, FENCE, "touch_source", "publish")
_COMMIT = load_script(__package__, FENCE, "touch_source", "commit", allow_oom=True)
_SET_STATE = load_script(__package__, "touch_source", "set_state", allow_oom=True)
_REQUEST_PREVIEWS = Script("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])\n")
_NO_OP = Script("#!lua flags=allow-oom\nreturn 1\n")

Argument = str | bytes | int
Entries = list[tuple[bytes, dict[bytes, bytes]]]
T = TypeVar("T", StoredSegment, StoredGap)


class Keys:
    """Keys of one source."""

    def __init__(self, source: str) -> None:
        self.results = f"fer:store:{source}:results"
        self.latest = f"fer:store:{source}:latest"
        self.segments = f"fer:store:{source}:segments"
        self.gaps = f"fer:store:{source}:gaps"
        self.state = f"fer:store:{source}:state"
        self.checkpoint = f"fer:store:{source}:checkpoint"
        self.preview_request = f"fer:store:{source}:preview_request"


def lease_key(shard: int) -> str:
    """Return the key of the lease of the timeline process of `shard`."""
    return f"fer:store:lease:timeline:{shard}"


class RedisStore:
    """A `ResultStore` on one server that is not part of a Redis Cluster.

    A timeline process needs the `lease` of its shard, stored on the same server; captures and readers need none.
    `retention` applies to what is written, `monotonic` to the age of previews. May be used by several threads.

    Raises `ConfigError` if the server is part of a Cluster.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        lease: Lease | None = None,
        retention: Retention | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._lease = lease
        self._retention = retention or Retention()
        self._previews = PreviewChannel(client, monotonic=monotonic)
        self._refuse_cluster()

    def publish(self, source: str, frames: Sequence[LabelledFrame]) -> int:
        """See `ResultStore.publish`. One round trip. `StoreFull` means that the server is at its memory limit.

        If a reply was lost with the connection, the returned number can be too low; the stored data is correct.
        """
        if not frames:
            return 0
        keys, retention = Keys(source), self._retention
        arguments = [*self._header(source), retention.results, ceil(retention.frames_s)]
        for frame in frames:
            arguments += [*position_of(frame).split("-"), _number(_at(frame)), to_json(frame_document(frame))]
        try:
            names = [keys.results, keys.latest, SOURCES, self._lease_key()]
            return cast(int, self._client.run(_PUBLISH, names, arguments))
        except OutOfMemoryError:
            raise StoreFull(
                f"{self._client.name} is at its memory limit, {len(frames)} results of {source} were not added: "
                f"increase its maxmemory, or reduce store.retention"
            ) from None

    def commit(self, source: str, checkpoint: Checkpoint, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """See `ResultStore.commit`. One round trip. Works at the server's memory limit."""
        keys, segments_s = Keys(source), ceil(self._retention.segments_s)
        arguments: list[Argument] = [
            *self._header(source),
            uuid4().hex,
            *(checkpoint.position, checkpoint.state, json.dumps(dict(checkpoint.files))),
            *(max(segments_s, _CHECKPOINT_RETENTION_S), segments_s, len(segments)),
        ]
        for segment in segments:
            arguments += [*_span(segment), to_json(stored_segment(segment))]
        for gap in gaps:
            arguments += [*_span(gap), to_json(stored_gap(gap))]
        names = [keys.checkpoint, keys.segments, keys.gaps, SOURCES, self._lease_key()]
        self._client.run(_COMMIT, names, arguments)

    def checkpoint(self, source: str) -> Checkpoint | None:
        """See `ResultStore.checkpoint`."""
        fields = ["position", "state", "files"]
        reply = self._client.call(lambda connection: connection.hmget(Keys(source).checkpoint, fields))
        position, state, files = cast(list[bytes | None], reply)
        if position is None or state is None or files is None:
            return None
        return Checkpoint(position.decode(), state, json.loads(files))

    def sources(self) -> list[str]:
        """See `ResultStore.sources`."""
        names = self._client.call(lambda connection: cast(list[bytes], connection.zrange(SOURCES, 0, -1)))
        return sorted(name.decode() for name in names)

    def latest(self, source: str) -> LabelledFrame | None:
        """See `ResultStore.latest`."""
        document = self.latest_document(source)
        return None if document is None else frame_of(document)

    def latest_document(self, source: str) -> FrameDocument | None:
        """See `ResultStore.latest_document`."""
        key = Keys(source).latest
        text = self._client.call(lambda connection: cast(bytes | None, connection.hget(key, "frame")))
        return None if text is None else parse_frame(text)

    def results(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[LabelledFrame]:
        """See `ResultStore.results`. BLOCK is imprecise, so the wait can be 0.1 s longer."""
        return [frame_of(one) for one in self.result_documents(source, after, max_items, max_wait_s)]

    def result_documents(self, source: str, after: str, max_items: int, max_wait_s: float) -> list[FrameDocument]:
        """See `ResultStore.result_documents`."""
        deadline_s = time.monotonic() + max_wait_s
        while True:
            left_s = deadline_s - time.monotonic()
            found = self._read(Keys(source).results, after, max_items, left_s)
            if found or left_s <= 0 or self._client.stop.is_set():
                return found

    def segments(self, source: str, from_s: float, to_s: float) -> list[Segment]:
        """See `ResultStore.segments`."""
        return [segment_of(one) for one in self.segment_documents(source, from_s, to_s)]

    def segment_documents(self, source: str, from_s: float, to_s: float) -> list[StoredSegment]:
        """See `ResultStore.segment_documents`."""
        return _in_range(self._spans(source, "segments", from_s, to_s), parse_segment, to_s)

    def gaps(self, source: str, from_s: float, to_s: float) -> list[Gap]:
        """See `ResultStore.gaps`."""
        return [gap_of(one) for one in self.gap_documents(source, from_s, to_s)]

    def gap_documents(self, source: str, from_s: float, to_s: float) -> list[StoredGap]:
        """See `ResultStore.gap_documents`."""
        return _in_range(self._spans(source, "gaps", from_s, to_s), parse_gap, to_s)

    def set_state(self, source: str, state: CameraState) -> None:
        """See `ResultStore.set_state`. One round trip. Works at the server's memory limit."""
        fields: list[Argument] = [
            *("up", int(state.up), "since", _number(state.since), "reason", state.reason or ""),
            *("text", state.text, "failures", state.failures),
            *("width", state.width or 0, "height", state.height or 0),
        ]
        arguments = [source, ceil(self._retention.source_s), round(1000 * self._retention.state_s), *fields]
        self._client.run(_SET_STATE, [Keys(source).state, SOURCES], arguments)

    def state(self, source: str) -> CameraState | None:
        """See `ResultStore.state`."""
        reply = self._client.call(lambda connection: connection.hgetall(Keys(source).state))
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

    def clear_state(self, source: str) -> None:
        """See `ResultStore.clear_state`. One round trip."""
        self._client.call(lambda connection: connection.delete(Keys(source).state))

    def next_segment_end(self, source: str, from_s: float) -> float | None:
        """See `ResultStore.next_segment_end`."""
        segments = Keys(source).segments
        found = self._client.call(
            lambda connection: cast(
                list[tuple[bytes, float]],
                connection.zrangebyscore(segments, from_s, "+inf", start=0, num=1, withscores=True),
            )
        )
        return found[0][1] if found else None

    def request_previews(self, source: str) -> None:
        """See `ResultStore.request_previews`. Works at the server's memory limit."""
        self._client.run(_REQUEST_PREVIEWS, [Keys(source).preview_request], [round(1000 * PREVIEW_REQUEST_TTL_S)])

    def preview_requests(self, sources: Sequence[str]) -> set[str]:
        """See `ResultStore.preview_requests`. One round trip."""
        if not sources:
            return set()
        keys = [Keys(source).preview_request for source in sources]
        requests = self._client.call(lambda connection: cast(list[bytes | None], connection.mget(keys)))
        return {source for source, request in zip(sources, requests, strict=True) if request is not None}

    def set_preview(self, source: str, preview: Preview) -> None:
        """See `ResultStore.set_preview`. Sent as a message, which the server does not store."""
        self._previews.send(source, preview)

    def preview(self, source: str) -> Preview | None:
        """See `ResultStore.preview`."""
        return self._previews.newest(source)

    def close(self) -> None:
        """Stop listening for previews. The client stays open."""
        self._previews.close()

    def erase(self, source: str, from_s: float, to_s: float) -> int:
        """See `ResultStore.erase`. A persistent server keeps deleted data in its file until the next rewrite."""
        keys = Keys(source)
        erased = sum(self._delete(keys.results, ids) for ids in self._ids(keys.results, from_s, to_s))
        at = self._client.call(lambda connection: cast(bytes | None, connection.hget(keys.latest, "at")))
        if at is not None and from_s <= float(at) < to_s:
            self._client.call(lambda connection: connection.delete(keys.latest))
        spans = self._spans(source, "segments", from_s, to_s)
        if texts := [text for text in spans if parse_segment(text)["start_at"] < to_s]:
            erased += self._client.call(lambda connection: connection.zrem(keys.segments, *texts))
        return erased

    def compact(self) -> bool:
        """Start a rewrite of the server's append-only file, which removes deleted data from the disk.

        Returns False if the server refuses or a rewrite is in progress.
        """
        try:
            self._client.call(lambda connection: connection.bgrewriteaof())
        except QueueError:
            return False
        return True

    def _delete(self, stream: str, ids: list[bytes]) -> int:
        return self._client.call(lambda connection: connection.xdel(stream, *ids))

    def _header(self, source: str) -> list[Argument]:
        return [self._lease.token if self._lease else "", source, ceil(self._retention.source_s)]

    def _lease_key(self) -> str:
        return self._lease.key if self._lease else lease_key(0)

    def _read(self, stream: str, after: str, max_items: int, wait_s: float) -> list[FrameDocument]:
        block = max(1, round(1000 * min(wait_s, _MAX_BLOCK_S))) if wait_s > 0 else None
        reply = self._client.call(lambda connection: connection.xread({stream: after}, count=max_items, block=block))
        found = cast(list[tuple[bytes, Entries]], reply)
        return [parse_frame(fields[b"frame"]) for _, entries in found for _, fields in entries]

    def _ids(self, stream: str, from_s: float, to_s: float) -> Iterator[list[bytes]]:
        """Yield the ids of the results in a wall time range, in chunks. An id contains the session, not the time."""
        entries = self._entries(stream, "-")
        while entries:
            ids = [entry for entry, fields in entries if from_s <= float(fields[b"at"]) < to_s]
            if ids:
                yield ids
            entries = self._entries(stream, f"({entries[-1][0].decode()}")

    def _entries(self, stream: str, start: str) -> Entries:
        return self._client.call(
            lambda connection: cast(Entries, connection.xrange(stream, start, "+", _ENTRIES_PER_CALL))
        )

    def _spans(self, source: str, kind: Literal["segments", "gaps"], from_s: float, to_s: float) -> list[bytes]:
        """Return all spans that overlap a wall time range, and some that start later.

        Their score is their end. One that starts before `to_s` ends before `to_s` + the longest duration.
        """
        keys = Keys(source)
        key = keys.segments if kind == "segments" else keys.gaps
        longest_s = self._client.call(
            lambda connection: cast(bytes | None, connection.hget(keys.checkpoint, f"longest_{kind}_s"))
        )
        end_s = to_s + int(longest_s or 0)
        return self._client.call(lambda connection: cast(list[bytes], connection.zrangebyscore(key, from_s, end_s)))

    def _refuse_cluster(self) -> None:
        if self._client.call(_is_cluster):
            raise ConfigError(
                f"{self._client.name} is part of a Redis Cluster, which the store does not support: "
                f"set store.url to a standalone server"
            )


def _in_range(texts: list[bytes], parse: Callable[[bytes], T], to_s: float) -> list[T]:
    """Return the documents that start before `to_s`, sorted by start."""
    # Ties are sorted by text, so that the order does not depend on the server.
    documents = [parse(text) for text in sorted(texts)]
    return sorted((one for one in documents if one["start_at"] < to_s), key=lambda one: one["start_at"])


def _is_cluster(connection: Connection) -> bool:
    """Return whether a script cannot use keys of different hash slots."""
    try:
        connection.eval(_NO_OP.text, 2, "fer:store:probe:0", "fer:store:probe:1")
    except (ClusterCrossSlotError, RedisClusterException):
        return True
    return False


def _at(frame: LabelledFrame) -> float:
    return unix_time(frame.stream_id, frame.time_s)


def _number(at: float) -> str:
    return f"{at:.6f}"


def _span(one: Segment | Gap) -> tuple[str, str]:
    return _number(unix_time(one.stream_id, one.start_s)), _number(unix_time(one.stream_id, one.end_s))
