"""What the tests of the result store share: frames, and servers whose replies get lost."""

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
def epoch() -> int:
    """Unix ms of a minute ago: young enough to be kept."""
    return int(1000 * (time.time() - 60))


@pytest.fixture
def frame(epoch: int) -> Callable[..., LabelledFrame]:
    """Makes frame `index` of a 5 fps stream, with `faces` faces and numbers that no rounding changes."""

    def make(index: int, source: str = "door", faces: int = 1, stream_start_ms: int = epoch) -> LabelledFrame:
        probs = np.array([0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05], np.float32)
        people = tuple(
            LabelledFace(
                track, np.array([1, 2.25, 30, 40], np.float32), 0.9, Quality(0.8, "ok"), probs, probs, LABELS[3]
            )
            for track in range(1, faces + 1)
        )
        return LabelledFrame(stream_id_of(source, stream_start_ms), index, index / 5, people)

    return make


@pytest.fixture
def segment(epoch: int) -> Callable[..., Segment]:
    """Makes a segment of the door's stream, in media seconds."""

    def make(start_s: float, end_s: float, track: int = 1, stream_start_ms: int = epoch) -> Segment:
        return Segment(stream_id_of("door", stream_start_ms), track, "happy", start_s, end_s, 0.75)

    return make


@pytest.fixture
def gap(epoch: int) -> Callable[..., Gap]:
    """Makes a gap of the door's stream, in media seconds."""

    def make(start_s: float, end_s: float) -> Gap:
        return Gap(stream_id_of("door", epoch), start_s, end_s, "stalled")

    return make


class LossyRelay:
    """Passes a connection on to a server, but not the first reply that comes after `lose_next` was set."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.lose_next = False
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where to connect to instead of the server."""
        user_info, at, _ = self._server.netloc.rpartition("@")
        return f"redis://{user_info}{at}127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Drop everything."""
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
    """Makes a relay to the server at a URL."""
    relays: list[LossyRelay] = []

    def make(url: str) -> LossyRelay:
        relays.append(LossyRelay(url))
        return relays[-1]

    yield make
    for relay in relays:
        relay.close()
