"""Runtime shared by all processes of the service: log, metrics, health, signals, shutdown and Redis clients.

The only module of `service` that creates Redis adapters: on the servers of the settings, or on the embedded ones of a
running `fer-stream serve`.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, ProcessCollector

from fer_stream import __version__
from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.lease import Owner
from fer_stream.broker.protocols import Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.config.live import LiveSettings
from fer_stream.config.reload import Changes, changes, keep_until_restart
from fer_stream.errors import FerStreamError
from fer_stream.log import configure_logging, get_logger
from fer_stream.metrics import Metrics
from fer_stream.service.health import Health, serve_endpoint
from fer_stream.store.protocol import Retention
from fer_stream.store.redis import RedisStore

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient
    from fer_stream.broker.consumer import ConsumerOptions
    from fer_stream.broker.lease import Lease
    from fer_stream.config.live import LiveSettings, LiveTimelineSettings, OverflowSettings, SourceSettings
    from fer_stream.config.servers import ServerSettings
    from fer_stream.jobs.queue import RqJobs


_log = get_logger(__name__)

OWNER_VARIABLE = "FER_STREAM_OWNER"
"""Environment variable in which `serve` passes a process the owner of its leases."""

# A process that still runs this long after a stop request exits: a read may hang in FFmpeg (docs/how-to/cameras.md).
_GRACE_S = 7.0
_DISK_INTERVAL_S = 10.0


@dataclass(slots=True)
class ServiceContext:
    """The current process: its settings, metrics, health, lease owner and the signals it received.

    SIGTERM and SIGINT set `stop`; SIGHUP sets `reload`. Both also set `wakeup`.
    """

    settings: LiveSettings
    metrics: Metrics
    health: Health
    owner: Owner = field(default_factory=Owner)
    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)
    wakeup: threading.Event = field(default_factory=threading.Event)

    def on_signal(self, number: int) -> None:
        """Handle a signal."""
        (self.reload if number == signal.SIGHUP else self.stop).set()
        self.wakeup.set()

    def connect(
        self,
        server: Literal["queue", "store"],
        open_client: Callable[[LiveSettings, threading.Event], RedisClient],
    ) -> RedisClient:
        """Connect to a server, whose availability becomes part of health and metrics."""
        up = self.metrics.redis_up.labels(server)
        client = open_client(self.settings, self.stop)
        up.set(1)

        def check() -> str | None:
            error = client.ping_error()
            up.set(error is None)
            return error

        self.health.add_check(server, check)
        return client

    def watch_disk(self, path: Path) -> None:
        """Export the free and total space of the disk of `path` every 10 s."""
        threading.Thread(target=self._watch_disk, args=(path,), name="disk", daemon=True).start()

    def _watch_disk(self, path: Path) -> None:
        """Run in a thread of its own, because a network disk that is gone may block forever."""
        while not self.stop.is_set():
            try:
                usage = shutil.disk_usage(path)
                self.metrics.disk_free.labels(str(path)).set(usage.free)
                self.metrics.disk_size.labels(str(path)).set(usage.total)
            except OSError as error:
                _log.debug("disk_usage_unavailable", path=str(path), error=str(error))
            self.stop.wait(_DISK_INTERVAL_S)


def run(
    role: str,
    settings: LiveSettings,
    work: Callable[[ServiceContext], None],
    *,
    metrics_port: int | None,
    grace_s: float | None = _GRACE_S,
) -> None:
    """Run `work` until it returns; signals ask it to stop. Must be called in the main thread, which takes signals.

    A process that still runs `grace_s` seconds after a stop request exits with code 1; None disables that.
    """
    configure_logging(settings.log.level, json=settings.log.format == "json", role=role)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    context = ServiceContext(settings, Metrics(registry), Health(role), _owner())
    context.metrics.build_info.info({"version": __version__, "python": platform.python_version()})
    if metrics_port is not None:
        serve_endpoint(settings.metrics.host, metrics_port, registry, context.health)
    install_signal_handlers(context)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # blocked by `serve` during the start
    threading.Thread(target=context.health.watch, args=(context.stop,), name="health", daemon=True).start()
    if grace_s is not None:
        threading.Thread(target=force_exit_after, args=(context.stop, grace_s), daemon=True).start()
    work(context)
    _log.info("stopped")


def reload_settings(load: Callable[[], LiveSettings], current: LiveSettings) -> tuple[LiveSettings, Changes]:
    """Load the settings again. Return those now in effect, and the changes.

    Groups that need a restart keep their current values. Invalid settings are logged and change nothing.
    """
    try:
        new = load()
        effective = keep_until_restart(current, new)
    except FerStreamError as error:
        _log.error("configuration_reload_failed", action="keeping the current settings", error=str(error))
        return current, Changes()
    difference = changes(current, new)
    _log.info(
        "configuration_reloaded",
        added=difference.added,
        removed=difference.removed,
        changed=difference.changed,
    )
    if difference.restart:
        _log.warning("restart_required", groups=difference.restart)
    return effective, difference


def prepare_state_dir(path: Path) -> None:
    """Create `state_dir` with access for this user only; it contains uploads, results of jobs and embedded servers.

    An existing folder of another user, such as a mounted volume, is left as it is. A folder that cannot be used is
    logged, because only uploads and jobs need it if all servers are external.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.getuid():
            path.chmod(0o700)
    except OSError as error:
        _log.warning("state_dir_unusable", path=str(path), error=error.strerror)


def install_signal_handlers(context: ServiceContext) -> None:
    """Handle signals in a thread: a handler that sets an event deadlocks if it interrupts a `wait` on that event."""
    received: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.put(number))

    def forward() -> None:
        while True:
            context.on_signal(received.get())

    threading.Thread(target=forward, name="signals", daemon=True).start()


def _owner() -> Owner:
    """Return the lease owner assigned by `serve`, or a new one."""
    text = os.environ.get(OWNER_VARIABLE)
    return Owner.parse(text) if text else Owner()


def force_exit_after(stop: threading.Event, grace_s: float) -> None:
    """Wait for `stop`, then exit the process with code 1 after `grace_s` seconds."""
    stop.wait()
    time.sleep(grace_s)
    _log.error("shutdown_timeout", timeout_s=grace_s)
    os._exit(1)


def connect_queue(settings: LiveSettings, stop: Event) -> RedisClient:
    """Connect to the queue server: the configured one, or the embedded one of a running `serve`."""
    return open_client(_url(settings.queue, settings, "queue"), cluster=settings.queue.cluster, stop=stop)


def connect_store(settings: LiveSettings, stop: Event, *, retry_timeout_s: float = 30.0) -> RedisClient:
    """Connect to the store server like `connect_queue`. Retry calls for `retry_timeout_s` while it is unreachable."""
    return open_client(_url(settings.store, settings, "store"), retry_timeout_s=retry_timeout_s, stop=stop)


def store_url(settings: LiveSettings) -> str:
    """Return the URL of the store with user and password. Raises `QueueError` if an embedded one does not run."""
    return _url(settings.store, settings, "store")


def _url(server: ServerSettings, settings: LiveSettings, role: Literal["queue", "store"]) -> str:
    if server.address:
        return server.address.get_secret_value()
    # Not at module level: containers use external servers and have no embedded one.
    from fer_stream.broker.embedded import attach

    return attach(settings.state_dir, role)


def open_queue(
    client: RedisClient,
    settings: LiveSettings,
    *,
    overflow: Overflow | None = None,
    lease: Lease | None = None,
    consumer: ConsumerOptions | None = None,
) -> RedisQueue:
    """Create the queue on `client`; see `RedisQueue` for the keyword arguments."""
    redelivery = settings.queue.redelivery
    return RedisQueue(
        client,
        shards=settings.queue.shards,
        overflow=overflow,
        lease=lease,
        redelivery=Redelivery(redelivery.visibility_timeout_s, redelivery.max_deliveries),
        consumer=consumer,
    )


def open_journal(client: RedisClient, settings: LiveSettings, lease: Lease | None = None) -> RedisJournal:
    """Create the journal on `client`, the connection to the queue server."""
    return RedisJournal(client, shards=settings.queue.shards, lease=lease)


def open_store(client: RedisClient, settings: LiveSettings, lease: Lease | None = None) -> RedisStore:
    """Create the store on `client`."""
    limits = settings.store.retention
    retention = Retention(results=limits.max_frames, frames_s=limits.frames_s, segments_days=limits.segments_days)
    return RedisStore(client, lease=lease, retention=retention)


def open_jobs(client: RedisClient, settings: LiveSettings) -> RqJobs:
    """Create the job client on `client`, the connection to the store."""
    # Not at module level: most processes do not use rq.
    from fer_stream.jobs.queue import RqJobs

    return RqJobs(client, settings.jobs)


def overflow_for(source: SourceSettings) -> Overflow:
    """Return the overflow policy of a source: what happens if the workers cannot keep up."""
    overflow: OverflowSettings = source.overflow
    drop = overflow.policy == "drop_oldest" or (overflow.policy == "auto" and source.kind == "camera")
    if drop:
        default = Overflow.live()
        return Overflow.live(overflow.capacity or default.capacity, overflow.max_age_s, default.expire_s)
    return Overflow.file(overflow.capacity or Overflow.file().capacity)


def timeline_settings(settings: LiveSettings, source: str) -> LiveTimelineSettings:
    """Return the timeline settings of a source, also of one that was removed from the settings.

    They are adapted to the frame rate, so that the interval between two frames is not a gap. A source that blocks
    while the queue is full may be late without limit, because its media time does not follow the clock.
    """
    source_settings, timeline = settings.sources.get(source), settings.timeline
    if source_settings and source_settings.fps:
        timeline = timeline.at_rate(source_settings.fps)
    if source_settings and overflow_for(source_settings).policy == "block":
        timeline = timeline.model_copy(update={"allowed_lateness_s": math.inf})
    return timeline
