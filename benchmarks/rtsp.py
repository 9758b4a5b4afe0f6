"""RTSP cameras for benchmarks: one process each, with a password, that can be killed and suspended."""

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
"""Password of every camera. It must not appear in logs, metrics, results or files."""

_USER = "viewer"
# The bindings of GStreamer are Debian packages, installed for the system's Python.
_COMMAND = ("/usr/bin/python3", str(ROOT / "tests" / "support" / "rtsp_camera.py"))


class Camera:
    """Camera on rtsp://127.0.0.1 that has played `stream` in a loop since Unix time `since_s`."""

    def __init__(self, name: str, stream: Path, *, since_s: float, fps: int) -> None:
        self.name = name
        self._options = [str(stream), "--fps", str(fps), "--live-since", str(since_s)]
        self._process: subprocess.Popen[str] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """URL with user and password."""
        return f"rtsp://{_USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self._port}/cam"

    @property
    def pid(self) -> int | None:
        """Process id, None if it is not running."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and wait until it listens."""
        login = ["--port", str(self._port), "--user", _USER, "--password", PASSWORD]
        self._process = subprocess.Popen(
            with_death_signal([*_COMMAND, *self._options, *login]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "READY\n":
            raise RuntimeError(
                "The RTSP server did not start. Install the packages listed in tests/support/rtsp_camera.py."
            )

    def kill(self) -> None:
        """Kill the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Suspend the process, with its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)


def cameras_cpu_s(cameras: Sequence[Camera]) -> float:
    """Return the total CPU time of the cameras in seconds."""
    return sum(process_cpu_s(camera.pid) for camera in cameras if camera.pid)


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds; 0 if it has exited."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")
