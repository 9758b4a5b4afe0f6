"""Fixtures of the store tests: records, and a relay that loses replies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from fer_stream.records import LABELS, Gap, LabelledFace, LabelledFrame, Quality, Segment, stream_id_of


@pytest.fixture
def session_ms() -> int:
    """Start of a session a minute ago, in Unix ms, which is within every retention."""
    return int(1000 * (time.time() - 60))


@pytest.fixture
def frame(session_ms: int) -> Callable[..., LabelledFrame]:
    """Return a factory of frames at 5 fps, with numbers that rounding does not change."""

    def make(index: int, source: str = "door", faces: int = 1, stream_start_ms: int = session_ms) -> LabelledFrame:
        probs = np.array([0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05], np.float32)
        people = tuple(
            LabelledFace(
                person_id, np.array([1, 2.25, 30, 40], np.float32), 0.9, Quality(0.8, "ok"), probs, probs, LABELS[3]
            )
            for person_id in range(1, faces + 1)
        )
        return LabelledFrame(stream_id_of(source, stream_start_ms), index, index / 5, people)

    return make


@pytest.fixture
def segment(session_ms: int) -> Callable[..., Segment]:
    """Return a factory of segments of the source `door`, in media seconds."""

    def make(start_s: float, end_s: float, person_id: int = 1, stream_start_ms: int = session_ms) -> Segment:
        return Segment(stream_id_of("door", stream_start_ms), person_id, "happy", start_s, end_s, 0.75)

    return make


@pytest.fixture
def gap(session_ms: int) -> Callable[..., Gap]:
    """Return a factory of gaps of the source `door`, in media seconds."""

    def make(start_s: float, end_s: float) -> Gap:
        return Gap(stream_id_of("door", session_ms), start_s, end_s, "stalled")

    return make


class LossyRelay:
    """Proxy of a server that closes the connection instead of forwarding the next reply after `lose_next` was set."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.lose_next = False
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """URL of the proxy."""
        user_info, at, _ = self._server.netloc.rpartition("@")
        return f"redis://{user_info}{at}127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Close all connections."""
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            self._sockets += [client, server]
            threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _connect(self) -> socket.socket:
        if self._server.scheme == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.connect(unquote(self._server.path))
            return server
        return socket.create_connection((str(self._server.hostname), int(self._server.port or 6379)))

    def _pass_on(self, one: socket.socket, other: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                if replies and self.lose_next:
                    self.lose_next = False
                    self.lost += 1
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def lossy_relay() -> Iterator[Callable[[str], LossyRelay]]:
    """Return a factory of relays to the server at a URL."""
    relays: list[LossyRelay] = []

    def make(url: str) -> LossyRelay:
        relays.append(LossyRelay(url))
        return relays[-1]

    yield make
    for relay in relays:
        relay.close()
