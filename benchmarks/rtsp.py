"""RTSP cameras for benchmarks: a process each, that can be killed and frozen, with a password."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from benchmarks.material import ROOT
from fer_stream.broker.embedded import with_death_signal

PASSWORD = "canary/p@ss#w0rd"
"""Of every camera: what must stand in no log, no metric, no result and no file."""

_USER = "viewer"
# GStreamer's bindings come with Debian, so they belong to the system's Python.
_COMMAND = ("/usr/bin/python3", str(ROOT / "tests" / "support" / "rtsp_camera.py"))


class Camera:
    """A film on rtsp://127.0.0.1, played in a loop since Unix time `since_s` whether anyone looks or not."""

    def __init__(self, name: str, stream: Path, *, since_s: float, fps: int) -> None:
        self.name = name
        self._options = [str(stream), "--fps", str(fps), "--live-since", str(since_s)]
        self._process: subprocess.Popen[str] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address, with user and password."""
        return f"rtsp://{_USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self._port}/cam"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Be there, and wait until it listens."""
        login = ["--port", str(self._port), "--user", _USER, "--password", PASSWORD]
        self._process = subprocess.Popen(
            with_death_signal([*_COMMAND, *self._options, *login]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "READY\n":
            raise RuntimeError("No RTSP server: see tests/support/rtsp_camera.py for the packages that it needs.")

    def kill(self) -> None:
        """Be gone."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Fall silent, with all connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)


def cpu_s(cameras: Sequence[Camera]) -> float:
    """Seconds of processor time that the cameras took so far."""
    return sum(cpu_of(camera.pid) for camera in cameras if camera.pid)


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process took so far; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")
