"""What all processes of the service have in common: a log, metrics, signals, and an end within bounds."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, start_http_server

from fer_stream.config import LiveSettings
from fer_stream.log import set_up
from fer_stream.metrics import Metrics

_log = logging.getLogger(__name__)

# A process that was told to stop and still runs after this is ended: a read may hang in FFmpeg (docs/cameras.md).
_GRACE_S = 7.0


@dataclass(slots=True)
class Process:
    """The process that we are: its settings and metrics, and what it was told by signals.

    SIGTERM and SIGINT set `stop`; SIGHUP sets `reload`. `woken` is set by both, for those who wait for either.
    """

    settings: LiveSettings
    metrics: Metrics
    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)
    woken: threading.Event = field(default_factory=threading.Event)

    def told(self, number: int, _: object = None) -> None:
        """Take a signal."""
        (self.reload if number == signal.SIGHUP else self.stop).set()
        self.woken.set()


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
    set_up(settings.log.level, json=settings.log.format == "json", role=role)
    registry = CollectorRegistry()
    process = Process(settings, Metrics(registry))
    if metrics_port is not None:
        start_http_server(metrics_port, settings.metrics.host, registry)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, process.told)
    if grace_s is not None:
        threading.Thread(target=_end_in_time, args=(process.stop, grace_s), daemon=True).start()
    work(process)
    _log.info("stopped")


def _end_in_time(stop: threading.Event, grace_s: float) -> None:
    stop.wait()
    time.sleep(grace_s)
    _log.error("still at work %.0f s after being told to stop: ended", grace_s)
    os._exit(1)
