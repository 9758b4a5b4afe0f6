"""`fer-stream serve` as the system under test: its settings, its processes, what they cost."""

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

from benchmarks.rtsp import cpu_of
from fer_stream.broker.embedded import tethered

_WORKERS = ("capture", "classify", "timeline")
_SERVERS = ("queue", "store")
_PORTS = 16
_MB = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the service. `port` is where its metrics are, if it has any."""

    role: str
    pid: int
    port: int | None

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def pss_mb(self) -> float:
        """Its memory, with its share of what it shares; raises `OSError` where it is gone."""
        return self._rollup_mb("Pss")

    def own_mb(self) -> float:
        """Its memory but for files, whose share depends on who else uses them; raises `OSError` where it is gone."""
        return self._rollup_mb("Anonymous")

    def _rollup_mb(self, what: str) -> float:
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(f"{what}:")).split()[1]) / _MB

    def open_files(self) -> int:
        """How many file descriptors it has open; raises `OSError` where it is gone."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_s(self) -> float:
        """Seconds of processor time so far."""
        return cpu_of(self.pid)


class Service:
    """`fer-stream serve` with private servers in `folder`, whose path must be short. Other settings are default.

    With `cores`, none of its processes uses another.
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
        """Start it, and wait until its servers answer."""
        self._write()
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "fer_stream.cli", "serve", str(self.config)]
            self._process = subprocess.Popen(self._pinned(tethered(command)), stdout=log, stderr=log)
        self.wait(lambda: all(self.socket(role).exists() for role in _SERVERS), "the private servers")
        self.wait(lambda: {*_WORKERS, *_SERVERS} <= {member.role for member in self.members()}, "all processes")

    def reload(self, sources: dict[str, Any]) -> None:
        """Give it other sources."""
        self._settings["sources"] = sources
        self._write()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def socket(self, role: str) -> Path:
        """Where the private server of `role` listens."""
        return self.state_dir / role / "valkey.sock"

    def members(self) -> list[Member]:
        """All processes that run now."""
        if self._process is None:
            return []
        serve = Member("serve", self._process.pid, None)
        return [serve, *filter(None, map(_member, _children(self._process.pid)))]

    def of(self, role: str) -> list[Member]:
        """The processes of one role."""
        return [member for member in self.members() if member.role == role]

    def wait(self, what: Callable[[], object], name: str, within_s: float = 60.0) -> None:
        """Wait until `what` holds."""
        deadline_s = time.monotonic() + within_s
        while not what():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"waited in vain for {name}:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(30)
        self._process = None
        return code

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
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


def _member(pid: int) -> Member | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    if "worker" in words:
        port = words[words.index("--metrics-port") + 1] if "--metrics-port" in words else None
        return Member(words[words.index("worker") + 1], pid, int(port) if port else None)
    line = " ".join(words)
    role = next((role for role in _SERVERS if f"/{role}/valkey.sock" in line), None)
    return Member(role, pid, None) if role else None


def _free_ports(count: int) -> int:
    """The first of `count` neighbouring ports on which nobody listens."""
    for first in range(19_000, 30_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise OSError("no free ports")
