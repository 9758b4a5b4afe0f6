"""Transfer of previews from captures to readers, without storing them.

Previews are PUBLISH messages instead of keys, because a server stores no message, neither in memory nor in its
append-only file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from fer_stream.errors import CodecError, FerStreamError
from fer_stream.log import get_logger
from fer_stream.store.protocol import PREVIEW_MAX_AGE_S, Preview
from fer_stream.store.schemas import VERSION, PreviewHeader, parse_preview_header, to_json

if TYPE_CHECKING:
    from fer_stream.broker.client import Connection, RedisClient

_log = get_logger(__name__)

_POLL_S = 0.5


class PreviewChannel:
    """Previews of all sources on one server. May be used by several threads. `monotonic` is a clock in seconds."""

    def __init__(self, client: RedisClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._newest: dict[str, tuple[float, Preview]] = {}
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._closing = threading.Event()

    def send(self, source: str, preview: Preview) -> None:
        """Send a preview to all current listeners. Raises `QueueError` if the server cannot be reached."""
        message = preview_to_bytes(preview)
        self._client.call(lambda connection: connection.publish(_channel_name(source), message))

    def newest(self, source: str) -> Preview | None:
        """Return the newest preview of the last `PREVIEW_MAX_AGE_S` seconds. The first call starts the listener."""
        with self._lock:
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="previews", daemon=True)
                self._listener.start()
            received_s, preview = self._newest.get(source, (0.0, None))
        return preview if preview and self._monotonic() - received_s < PREVIEW_MAX_AGE_S else None

    def close(self) -> None:
        """Stop the listener; call this before the client is closed."""
        self._closing.set()
        if self._listener is not None:
            self._listener.join(2 * _POLL_S)

    def _is_closing(self) -> bool:
        return self._closing.is_set() or self._client.stop.is_set()

    def _listen(self) -> None:
        while not self._is_closing():
            try:
                self._client.call(self._receive)
            except FerStreamError as error:
                _log.warning("previews_unavailable", error=str(error))
                self._client.stop.wait(_POLL_S)

    def _receive(self, connection: Connection) -> None:
        with connection.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.psubscribe(_channel_name("*"))
            while not self._is_closing():
                message = channel.get_message(timeout=_POLL_S)
                if message is not None:
                    self._on_message(cast(bytes, message["channel"]), cast(bytes, message["data"]))

    def _on_message(self, channel: bytes, data: bytes) -> None:
        source = channel.decode().split(":")[2]
        try:
            preview = preview_from_bytes(data)
        except CodecError as error:
            _log.warning("invalid_preview", source=source, error=str(error))
            return
        now_s = self._monotonic()
        with self._lock:
            self._newest = {name: item for name, item in self._newest.items() if now_s - item[0] < PREVIEW_MAX_AGE_S}
            self._newest[source] = (now_s, preview)


def preview_to_bytes(preview: Preview) -> bytes:
    """Return a preview as its `PreviewHeader` in JSON, a line feed, and the JPEG."""
    header: PreviewHeader = {
        "v": VERSION,
        "stream_id": preview.stream_id,
        "index": preview.index,
        "width": preview.width,
        "height": preview.height,
    }
    return to_json(header).encode() + b"\n" + preview.jpeg


def preview_from_bytes(message: bytes) -> Preview:
    """Return the preview in `message`. Raises `CodecError` if it is invalid."""
    text, _, jpeg = message.partition(b"\n")
    header = parse_preview_header(text)
    return Preview(header["stream_id"], header["index"], header["width"], header["height"], jpeg)


def _channel_name(source: str) -> str:
    return f"fer:store:{source}:preview"
