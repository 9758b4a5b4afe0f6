"""Supervisor of the service on one machine: starts, restarts and stops its processes and embedded servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from fer_stream.backoff import Backoff
from fer_stream.broker.embedded import EmbeddedServer, Role, with_death_signal
from fer_stream.broker.lease import Owner
from fer_stream.config.reload import SETTINGS_VARIABLE, AcceptedSettings
from fer_stream.errors import ConfigError, FerStreamError, OutputError
from fer_stream.log import get_logger
from fer_stream.service.process import (
    OWNER_VARIABLE,
    ServiceContext,
    connect_queue,
    open_queue,
    prepare_state_dir,
    reload_settings,
)

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings, MetricsSettings
    from fer_stream.config.servers import ServerSettings

_log = get_logger(__name__)

# Delay before a process is restarted; a process that ran for `_STEADY_S` starts with the minimum again.
_RESTART_MIN_S, _RESTART_MAX_S = 0.5, 30.0
_STEADY_S = 60.0
_POLL_S = 0.2

# Shutdown timeouts of the stages. Their sum is below the 10 s in which the service must be down.
_CAPTURE_TIMEOUT_S = 3.0
_DRAIN_TIMEOUT_S = 2.0
_WORKER_TIMEOUT_S = 2.0


@dataclass(slots=True, eq=False)
class Child:
    """One process of the service, and the delay of its restarts."""

    role: str
    command: Sequence[str]
    settings_fd: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(_RESTART_MIN_S, _RESTART_MAX_S))
    owner: Owner = field(default_factory=Owner)

    def start(self) -> None:
        """Start the process. It ends with the supervisor, which stops it; Ctrl-C in the terminal does not reach it.

        The previous process is dead, so that the new one may take over its leases.
        """
        environment = {**os.environ, OWNER_VARIABLE: str(self.owner), SETTINGS_VARIABLE: str(self.settings_fd)}
        # The process inherits the signal mask: SIGHUP, which would kill it, stays pending until it has a handler.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            self.process = subprocess.Popen(
                with_death_signal(self.command),
                start_new_session=True,
                env=environment,
                pass_fds=(self.settings_fd,),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.owner = self.owner.next_generation
        self.started_s = time.monotonic()

    def watch(self) -> None:
        """Restart the process if it has exited and its delay is over."""
        if self.process is not None and (code := self.process.poll()) is not None:
            if time.monotonic() - self.started_s > _STEADY_S:
                self.backoff.reset()
            self.process = None
            _log.error("process_exited", worker=self.role, code=code, restart_in_s=self.backoff.failed())
        if self.process is None and not self.backoff.active:
            self.start()
            _log.info("process_restarted", worker=self.role, failures=self.backoff.failures)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait_until(self, deadline_s: float) -> bool:
        """Wait for the exit until `deadline_s` of the monotonic clock. Return False on timeout."""
        if self.process is None:
            return True
        try:
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def serve(context: ServiceContext, *, config: Path, load_file: Callable[[], LiveSettings]) -> None:
    """Run the whole service until stopped. `load_file` reads the settings file `config` again."""
    settings = context.settings
    commands = process_commands(settings, config)
    prepare_state_dir(settings.state_dir)
    check_ports(settings.metrics, len(commands))
    with (
        EmbeddedServers(settings) as servers,
        write_targets(settings.metrics, [role for role, _ in commands]),
        closing(AcceptedSettings(settings)) as accepted,
    ):
        children = [Child(role, command, accepted.fd) for role, command in commands]
        for child in children:
            child.start()
        _log.info("service_started", sources=list(settings.sources), processes=len(children))
        try:
            _watch(context, servers, children, Reloader(load_file, settings, accepted))
        finally:
            _stop(settings, children)


class Reloader:
    """Reloads the configuration file of `serve`, and passes what it accepts to the processes."""

    def __init__(
        self, load_file: Callable[[], LiveSettings], settings: LiveSettings, accepted: AcceptedSettings
    ) -> None:
        self._load_file = load_file
        self._settings = settings
        self._accepted = accepted

    def reload(self, children: Sequence[Child]) -> None:
        """Load the file again. Processes are notified only if settings changed that take effect now."""
        self._settings, difference = reload_settings(self._load_file, self._settings)
        if not (difference.added or difference.removed or difference.changed):
            return
        self._accepted.replace(self._settings)
        # Timelines first: they must have the settings of a source before its first frame.
        for role in ("timeline", "web", "capture"):
            for child in _with_role(role, children):
                child.send_signal(signal.SIGHUP)


class EmbeddedServers:
    """The embedded servers that the settings need. A server that exits is restarted."""

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        servers: dict[Role, ServerSettings] = {"queue": settings.queue, "store": settings.store}
        self._max_memory_mb = {role: server.max_memory_mb for role, server in servers.items() if server.url is None}
        self._running: dict[Role, EmbeddedServer] = {}

    def __enter__(self) -> Self:
        self.watch()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._running.values():
            server.close()

    def watch(self) -> None:
        """Start the servers that do not run."""
        for role, max_memory_mb in self._max_memory_mb.items():
            server = self._running.get(role)
            if server is not None and not server.exited:
                continue
            if server is not None:
                _log.error("embedded_server_exited", server=role, action="restarting")
                server.close()
            self._running[role] = EmbeddedServer(self._settings.state_dir, role, max_memory_mb=max_memory_mb)


def _watch(context: ServiceContext, servers: EmbeddedServers, children: Sequence[Child], reloader: Reloader) -> None:
    while not context.stop.wait(_POLL_S):
        servers.watch()
        for child in children:
            child.watch()
        if context.reload.is_set():
            context.reload.clear()
            reloader.reload(children)


def _stop(settings: LiveSettings, children: Sequence[Child]) -> None:
    """Stop in the order of the data flow: producers, then workers when the queue is empty, then timelines."""
    _terminate((*_with_role("capture", children), *_with_role("jobs", children)), _CAPTURE_TIMEOUT_S)
    # In a thread, because calls to an unreachable server may block.
    drain = Thread(target=_drain, args=(settings, time.monotonic() + _DRAIN_TIMEOUT_S), daemon=True)
    drain.start()
    drain.join(_DRAIN_TIMEOUT_S)
    _terminate(_with_role("classify", children), _WORKER_TIMEOUT_S)
    _terminate((*_with_role("timeline", children), *_with_role("web", children)), _WORKER_TIMEOUT_S)


def _terminate(children: Sequence[Child], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        if not child.wait_until(deadline_s):
            _log.warning("process_killed", worker=child.role, reason="shutdown timeout", timeout_s=timeout_s)
            child.kill()


def _drain(settings: LiveSettings, deadline_s: float) -> None:
    """Wait until the queue is empty."""
    try:
        queue = open_queue(connect_queue(settings, Event()), settings)
        while (remaining := queue.depth()) and time.monotonic() < deadline_s - _POLL_S:
            time.sleep(_POLL_S / 4)
    except FerStreamError as error:
        _log.warning("queue_length_unavailable", error=str(error))
        return
    if remaining:
        _log.warning("queue_not_empty", faces=remaining)


def _with_role(role: str, children: Sequence[Child]) -> list[Child]:
    return [child for child in children if child.role == role]


def process_commands(settings: LiveSettings, config: Path) -> list[tuple[str, list[str]]]:
    """Return role and command line of every process. Each has its own port for metrics."""
    partitions = max(1, -(-len(settings.sources) // settings.workers.cameras_per_capture))
    classifiers = settings.workers.classifiers or partitions
    roles = [
        *(("capture", ["--partition", str(index), "--partitions", str(partitions)]) for index in range(partitions)),
        *(("classify", list[str]()) for _ in range(classifiers)),
        *(("timeline", _shard_options(shards)) for shards in divide_shards(settings)),
        *(("jobs", list[str]()) for _ in range(settings.jobs.workers)),
        *(("web", list[str]()) for _ in range(settings.web.port is not None)),
    ]
    start = [sys.executable, "-m", "fer_stream.cli", "worker"]
    return [
        (role, [*start, role, "--config", str(config), *options, *_port(settings, number)])
        for number, (role, options) in enumerate(roles)
    ]


def divide_shards(settings: LiveSettings) -> list[range]:
    """Return the shards of each timeline process."""
    shards = settings.queue.shards
    processes = min(settings.workers.timelines or shards, shards)
    return [range(first, shards, processes) for first in range(processes)]


def _shard_options(shards: Sequence[int]) -> list[str]:
    return [word for shard in shards for word in ("--shard", str(shard))]


def _port(settings: LiveSettings, number: int) -> list[str]:
    return [] if settings.metrics.port is None else ["--metrics-port", str(settings.metrics.port + number)]


# Wildcard addresses are scraped via loopback.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def check_ports(settings: MetricsSettings, processes: int) -> None:
    """Raise `ConfigError` if one of the ports of `processes` processes is in use."""
    if settings.port is None:
        return
    for port in range(settings.port, settings.port + processes):
        if _is_in_use(settings.host, port):
            raise ConfigError(
                f"metrics.port {settings.port}: {processes} processes need the ports {settings.port} to "
                f"{settings.port + processes - 1}, and {port} is in use. "
                f"Choose another port, or null to disable metrics."
            )


@contextmanager
def write_targets(settings: MetricsSettings, roles: Sequence[str]) -> Iterator[None]:
    """Write `settings.targets`, in the format of Prometheus's file_sd, for the duration of the body.

    Raises `OutputError` if the file cannot be written.
    """
    path = settings.targets
    if path is None or settings.port is None:
        yield
        return
    host = _LOOPBACK.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    groups = [
        {"targets": [f"{host}:{port}"], "labels": {"role": role}} for port, role in enumerate(roles, settings.port)
    ]
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(groups, indent=2) + "\n")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"metrics.targets: cannot write {path}: {error.strerror}. Choose another path.") from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def _is_in_use(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
