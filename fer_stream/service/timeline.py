"""The timeline process: computes the timelines of its shards, or stands by until their owners are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Literal

from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.lease import AutoRenewingLease, Lease
from fer_stream.config.reload import Changes, SourceFilter
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
    from fer_stream.broker.client import RedisClient
    from fer_stream.broker.queue import RedisQueue
    from fer_stream.config.live import LiveSettings
    from fer_stream.metrics import Metrics

_log = get_logger(__name__)

_LEASE_TTL_S = 10.0
_PRUNE_INTERVAL_S = 3600.0
# Two round trips per source, so that 64 sources use about 1 % of a core.
_QUEUE_METRICS_INTERVAL_S = 2.0
_MEMORY_INTERVAL_S = 10.0
_MAINTENANCE_INTERVAL_S = 1.0


class MemoryMetrics:
    """Exports the memory of Redis servers and its limit."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def watch(self, server: Literal["queue", "store"], client: RedisClient) -> None:
        """Update the metrics of `server` every 10 s, in a thread, because calls may block."""
        Thread(target=self._watch, args=(server, client), name=f"memory-{server}", daemon=True).start()

    def _watch(self, server: str, client: RedisClient) -> None:
        logged = False
        while not client.stop.is_set():
            try:
                self._update(server, *client.memory())
                logged = False
            except FerStreamError as error:
                if not logged:
                    _log.warning("memory_unavailable", server=server, error=str(error))
                logged = True
            client.stop.wait(_MEMORY_INTERVAL_S)

    def _update(self, server: str, used: int, limit: int) -> None:
        self._metrics.redis_memory_used.labels(server).set(used)
        if limit:
            self._metrics.redis_memory_max.labels(server).set(limit)
        else:
            self._metrics.redis_memory_max.remove_by_labels({"server": server})


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


def timeline(context: ServiceContext, load: Callable[[], LiveSettings], shards: Sequence[int]) -> None:
    """Compute the timelines of `shards` until stopped or until another process takes over one of them.

    Each shard has a lease and a thread of its own; shards that another process holds are on stand-by. On SIGHUP,
    `load` the settings again for added and removed sources. Raises the first error of a shard, after the others have
    stopped.
    """
    shared = TimelineContext(context)
    threads = [ShardThread(shard, shared) for shard in shards]
    for thread in threads:
        thread.start()
    while not context.stop.is_set() and all(thread.is_alive() for thread in threads):
        context.wakeup.wait(_MAINTENANCE_INTERVAL_S)
        context.wakeup.clear()
        if context.reload.is_set():
            context.reload.clear()
            _reload(load, shared, threads)
        if any(thread.holds_lease for thread in threads):
            shared.prune()
    context.stop.set()
    for thread in threads:
        thread.join()
    for thread in threads:
        if thread.error is not None:
            raise thread.error


def _reload(load: Callable[[], LiveSettings], shared: TimelineContext, threads: Sequence[ShardThread]) -> None:
    difference = shared.reload(load)
    for thread in threads:
        thread.apply(difference)


class TimelineContext:
    """Settings and connections shared by the shards of one process."""

    def __init__(self, context: ServiceContext) -> None:
        self.context = context
        self.settings = context.settings
        self.is_configured = SourceFilter(context.settings)
        self.store_client = context.connect("store", connect_store)
        self._queue_client: RedisClient | None = None
        self._lock = Lock()
        self._pruned_s = -_PRUNE_INTERVAL_S
        self._memory = MemoryMetrics(context.metrics)
        self._memory.watch("store", self.store_client)
        self._tables_stopped: bool | None = None

    def queue_client(self) -> RedisClient:
        """Return the connection to the queue, which is opened when the process holds its first lease."""
        with self._lock:
            if self._queue_client is None:
                self._queue_client = self.context.connect("queue", connect_queue)
                self._memory.watch("queue", self._queue_client)
                self._watch_disks()
            return self._queue_client

    def open_tables(self) -> DailyTables | None:
        """Return tables for the sources of one shard, or None if none are written."""
        settings = self.settings.recordings
        if settings.dir is None:
            return None
        with self._lock:
            if self._tables_stopped is None:
                self._tables_stopped = not _create_directory(settings.dir)
        return DailyTables(
            settings.dir, retention_days=settings.retention_days, clock=time.time, stopped=self._tables_stopped
        )

    def reload(self, load: Callable[[], LiveSettings]) -> Changes:
        """Load the settings again; return the changes."""
        self.settings, difference = reload_settings(load, self.settings)
        self.is_configured.update(self.settings, difference)
        return difference

    def prune(self) -> None:
        """Delete expired files, once per hour."""
        if time.monotonic() - self._pruned_s < _PRUNE_INTERVAL_S:
            return
        self._pruned_s = time.monotonic()
        tables = self.open_tables()
        try:
            if tables is not None:
                tables.prune()
        except FerStreamError as error:
            _log.error("prune_failed", error=str(error))

    def _watch_disks(self) -> None:
        if self.settings.recordings.dir:
            self.context.watch_disk(self.settings.recordings.dir)
        if not (self.settings.queue.url and self.settings.store.url):
            self.context.watch_disk(self.settings.state_dir)


class ShardThread(Thread):
    """Computes the timelines of one shard once it holds the lease. Ends with the lease, with `error`, or on stop."""

    def __init__(self, shard: int, shared: TimelineContext) -> None:
        super().__init__(name=f"shard-{shard}", daemon=True)
        self.error: Exception | None = None
        self.holds_lease = False
        self._shard = shard
        self._shared = shared
        self._context = shared.context
        self._lease = Lease(shared.store_client, lease_key(shard), _LEASE_TTL_S, owner=shared.context.owner)
        self._metrics = TimelineMetrics(
            shared.context.metrics,
            now=time.time,
            is_live=lambda source: _is_live(shared.settings, source),
            is_wanted=shared.is_configured,
        )

    def run(self) -> None:
        """Stand by, then process the shard."""
        try:
            if self._acquire():
                self.holds_lease = True
                self._process()
        except Exception as error:  # noqa: BLE001 - raised again in the main thread
            self.error = error
        finally:
            self._context.wakeup.set()

    def apply(self, difference: Changes) -> None:
        """Stop exporting removed sources, and export added ones again."""
        for source in difference.removed:
            self._metrics.remove(source)
        for source in difference.added:
            self._metrics.restore(source)

    def _acquire(self) -> bool:
        """Stand by until the lease is acquired. Return False if the process is stopped before."""
        logged = False
        while not self._context.stop.is_set():
            self._heartbeat()
            if self._lease.acquire():
                return True
            if not logged:
                _log.info("standing_by", shard=self._shard, reason="another process holds the lease")
                logged = True
            self._context.stop.wait(_LEASE_TTL_S / 5)
        return False

    def _process(self) -> None:
        shared, settings = self._shared, self._shared.settings
        client = shared.queue_client()
        queue = open_queue(client, settings, consumer=ConsumerOptions(shards=[self._shard]))
        shard_metrics = ShardMetrics(self._shard, queue, self._context.metrics)
        processor = TimelineProcessor(
            open_store(shared.store_client, settings, self._lease),
            shared.open_tables(),
            self._metrics,
            settings=lambda source: timeline_settings(shared.settings, source),
            owns=lambda: self._lease.is_valid or self._lease.renew(),
        )

        def maintain() -> None:
            self._heartbeat()
            shard_metrics.update()
            queue.registry.purge([self._shard])

        def sources() -> list[str]:
            return [keys.source for keys in queue.registry.sources([self._shard])]

        _log.info("worker_ready", shard=self._shard)
        name = f"the timelines of shard {self._shard}"
        with AutoRenewingLease(self._lease, name, stop=self._context.stop) as held:
            run_timeline(sources, queue, open_journal(client, settings), processor, stop=held.lost, maintain=maintain)

    def _heartbeat(self) -> None:
        self._context.health.heartbeat(self.name)


def _is_live(settings: LiveSettings, source: str) -> bool:
    """Return True for a camera or a file in real time: the age of its results shows whether the service keeps up."""
    found = settings.sources.get(source)
    return found is None or found.kind == "camera" or found.playback == "realtime"


def _create_directory(path: Path) -> bool:
    """Create the folder of the tables. Return False if that failed; it is then retried with every row."""
    try:
        create_output_dir(path)
    except OutputError as error:
        _log.error("writing_stopped", output="tables", error=str(error))
        return False
    return True
