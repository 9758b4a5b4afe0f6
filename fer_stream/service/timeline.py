"""The timeline process: owns the timelines of one shard, or stands by until the owner is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.lease import Lease
from fer_stream.broker.lease_renewal import HeldLease
from fer_stream.config import LiveSettings, changes
from fer_stream.errors import FerStreamError, OutputError
from fer_stream.files import make_folder
from fer_stream.outputs.daily_tables import RollingTables
from fer_stream.pipeline import run_timeline
from fer_stream.service.connections import open_queue, open_queue_link, open_store, open_store_link, timeline_of
from fer_stream.service.process import Process
from fer_stream.service.queue_metrics import ShardWatch
from fer_stream.store.redis import lease_key
from fer_stream.timeline.metrics import TimelineCounts
from fer_stream.timeline.processor import TimelineKeeper

_log = logging.getLogger(__name__)

_LEASE_S = 10.0
_PRUNE_S = 3600.0


def timeline(process: Process, load: Callable[[], LiveSettings], shard: int) -> None:
    """Keep the timelines of `shard` until told to stop, or until another process took them over.

    On SIGHUP `load` the settings again, for what they say of new sources.
    """
    settings = process.settings
    store_link = process.link_to("store", open_store_link)
    lease = Lease(store_link, lease_key(shard), _LEASE_S, owner=process.owner)
    if not _wait_for(lease, process):
        return
    queue_link = process.link_to("queue", open_queue_link)
    queue = open_queue(queue_link, settings, serves=[shard])
    watch = ShardWatch(shard, queue, process.metrics)
    files = _open_files(process)
    _watch_disks(process)
    keeper = TimelineKeeper(
        open_store(store_link, settings, lease),
        files,
        settings=lambda source: timeline_of(settings, source),
        owns=lambda: lease.held or lease.keep(),
    )
    counts = TimelineCounts(
        process.metrics,
        now=time.time,
        is_live=lambda source: _is_live(settings, source),
        # Settings without any source leave it to those of the captures.
        is_wanted=lambda source: not settings.sources or source in settings.sources,
    )
    tidied_s = -_PRUNE_S

    def sources() -> list[str]:
        nonlocal settings, tidied_s
        process.health.beat()
        watch.look()
        queue.directory.tidy([shard])
        if process.reload.is_set():
            process.reload.clear()
            settings = _reloaded(load, settings, counts)
        if files and time.monotonic() - tidied_s > _PRUNE_S:
            tidied_s = time.monotonic()
            _prune(files)
        return [keys.source for keys in queue.directory.listed([shard])]

    _log.info("keeping the timelines of shard %d", shard)
    with HeldLease(lease, f"the timelines of shard {shard}", stop=process.stop) as held:
        run_timeline(
            sources,
            queue,
            RedisJournal(queue_link, shards=settings.queue.shards),
            keeper,
            counts,
            stop=held.over,
            monotonic=time.monotonic,
        )


def _is_live(settings: LiveSettings, source: str) -> bool:
    """A camera, or a file that stands for one: the age of its results says how the service keeps up."""
    known = settings.sources.get(source)
    return known is None or known.kind == "camera" or known.playback == "realtime"


def _reloaded(load: Callable[[], LiveSettings], old: LiveSettings, counts: TimelineCounts) -> LiveSettings:
    try:
        new = load()
    except FerStreamError as error:
        _log.error("the new settings are left alone: %s", error)
        return old
    news = changes(old, new)
    for source in news.removed:
        counts.forget(source)
    for source in news.added:
        counts.return_of(source)
    return new


def _open_files(process: Process) -> RollingTables | None:
    settings = process.settings.recordings
    if settings.dir is None:
        return None
    try:
        make_folder(settings.dir)
    except OutputError as error:
        _log.error("%s The files begin when it is there.", error)
    return RollingTables(settings.dir, retention_days=settings.retention_days, clock=time.time)


def _watch_disks(process: Process) -> None:
    settings = process.settings
    if settings.recordings.dir:
        process.watch_disk("files", settings.recordings.dir)
    if not (settings.queue.url and settings.store.url):
        process.watch_disk("state", settings.state_dir)


def _wait_for(lease: Lease, process: Process) -> bool:
    """Stand by until the lease is ours; False where we are told to stop first."""
    told = False
    while not process.stop.is_set():
        process.health.beat()
        if lease.hold():
            return True
        if not told:
            _log.info("another process keeps these timelines: standing by")
            told = True
        process.stop.wait(_LEASE_S / 5)
    return False


def _prune(files: RollingTables) -> None:
    try:
        files.prune()
    except FerStreamError as error:
        _log.error("%s", error)
