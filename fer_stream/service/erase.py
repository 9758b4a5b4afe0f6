"""Erasing what the live service knows of a stretch of time, in all the places where it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from fer_stream.broker.client import Link
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.keys import shard_of
from fer_stream.broker.lease import is_held
from fer_stream.config import LiveSettings, ServerSettings
from fer_stream.outputs.erasure import ErasedFiles, erase_files
from fer_stream.records import unix_time
from fer_stream.service.connections import open_queue, open_queue_link, open_store, open_store_link, timeline_of
from fer_stream.store.protocol import START, position_of
from fer_stream.store.redis import RedisStore, lease_key
from fer_stream.timeline.source_timeline import SourceTimeline

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased, or would be, and what cannot be yet.

    `results` and `segments` of the store, `waiting` faces between worker and timeline, and `files`. From
    `open_since_at` on, in Unix seconds, queue or timeline still keep somebody who will be written down; None where
    that does not concern the time in question. `compacted` tells whether the store rewrites its file.
    """

    results: int
    segments: int
    waiting: int
    files: ErasedFiles
    open_since_at: float | None
    compacted: bool = False

    @property
    def complete(self) -> bool:
        """Is nothing of that time left?"""
        return self.open_since_at is None and not self.files.growing


def forget(settings: LiveSettings, source: str, from_s: float, to_s: float, *, dry_run: bool) -> Erasure:
    """Erase the wall time from `from_s` to before `to_s`, in Unix seconds, of `source`; with `dry_run` only look.

    The order is that in which the data flows, so that nothing passes by. Raises `QueueError` where a server cannot be
    reached, `OutputError` where a file cannot be changed.
    """
    with _links(settings) as (queue_link, store_link):
        in_work = open_queue(queue_link, settings).open_within(source, from_s, to_s)
        journal, store = RedisJournal(queue_link, shards=settings.queue.shards), open_store(store_link, settings)
        waiting = journal.faces(source, from_s, to_s)
        # A timeline that runs may have read them, and says so with its next commit.
        lease = lease_key(shard_of(source, settings.queue.shards))
        read = from_s if waiting and is_held(store_link, lease) else None
        kept = _kept_since(settings, store, source, from_s, to_s)
        found = Erasure(
            results=sum(from_s <= at < to_s for at in _times(store, source)),
            segments=len(store.segments(source, from_s, to_s)),
            waiting=len(waiting),
            files=ErasedFiles(),
            open_since_at=min((at for at in (in_work, read, kept) if at is not None), default=None),
        )
        if not dry_run:
            journal.erase(source, waiting)
            store.forget(source, from_s, to_s)
        if settings.recordings.dir:
            files = _in_files(settings, settings.recordings.dir / source, from_s, to_s, dry_run)
            found = replace(found, files=files)
        return found if dry_run else replace(found, compacted=store.compact())


def known_sources(settings: LiveSettings) -> set[str]:
    """The names of which anything may be kept."""
    with _links(settings) as (_, store_link):
        names = {*settings.sources, *open_store(store_link, settings).sources()}
    folder = settings.recordings.dir
    if folder and folder.exists():
        names |= {path.name for path in folder.iterdir() if path.is_dir()}
    return names


def _in_files(settings: LiveSettings, folder: Path, from_s: float, to_s: float, dry_run: bool) -> ErasedFiles:
    return erase_files(
        folder, from_s, to_s, segment_s=settings.recordings.segment_s, now_s=time.time(), dry_run=dry_run
    )


def _times(store: RedisStore, source: str) -> Iterator[float]:
    position = START
    while page := store.results(source, position, _PAGE, 0):
        yield from (unix_time(frame.stream_id, frame.time_s) for frame in page)
        position = position_of(page[-1])


def _kept_since(settings: LiveSettings, store: RedisStore, source: str, from_s: float, to_s: float) -> float | None:
    checkpoint = store.checkpoint(source)
    if checkpoint is None:
        return None
    timeline = SourceTimeline(lambda: timeline_of(settings, source))
    timeline.restore(checkpoint.state)
    return timeline.open_within(from_s, to_s)


@contextmanager
def _links(settings: LiveSettings) -> Iterator[tuple[Link, Link]]:
    """Queue and store; the private ones are started for this where no `serve` runs."""
    with ExitStack() as stack:
        if not (settings.queue.url and settings.store.url):
            # Not at the top: containers come without one.
            from fer_stream.broker.embedded import EmbeddedServer, Role

            servers: dict[Role, ServerSettings] = {"queue": settings.queue, "store": settings.store}
            for role, server in servers.items():
                if server.url is None:
                    stack.enter_context(EmbeddedServer(settings.state_dir, role, max_memory_mb=server.max_memory_mb))
        openers: tuple[Callable[[LiveSettings, Event], Link], ...] = (open_queue_link, open_store_link)
        queue, store = (opener(settings, Event()) for opener in openers)
        stack.callback(queue.close)
        stack.callback(store.close)
        yield queue, store
