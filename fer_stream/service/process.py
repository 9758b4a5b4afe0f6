"""What all processes of the service have in common: a log, metrics, signals, and an end within bounds."""

from __future__ import annotations

import logging
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
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector

from fer_stream import __version__
from fer_stream.broker.client import Link
from fer_stream.broker.lease import Owner
from fer_stream.config import LiveSettings
from fer_stream.log import configure_logging
from fer_stream.metrics import Metrics
from fer_stream.service.endpoint import serve_endpoint
from fer_stream.service.health import Health

_log = logging.getLogger(__name__)

OWNER_VARIABLE = "FER_STREAM_OWNER"
"""Environment variable in which `serve` tells a process as whom it holds leases."""

# A process that was told to stop and still runs after this is ended: a read may hang in FFmpeg (docs/cameras.md).
_GRACE_S = 7.0
_DISK_S = 10.0


@dataclass(slots=True)
class Process:
    """The process that we are: settings, metrics, health, as whom it holds leases, what it was told by signals.

    SIGTERM and SIGINT set `stop`; SIGHUP sets `reload`. `woken` is set by both, for those who wait for either.
    """

    settings: LiveSettings
    metrics: Metrics
    health: Health
    owner: Owner = field(default_factory=Owner)
    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)
    woken: threading.Event = field(default_factory=threading.Event)

    def told(self, number: int) -> None:
        """Take a signal."""
        (self.reload if number == signal.SIGHUP else self.stop).set()
        self.woken.set()

    def link_to(
        self, server: Literal["queue", "store"], open_link: Callable[[LiveSettings, threading.Event], Link]
    ) -> Link:
        """Open the link to a server. From now on health and metrics tell whether it answers."""
        up = self.metrics.redis_up.labels(server)
        link = open_link(self.settings, self.stop)
        up.set(1)

        def trouble() -> str | None:
            text = link.trouble()
            up.set(text is None)
            return text

        self.health.need(server, trouble)
        return link

    def watch_disk(self, name: str, folder: Path) -> None:
        """From now on metrics tell how full the disk of `folder` is, under `name`."""
        threading.Thread(target=self._watch_disk, args=(name, folder), name=f"disk-{name}", daemon=True).start()

    def _watch_disk(self, name: str, folder: Path) -> None:
        """In a thread of its own, because a network disk that is gone may keep it for ever."""
        while not self.stop.is_set():
            try:
                usage = shutil.disk_usage(folder)
                self.metrics.disk_free.labels(name).set(usage.free)
                self.metrics.disk_size.labels(name).set(usage.total)
            except OSError as error:
                _log.debug("the disk of %s cannot be looked at: %s", folder, error)
            self.stop.wait(_DISK_S)


def run(
    role: str,
    settings: LiveSettings,
    work: Callable[[Process], None],
    *,
    metrics_port: int | None,
    grace_s: float | None = _GRACE_S,
) -> None:
    """Do `work` until it ends or a signal says so. Signals are taken in the main thread, so this must run there.

    A process that still works `grace_s` after it was told to stop is ended; None trusts it to end by itself.
    """
    configure_logging(settings.log.level, json=settings.log.format == "json", role=role)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    process = Process(settings, Metrics(registry), Health(role), _owner())
    process.metrics.build_info.info({"version": __version__, "python": platform.python_version()})
    if metrics_port is not None:
        serve_endpoint(settings.metrics.host, metrics_port, registry, process.health)
    _hear(process)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # `serve` starts us with it blocked
    threading.Thread(target=process.health.watch, args=(process.stop,), name="health", daemon=True).start()
    if grace_s is not None:
        threading.Thread(target=_end_in_time, args=(process.stop, grace_s), daemon=True).start()
    work(process)
    _log.info("stopped")


def _hear(process: Process) -> None:
    """Take signals in a thread: a handler that sets an event would wait for ever if it interrupted its `wait`."""
    heard: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: heard.put(number))

    def pass_on() -> None:
        while True:
            process.told(heard.get())

    threading.Thread(target=pass_on, name="signals", daemon=True).start()


def _owner() -> Owner:
    """Who `serve` says that we are; otherwise somebody new."""
    told = os.environ.get(OWNER_VARIABLE)
    return Owner.parse(told) if told else Owner()


def _end_in_time(stop: threading.Event, grace_s: float) -> None:
    stop.wait()
    time.sleep(grace_s)
    _log.error("still at work %.0f s after being told to stop: ended", grace_s)
    os._exit(1)
