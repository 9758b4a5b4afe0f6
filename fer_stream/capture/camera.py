"""Cameras: RTSP, HTTP and webcams, read until they are closed (PyAV).

    Connection ── frames ──▶ CameraSession ── latest frame ──▶ CameraSource.frames()
        ▲
        └── opened, watched, cancelled and opened again by the supervisor thread

Each connection reads in a thread of its own. Frames are converted to BGR by the consumer, so that a dropped frame
costs only its decoding.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av

from fer_stream.backoff import Backoff
from fer_stream.capture.camera_session import CameraSession, CameraStatus, DecodedFrame
from fer_stream.capture.camera_url import parse_camera_url
from fer_stream.capture.connection import Connection
from fer_stream.capture.pixel_formats import FrameConverter
from fer_stream.capture.source import Clocks
from fer_stream.config.live import CameraSettings
from fer_stream.records import DecodeErrors, Frame, Gap, SourceInfo, stream_id_of

if TYPE_CHECKING:
    from fer_stream.capture.disconnect import Disconnect
    from fer_stream.metrics import Metrics

# A cancelled reader that blocks in FFmpeg ends after a timeout; until then the next one can run beside it. A third
# would indicate a leak.
_MAX_READERS = 2
_JOIN_TIMEOUT_S = 1.0

_STABLE_S = 5.0
"""Uptime after which the delay between reconnections is reset. A camera that fails earlier is retried ever less
often."""

_JITTER = 0.5
"""Delays are shortened by up to half at random, so that cameras behind one switch do not reconnect simultaneously."""


class CameraSource:
    """Camera as a `FrameSource` that returns the latest frame and ends only when it is closed.

    `url` is an rtsp, rtsps, http (MJPEG or HLS) or https URL, a device such as /dev/video0, or its number; anything
    else raises `UnreadableSource`. The camera does not have to be reachable: failed connections are retried
    indefinitely.

    A source is one session regardless of reconnections: `stream_id` is constant, and `time_s` counts from the
    creation of the source, including outages, each of which is a `Gap` in `messages()`. `index` numbers all decoded
    frames, so dropped frames leave gaps in the numbers. `previous_start_ms` is the start of the previous session of
    the source; the new one starts later even if the system clock was set back.
    """

    def __init__(
        self,
        url: str | int,
        *,
        name: str,
        metrics: Metrics,
        settings: CameraSettings | None = None,
        previous_start_ms: int = 0,
        clocks: Clocks | None = None,
    ) -> None:
        self._settings = settings = settings or CameraSettings()
        clocks = clocks or Clocks()
        self._url = parse_camera_url(url, settings)
        self._name = name
        self._now = clocks.monotonic
        self.stream_start_ms = max(previous_start_ms + 1, int(clocks.wall() * 1000))
        self.stream_id = stream_id_of(name, self.stream_start_ms)
        self._session = CameraSession(self.stream_id, settings.fps, metrics, clocks=clocks)
        self._converter = FrameConverter(max_long_side_px=settings.max_long_side_px)
        self._retries = ReconnectPolicy(settings)
        self._readers = threading.BoundedSemaphore(_MAX_READERS)
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name=f"capture-{name}", daemon=True)
        self._supervisor.start()

    @property
    def info(self) -> SourceInfo:
        """Size, rate and codec of the camera; sizes are 0 before its first response."""
        return self._session.info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Packets that could not be decoded so far."""
        return self._session.decode_errors

    @property
    def status(self) -> CameraStatus:
        """Current state, with the reason if the camera is down."""
        return self._session.status

    def frames(self) -> Iterator[Frame]:
        """Yield the latest frame on each request; ends after `close`."""
        return (message for message in self.messages() if isinstance(message, Frame))

    def messages(self) -> Iterator[Frame | Gap]:
        """Yield the frames of `frames()`, and the `Gap` of an outage before the first frame after it.

        An outage that lasts until `close` is a gap too.
        """
        while (message := self._session.latest.take()) is not None:
            if isinstance(message, Gap):
                yield message
            elif (frame := self._convert(message)) is not None:
                yield frame

    def close(self) -> None:
        """Stop within 2 s, even if a read blocks. Thread-safe; `frames()` ends."""
        self._closing.set()
        self._session.close()
        if connection := self._connection:
            connection.cancel()
            connection.join(_JOIN_TIMEOUT_S)
        self._supervisor.join(_JOIN_TIMEOUT_S)

    def _supervise(self) -> None:
        while not self._closing.is_set():
            if not self._readers.acquire(timeout=self._settings.reconnect_min_s):
                continue
            connection = Connection(
                self._url,
                self._settings,
                self._session,
                name=self._name,
                now=self._now,
                on_exit=self._readers.release,
            )
            self._session.attach(connection)
            connection.start()
            self._connection = connection
            self._recover(connection, self._watch(connection))

    def _watch(self, connection: Connection) -> Disconnect:
        """Wait until the connection ends, or cancel it when it times out."""
        while not self._closing.is_set() and (left_s := connection.deadline_s - self._now()) > 0:
            # The deadline moves forward when the camera responds, so no wait exceeds the shortest timeout.
            if connection.done.wait(min(left_s, self._settings.stall_timeout_s)):
                return connection.disconnect
        reason = connection.timeout_reason()
        connection.cancel()
        return reason

    def _recover(self, connection: Connection, disconnect: Disconnect) -> None:
        """Record the disconnection and wait before the next attempt."""
        if self._closing.is_set():
            return
        delay_s = self._retries.delay_s(disconnect, uptime_s=connection.uptime_s)
        self._session.on_disconnect(disconnect, retry_s=delay_s)
        self._closing.wait(delay_s)

    def _convert(self, decoded: DecodedFrame) -> Frame | None:
        try:
            pixels = self._converter.pixels(decoded.image, decoded.display)
        except (av.FFmpegError, OSError) as error:
            self._session.discard(f"cannot convert pixel format {decoded.image.format.name}: {error.strerror}")
            return None
        return Frame(self.stream_id, decoded.index, decoded.time_s, decoded.captured_at, pixels)


class ReconnectPolicy:
    """Delays between connection attempts of one camera.

    They double from `reconnect_min_s` to `reconnect_max_s`; after a rejected password or path the delay is
    `reconnect_auth_s`, because frequent attempts lock accounts.
    """

    def __init__(self, settings: CameraSettings, rng: random.Random | None = None) -> None:
        self._auth_s = settings.reconnect_auth_s
        self._backoff = Backoff(settings.reconnect_min_s, settings.reconnect_max_s, jitter=_JITTER, rng=rng)

    def delay_s(self, disconnect: Disconnect, *, uptime_s: float) -> float:
        """Return the delay in seconds after a connection that delivered frames for `uptime_s` seconds."""
        if uptime_s >= _STABLE_S:
            self._backoff.reset()
        return self._backoff.failed(fixed_s=self._auth_s if disconnect.access_denied else None)
