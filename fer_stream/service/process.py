"""Runtime shared by all processes of the service: log, metrics, health, signals and a bounded shutdown."""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, ProcessCollector

from fer_stream import __version__
from fer_stream.broker.lease import Owner
from fer_stream.config.live import Changes, LiveSettings, changes
from fer_stream.errors import FerStreamError
from fer_stream.log import configure_logging, get_logger
from fer_stream.metrics import Metrics
from fer_stream.service.health import Health, serve_endpoint

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient

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
    """Load the settings again. Return them and the changes; if they are invalid, return `current` and no changes."""
    try:
        new = load()
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
    return new, difference


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
