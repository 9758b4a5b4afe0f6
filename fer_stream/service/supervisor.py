"""Starts, watches and stops the processes of the service on one machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Self

from fer_stream.broker.embedded import EmbeddedServer, Role, tethered
from fer_stream.broker.lease import Owner
from fer_stream.config import LiveSettings, ServerSettings
from fer_stream.errors import FerStreamError
from fer_stream.service.connections import open_queue, open_queue_link
from fer_stream.service.process import OWNER_VARIABLE, Process
from fer_stream.service.prometheus_sd import check_ports, listed

_log = logging.getLogger(__name__)

# A process that ends is started again after so long, the longer the more often it ended within a minute.
_RESTART_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S = 60.0
_LOOK_S = 0.2

# Together within the 10 s in which the service must be down.
_CAPTURE_END_S = 3.0
_DRAIN_S = 2.0
_END_S = 2.0


@dataclass(slots=True, eq=False)
class Child:
    """One process of the service, and how often it failed lately."""

    role: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    failures: int = 0
    restart_s: float = field(default=0.0)
    owner: Owner = field(default_factory=Owner)

    def start(self) -> None:
        """Start it. It does not hear the Ctrl-C of our terminal: we tell it, in our order. It does not outlive us.

        Its last process is dead by now, so that the next one may take over the leases of that.
        """
        environment = {**os.environ, OWNER_VARIABLE: str(self.owner)}
        # Until it can take a SIGHUP, which else would end it, one has to wait: it inherits our mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            self.process = subprocess.Popen(tethered(self.command), start_new_session=True, env=environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.owner = self.owner.next_life
        self.started_s = time.monotonic()

    def watch(self) -> None:
        """Start it again if it ended, when it is time."""
        now_s = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.failures = 0 if now_s - self.started_s > _STEADY_S else self.failures + 1
            wait_s = _RESTART_S[min(self.failures, len(_RESTART_S) - 1)]
            _log.error("%s ended with code %d: starting it again in %.1f s", self.role, code, wait_s)
            self.process, self.restart_s = None, now_s + wait_s
        if self.process is None and now_s >= self.restart_s:
            self.start()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def ended_by(self, deadline_s: float) -> bool:
        """Wait for its end until `deadline_s` of the monotonic clock; whether it came."""
        if self.process is None:
            return True
        try:
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def serve(process: Process, config: Path) -> None:
    """Run the whole service of `config` until told to stop."""
    settings = process.settings
    commands = _commands(settings, config)
    check_ports(settings.metrics, len(commands))
    with _Servers(settings) as servers, listed(settings.metrics, [role for role, _ in commands]):
        children = [Child(role, command) for role, command in commands]
        for child in children:
            child.start()
        names = ", ".join(settings.sources) or "no source yet"
        _log.info("serving %s with %d processes", names, len(children))
        try:
            _watch(process, servers, children)
        finally:
            _stop(settings, children)


class _Servers:
    """The private servers, as many as are needed: one that ends is started again."""

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        wanted: dict[Role, ServerSettings] = {"queue": settings.queue, "store": settings.store}
        self._wanted = {role: server.max_memory_mb for role, server in wanted.items() if server.url is None}
        self._running: dict[Role, EmbeddedServer] = {}

    def __enter__(self) -> Self:
        self.watch()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._running.values():
            server.close()

    def watch(self) -> None:
        """Start what does not run."""
        for role, max_memory_mb in self._wanted.items():
            server = self._running.get(role)
            if server is not None and not server.ended:
                continue
            if server is not None:
                _log.error("the private %s server ended: starting it again", role)
                server.close()
            self._running[role] = EmbeddedServer(self._settings.state_dir, role, max_memory_mb=max_memory_mb)


def _watch(process: Process, servers: _Servers, children: Sequence[Child]) -> None:
    while not process.stop.wait(_LOOK_S):
        servers.watch()
        for child in children:
            child.watch()
        if process.reload.is_set():
            process.reload.clear()
            # The timelines first: they must know a source before it says something.
            for child in (*_of("timeline", children), *_of("capture", children)):
                child.tell(signal.SIGHUP)


def _stop(settings: LiveSettings, children: Sequence[Child]) -> None:
    """First those who bring work, then, when it is done, those who do it, then those who write it down."""
    _end((*_of("capture", children), *_of("jobs", children)), _CAPTURE_END_S)
    # In a thread, because a server that is gone may take its time to say nothing.
    drain = Thread(target=_drain, args=(settings, time.monotonic() + _DRAIN_S), daemon=True)
    drain.start()
    drain.join(_DRAIN_S)
    _end(_of("classify", children), _END_S)
    _end((*_of("timeline", children), *_of("web", children)), _END_S)


def _end(children: Sequence[Child], limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    for child in children:
        child.tell(signal.SIGTERM)
    for child in children:
        if not child.ended_by(deadline_s):
            _log.warning("%s did not end in %.0f s and is killed", child.role, limit_s)
            child.kill()


def _drain(settings: LiveSettings, deadline_s: float) -> None:
    """Wait until the workers have no work left."""
    try:
        queue = open_queue(open_queue_link(settings, Event()), settings)
        while (left := queue.depth()) and time.monotonic() < deadline_s - _LOOK_S:
            time.sleep(_LOOK_S / 4)
    except FerStreamError as error:
        _log.warning("what is left on the queue is not known: %s", error)
        return
    if left:
        _log.warning("%d faces are left on the queue", left)


def _of(role: str, children: Sequence[Child]) -> list[Child]:
    return [child for child in children if child.role == role]


def _commands(settings: LiveSettings, config: Path) -> list[tuple[str, list[str]]]:
    """The role and the command line of every process, each with a port of its own for metrics."""
    parts = max(1, -(-len(settings.sources) // settings.workers.cameras_per_capture))
    workers = settings.workers.classifiers or parts
    roles = [
        *(("capture", ["--partition", str(part), "--partitions", str(parts)]) for part in range(parts)),
        *(("classify", list[str]()) for _ in range(workers)),
        *(("timeline", ["--shard", str(shard)]) for shard in range(settings.queue.shards)),
        *(("jobs", list[str]()) for _ in range(settings.jobs.workers)),
        *(("web", list[str]()) for _ in range(settings.web.port is not None)),
    ]
    start = [sys.executable, "-m", "fer_stream.cli", "worker"]
    return [
        (role, [*start, role, "--config", str(config), *options, *_port(settings, number)])
        for number, (role, options) in enumerate(roles)
    ]


def _port(settings: LiveSettings, number: int) -> list[str]:
    return [] if settings.metrics.port is None else ["--metrics-port", str(settings.metrics.port + number)]
