"""Pictures on their way from captures to those who look, past every disk.

They are messages of PUBLISH rather than keys: a server keeps no message, in memory or in its append-only file.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import cast

from fer_stream.broker.client import Connection, RedisClient
from fer_stream.errors import CodecError, FerStreamError
from fer_stream.store.protocol import PREVIEW_S, Preview
from fer_stream.store.schemas import preview_from_bytes, preview_to_bytes

_log = logging.getLogger(__name__)

_WAIT_S = 0.5


class Channel:
    """The pictures of all sources, on one server. May be used by several threads."""

    def __init__(self, link: RedisClient) -> None:
        self._link = link
        self._newest: dict[str, tuple[float, Preview]] = {}
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._closing = threading.Event()

    def send(self, source: str, preview: Preview) -> None:
        """Send a picture to all who listen now. Raises `QueueError` where the server is away."""
        message = preview_to_bytes(preview)
        self._link.call(lambda client: client.publish(_name(source), message))

    def newest(self, source: str) -> Preview | None:
        """The newest picture that came in the last `PREVIEW_S` seconds. The first call begins to listen."""
        with self._lock:
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="previews", daemon=True)
                self._listener.start()
            came_s, preview = self._newest.get(source, (0.0, None))
        return preview if preview and time.monotonic() - came_s < PREVIEW_S else None

    def close(self) -> None:
        """Listen no more, before the link is closed."""
        self._closing.set()
        if self._listener is not None:
            self._listener.join(2 * _WAIT_S)

    def _over(self) -> bool:
        return self._closing.is_set() or self._link.stop.is_set()

    def _listen(self) -> None:
        while not self._over():
            try:
                self._link.call(self._receive)
            except FerStreamError as error:
                _log.warning("no pictures for now: %s", error)
                self._link.stop.wait(_WAIT_S)

    def _receive(self, client: Connection) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.psubscribe(_name("*"))
            while not self._over():
                message = channel.get_message(timeout=_WAIT_S)
                if message is not None:
                    self._take(cast(bytes, message["channel"]), cast(bytes, message["data"]))

    def _take(self, channel: bytes, data: bytes) -> None:
        try:
            preview = preview_from_bytes(data)
        except CodecError as error:
            _log.warning("%s", error)
            return
        self._keep(channel.decode().split(":")[2], preview)

    def _keep(self, source: str, preview: Preview) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._newest = {name: kept for name, kept in self._newest.items() if now_s - kept[0] < PREVIEW_S}
            self._newest[source] = (now_s, preview)


def _name(source: str) -> str:
    return f"fer:store:{source}:preview"
