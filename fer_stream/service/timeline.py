"""The timeline process: owns the timelines of one shard, or stands by until the owner is gone."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from threading import Event, Thread

from fer_stream.config import LiveSettings
from fer_stream.errors import FerStreamError, OutputError
from fer_stream.filejob import make_folder
from fer_stream.leases import Lease
from fer_stream.pipeline import run_timeline
from fer_stream.queues.redis_journal import RedisJournal
from fer_stream.service.links import open_queue, open_queue_link, open_store, open_store_link, overflow_of
from fer_stream.service.process import Process
from fer_stream.timeline.keeper import TimelineKeeper
from fer_stream.timeline.redis import lease_key
from fer_stream.writers.rolling import RollingTables

_log = logging.getLogger(__name__)

_LEASE_S = 10.0
_PRUNE_S = 3600.0


def timeline(process: Process, load: Callable[[], LiveSettings], shard: int) -> None:
    """Keep the timelines of `shard` until told to stop, or until another process took them over.

    On SIGHUP `load` the settings again, for what they say of new sources.
    """
    settings = process.settings
    store_link = open_store_link(settings, process.stop)
    lease = Lease(store_link, lease_key(shard), _LEASE_S)
    if not _wait_for(lease, process.stop):
        return
    queue_link = open_queue_link(settings, process.stop)
    queue = open_queue(queue_link, settings)
    files = _open_files(process)
    keeper = TimelineKeeper(
        open_store(store_link, settings, lease),
        files,
        settings=settings.timeline,
        lateness_s=lambda source: _lateness_s(settings, source),
    )
    tidied_s = -_PRUNE_S

    def sources() -> list[str]:
        nonlocal settings, tidied_s
        if process.reload.is_set():
            process.reload.clear()
            settings = _reloaded(load, settings)
        if files and time.monotonic() - tidied_s > _PRUNE_S:
            tidied_s = time.monotonic()
            _prune(files)
        return [keys.source for keys in queue.directory.listed([shard])]

    over = Event()
    Thread(target=_hold, args=(lease, process.stop, over), daemon=True).start()
    _log.info("keeping the timelines of shard %d", shard)
    try:
        run_timeline(
            sources,
            queue,
            RedisJournal(queue_link, shards=settings.queue.shards),
            keeper,
            metrics=process.metrics,
            stop=over,
            now=time.time,
            monotonic=time.monotonic,
        )
    finally:
        lease.release()


def _lateness_s(settings: LiveSettings, source: str) -> float:
    """A source that waits for the workers is waited for in turn: its media time may run ahead of the clock."""
    known = settings.sources.get(source)
    return math.inf if known and overflow_of(known).policy == "block" else settings.timeline.lateness_s


def _reloaded(load: Callable[[], LiveSettings], old: LiveSettings) -> LiveSettings:
    try:
        return load()
    except FerStreamError as error:
        _log.error("the new settings are left alone: %s", error)
        return old


def _open_files(process: Process) -> RollingTables | None:
    settings = process.settings.files
    if settings.folder is None:
        return None
    try:
        make_folder(settings.folder)
    except OutputError as error:
        _log.error("%s The files begin when it is there.", error)
    return RollingTables(settings.folder, retention_days=settings.retention_days, clock=time.time)


def _wait_for(lease: Lease, stop: Event) -> bool:
    """Stand by until the lease is ours; False where we are told to stop first."""
    told = False
    while not stop.is_set():
        if lease.hold():
            return True
        if not told:
            _log.info("another process keeps these timelines: standing by")
            told = True
        stop.wait(_LEASE_S / 5)
    return False


def _prune(files: RollingTables) -> None:
    try:
        files.prune()
    except FerStreamError as error:
        _log.error("%s", error)


def _hold(lease: Lease, stop: Event, over: Event) -> None:
    """Lengthen the lease until we are told to stop; without it the work is over at once."""
    while not stop.wait(_LEASE_S / 4):
        try:
            if not lease.hold():
                _log.error("another process took the timelines over")
                break
        except FerStreamError as error:
            _log.error("%s", error)
    over.set()
