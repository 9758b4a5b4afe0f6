"""The timeline process: computes the timelines of one shard, or stands by until the owner of the shard is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.lease import AutoRenewingLease, Lease
from fer_stream.errors import FerStreamError, OutputError
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import create_output_dir
from fer_stream.outputs.daily_tables import DailyTables
from fer_stream.pipeline import run_timeline
from fer_stream.service.process import (
    ServiceContext,
    connect_queue,
    connect_store,
    open_journal,
    open_queue,
    open_store,
    reload_settings,
    timeline_settings,
)
from fer_stream.store.redis import lease_key
from fer_stream.timeline.processor import TimelineMetrics, TimelineProcessor

if TYPE_CHECKING:
    from fer_stream.broker.queue import RedisQueue
    from fer_stream.config.live import LiveSettings
    from fer_stream.metrics import Metrics

_log = get_logger(__name__)

_LEASE_TTL_S = 10.0
_PRUNE_INTERVAL_S = 3600.0
# Two round trips per source, so that 64 sources use about 1 % of a core.
_QUEUE_METRICS_INTERVAL_S = 2.0


class ShardMetrics:
    """Exports length, age and consumers of the queue of one shard, which must be the only one that `queue` serves.

    Only the owner of the lease of the shard exports them, so that sums over processes are correct.
    """

    def __init__(self, shard: int, queue: RedisQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._shard = shard
        self._depth = metrics.queue_depth.labels(shard)
        self._oldest_age = metrics.queue_oldest_age.labels(shard)
        self._metrics = metrics
        self._updated_s = float("-inf")

    def update(self) -> None:
        """Update the metrics if 2 s have passed since the last update."""
        if time.monotonic() - self._updated_s < _QUEUE_METRICS_INTERVAL_S:
            return
        self._updated_s = time.monotonic()
        sources = [keys.source for keys in self._queue.registry.sources([self._shard])]
        self._depth.set(self._queue.depth())
        oldest = [crop.face.captured_at for crop in self._queue.oldest_pending(sources).values() if crop]
        self._oldest_age.set(max(0.0, time.time() - min(oldest)) if oldest else 0.0)
        # Workers only register at sources, so that their number is unknown without any source.
        if sources:
            self._metrics.queue_consumers.labels(self._shard).set(self._queue.consumer_count())


def timeline(context: ServiceContext, load: Callable[[], LiveSettings], shard: int) -> None:
    """Compute the timelines of `shard` until stopped or until another process takes them over.

    On SIGHUP, `load` the settings again for added and removed sources.
    """
    settings = context.settings
    store_client = context.connect("store", connect_store)
    lease = Lease(store_client, lease_key(shard), _LEASE_TTL_S, owner=context.owner)
    if not _acquire(lease, context):
        return
    queue_client = context.connect("queue", connect_queue)
    queue = open_queue(queue_client, settings, consumer=ConsumerOptions(shards=[shard]))
    shard_metrics = ShardMetrics(shard, queue, context.metrics)
    tables = _open_tables(context)
    _watch_disks(context)
    timeline_metrics = TimelineMetrics(
        context.metrics,
        now=time.time,
        is_live=lambda source: _is_live(settings, source),
        # Without sources in its settings, this process accepts those of the capture processes.
        is_wanted=lambda source: not settings.sources or source in settings.sources,
    )
    processor = TimelineProcessor(
        open_store(store_client, settings, lease),
        tables,
        timeline_metrics,
        settings=lambda source: timeline_settings(settings, source),
        owns=lambda: lease.is_valid or lease.renew(),
    )
    pruned_s = -_PRUNE_INTERVAL_S

    def maintain() -> None:
        nonlocal settings, pruned_s
        context.health.heartbeat()
        shard_metrics.update()
        queue.registry.purge([shard])
        if context.reload.is_set():
            context.reload.clear()
            settings, difference = reload_settings(load, settings)
            for source in difference.removed:
                timeline_metrics.remove(source)
            for source in difference.added:
                timeline_metrics.restore(source)
        if tables and time.monotonic() - pruned_s > _PRUNE_INTERVAL_S:
            pruned_s = time.monotonic()
            _prune(tables)

    def sources() -> list[str]:
        return [keys.source for keys in queue.registry.sources([shard])]

    _log.info("worker_ready", shard=shard)
    with AutoRenewingLease(lease, f"the timelines of shard {shard}", stop=context.stop) as held:
        run_timeline(
            sources,
            queue,
            open_journal(queue_client, settings),
            processor,
            stop=held.lost,
            maintain=maintain,
        )


def _is_live(settings: LiveSettings, source: str) -> bool:
    """Return True for a camera or a file in real time: the age of its results shows whether the service keeps up."""
    found = settings.sources.get(source)
    return found is None or found.kind == "camera" or found.playback == "realtime"


def _open_tables(context: ServiceContext) -> DailyTables | None:
    settings = context.settings.recordings
    if settings.dir is None:
        return None
    stopped = False
    try:
        create_output_dir(settings.dir)
    except OutputError as error:
        stopped = True
        _log.error("writing_stopped", output="tables", error=str(error))
    return DailyTables(settings.dir, retention_days=settings.retention_days, clock=time.time, stopped=stopped)


def _watch_disks(context: ServiceContext) -> None:
    settings = context.settings
    if settings.recordings.dir:
        context.watch_disk(settings.recordings.dir)
    if not (settings.queue.url and settings.store.url):
        context.watch_disk(settings.state_dir)


def _acquire(lease: Lease, context: ServiceContext) -> bool:
    """Stand by until the lease is acquired. Return False if the process is stopped before."""
    logged = False
    while not context.stop.is_set():
        context.health.heartbeat()
        if lease.acquire():
            return True
        if not logged:
            _log.info("standing_by", reason="another process holds the lease")
            logged = True
        context.stop.wait(_LEASE_TTL_S / 5)
    return False


def _prune(tables: DailyTables) -> None:
    try:
        tables.prune()
    except FerStreamError as error:
        _log.error("prune_failed", error=str(error))
