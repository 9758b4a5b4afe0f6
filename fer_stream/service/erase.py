"""Erasure of all stored data of a source for a time range: queue, journal, store and files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from fer_stream.broker.lease import is_held
from fer_stream.outputs.erasure import ErasedFiles, erase_files
from fer_stream.records import shard_of, unix_time
from fer_stream.service.process import (
    connect_queue,
    connect_store,
    open_journal,
    open_queue,
    open_store,
    timeline_settings,
)
from fer_stream.store.protocol import START, position_of
from fer_stream.store.redis import RedisStore, lease_key
from fer_stream.timeline.source_timeline import SourceTimeline

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.servers import ServerSettings

_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """Counts of erased items, and data that cannot be erased yet.

    `results` and `segments` are counts in the store, `pending` is the number of predictions that the timeline has not
    read, and `files` describes the files. If not None, `open_since_at` is the Unix time since which the queue or the
    timeline holds data of the range that will still be written. `compacted` is True if the store rewrites its
    append-only file.
    """

    results: int
    segments: int
    pending: int
    files: ErasedFiles
    open_since_at: float | None
    compacted: bool = False

    @property
    def complete(self) -> bool:
        """True if no data of the range is left."""
        return self.open_since_at is None and not self.files.in_progress


def erase(settings: LiveSettings, source: str, from_s: float, to_s: float, *, dry_run: bool) -> ErasureReport:
    """Erase the data of `source` from `from_s` to before `to_s`, in Unix seconds. With `dry_run`, only count it.

    The stages are erased in the order of the data flow, so that no data moves past the erasure. Raises `QueueError`
    if a server is unreachable and `OutputError` if a file cannot be changed.
    """
    with _connections(settings) as (queue_client, store_client):
        queued_since = open_queue(queue_client, settings).pending_in_range(source, from_s, to_s)
        journal, store = open_journal(queue_client, settings), open_store(store_client, settings)
        pending = journal.prediction_positions(source, from_s, to_s)
        # A running timeline may have read them already; its next commit would show that.
        lease = lease_key(shard_of(source, settings.queue.shards))
        read_since = from_s if pending and is_held(store_client, lease) else None
        open_since = _timeline_open_since(settings, store, source, from_s, to_s)
        report = ErasureReport(
            results=sum(from_s <= at < to_s for at in _times(store, source)),
            segments=len(store.segments(source, from_s, to_s)),
            pending=len(pending),
            files=ErasedFiles(),
            open_since_at=min((at for at in (queued_since, read_since, open_since) if at is not None), default=None),
        )
        if not dry_run:
            journal.erase(source, pending)
            store.erase(source, from_s, to_s)
        if settings.recordings.dir:
            files = _erase_files(settings, settings.recordings.dir / source, from_s, to_s, dry_run)
            report = replace(report, files=files)
        return report if dry_run else replace(report, compacted=store.compact())


def stored_sources(settings: LiveSettings) -> set[str]:
    """Return the names of all sources that may have stored data."""
    with _connections(settings) as (_, store_client):
        names = {*settings.sources, *open_store(store_client, settings).sources()}
    recordings = settings.recordings.dir
    if recordings and recordings.exists():
        names |= {path.name for path in recordings.iterdir() if path.is_dir()}
    return names


def _erase_files(settings: LiveSettings, directory: Path, from_s: float, to_s: float, dry_run: bool) -> ErasedFiles:
    return erase_files(
        directory, from_s, to_s, segment_s=settings.recordings.segment_s, now_s=time.time(), dry_run=dry_run
    )


def _times(store: RedisStore, source: str) -> Iterator[float]:
    position = START
    while page := store.results(source, position, _PAGE_SIZE, 0):
        yield from (unix_time(frame.stream_id, frame.time_s) for frame in page)
        position = position_of(page[-1])


def _timeline_open_since(
    settings: LiveSettings, store: RedisStore, source: str, from_s: float, to_s: float
) -> float | None:
    checkpoint = store.checkpoint(source)
    if checkpoint is None:
        return None
    timeline = SourceTimeline(lambda: timeline_settings(settings, source))
    timeline.restore(checkpoint.state)
    return timeline.open_within(from_s, to_s)


@contextmanager
def _connections(settings: LiveSettings) -> Iterator[tuple[RedisClient, RedisClient]]:
    """Connect to queue and store; embedded servers are started for the duration if no `serve` runs."""
    with ExitStack() as stack:
        if not (settings.queue.url and settings.store.url):
            # Not at module level: containers have no embedded server.
            from fer_stream.broker.embedded import EmbeddedServer, Role

            servers: dict[Role, ServerSettings] = {"queue": settings.queue, "store": settings.store}
            for role, server in servers.items():
                if server.url is None:
                    stack.enter_context(EmbeddedServer(settings.state_dir, role, max_memory_mb=server.max_memory_mb))
        openers: tuple[Callable[[LiveSettings, Event], RedisClient], ...] = (connect_queue, connect_store)
        queue, store = (opener(settings, Event()) for opener in openers)
        stack.callback(queue.close)
        stack.callback(store.close)
        yield queue, store
