"""`fer-stream serve` as the system under test: its settings, processes and resource usage."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.rtsp import process_cpu_s
from fer_stream.broker.embedded import with_death_signal

_WORKERS = ("capture", "classify", "timeline")
_SERVERS = ("queue", "store")
_PORTS = 16
_MB = 1024


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of the service. `port` serves its metrics, if any."""

    role: str
    pid: int
    port: int | None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal if the process still exists."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def pss_mb(self) -> float:
        """Return the proportional set size in MB. Raises `OSError` if the process is gone."""
        return self._rollup_mb("Pss")

    def anonymous_mb(self) -> float:
        """Return the anonymous memory in MB, without mapped files. Raises `OSError` if the process is gone."""
        return self._rollup_mb("Anonymous")

    def _rollup_mb(self, field: str) -> float:
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(f"{field}:")).split()[1]) / _MB

    def open_files(self) -> int:
        """Return the number of open file descriptors. Raises `OSError` if the process is gone."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_s(self) -> float:
        """Return the CPU time used so far, in seconds."""
        return process_cpu_s(self.pid)


class Service:
    """`fer-stream serve` with embedded servers in `folder`, whose path must be short, and default settings otherwise.

    `cores` restricts its processes to these cores.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, cores: Sequence[int] | None = None) -> None:
        self.config = folder / "live.yaml"
        self.files = folder / "files"
        self.state_dir = folder / "state"
        self.log = folder / "log"
        self._settings = {
            "state_dir": str(self.state_dir),
            "recordings": {"dir": str(self.files)},
            "metrics": {"port": _free_ports(_PORTS)},
            "web": {"port": None},
            **settings,
        }
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service and wait until all its processes run."""
        self._write()
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "fer_stream.cli", "serve", str(self.config)]
            self._process = subprocess.Popen(self._pinned(with_death_signal(command)), stdout=log, stderr=log)
        self.wait(lambda: all(self.socket(role).exists() for role in _SERVERS), "the embedded servers")
        self.wait(lambda: {*_WORKERS, *_SERVERS} <= {member.role for member in self.processes()}, "all processes")

    def reload(self, sources: dict[str, Any]) -> None:
        """Replace the sources by SIGHUP."""
        self._settings["sources"] = sources
        self._write()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def socket(self, role: str) -> Path:
        """Return the socket of the embedded server of `role`."""
        return self.state_dir / role / "valkey.sock"

    def processes(self) -> list[ServiceProcess]:
        """Return all running processes."""
        if self._process is None:
            return []
        serve = ServiceProcess("serve", self._process.pid, None)
        return [serve, *filter(None, map(_member, _children(self._process.pid)))]

    def with_role(self, role: str) -> list[ServiceProcess]:
        """Return the processes of one role."""
        return [member for member in self.processes() if member.role == role]

    def wait(self, condition: Callable[[], object], name: str, within_s: float = 60.0) -> None:
        """Wait until `condition` holds."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"timeout while waiting for {name}:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Terminate the service and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(30)
        self._process = None
        return code

    def kill(self) -> None:
        """Kill the service if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _pinned(self, command: list[str]) -> list[str]:
        return ["taskset", "-c", ",".join(map(str, self._cores)), *command] if self._cores else command

    def _write(self) -> None:
        partial = self.config.with_suffix(".partial")
        partial.write_text(yaml.safe_dump(self._settings))
        partial.replace(self.config)


def _children(pid: int) -> list[int]:
    children = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for some in children for child in some]


def _member(pid: int) -> ServiceProcess | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    if "worker" in words:
        port = words[words.index("--metrics-port") + 1] if "--metrics-port" in words else None
        return ServiceProcess(words[words.index("worker") + 1], pid, int(port) if port else None)
    line = " ".join(words)
    role = next((role for role in _SERVERS if f"/{role}/valkey.sock" in line), None)
    return ServiceProcess(role, pid, None) if role else None


def _free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports."""
    for first in range(19_000, 30_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise OSError("no free ports")
