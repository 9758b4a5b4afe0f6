"""Cameras: RTSP, HTTP and webcams, read for as long as anyone wants them (PyAV).

    Connection ── picture ──▶ Feed ── newest wins ──▶ LiveSource.frames()
        ▲
        └── started, watched, given up and started again by the supervisor

Each connection reads in a thread of its own. Pictures are converted to BGR by whoever takes them, so that one that
nobody takes costs no more than its decoding.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import av

from fer_stream.capture.backoff import Backoff
from fer_stream.capture.camera_session import Feed, LiveState, Picture
from fer_stream.capture.camera_url import camera_address
from fer_stream.capture.connection import Connection
from fer_stream.capture.disconnect import Outage
from fer_stream.capture.pixel_formats import Converter
from fer_stream.config import CameraSettings
from fer_stream.metrics import Metrics
from fer_stream.records import DecodeErrors, Frame, Gap, SourceInfo, stream_id_of

_log = logging.getLogger(__name__)

# An abandoned reader that hangs in FFmpeg ends by itself after a while; until then the next one may run beside it.
# More than two would be a leak in the making.
_MAX_READERS = 2
_JOIN_S = 1.0


class LiveSource:
    """A camera as a `FrameSource` that never ends by itself and never falls behind.

    `url` is an rtsp, rtsps, http (MJPEG or HLS) or https URL, a device such as /dev/video0, or its number; anything
    else raises `UnreadableSource`. The camera need not be there: it is waited for, and one that is lost is tried
    again for ever.

    A source is one epoch, however often it reconnects: `stream_id` stays and `time_s` counts from the making of
    the source through every outage, which leaves a `Gap` in `messages()`. `index` counts every picture that was
    decoded, so one that was dropped leaves a hole. `last_epoch_ms` is the epoch of the source's last run, if known.

    `monotonic` and `wall` are the clocks, in seconds; `wall` is Unix time.
    """

    def __init__(
        self,
        url: str | int,
        *,
        name: str,
        metrics: Metrics,
        settings: CameraSettings | None = None,
        last_epoch_ms: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings or CameraSettings()
        self._address = camera_address(url, self._settings)
        self._name = name
        self._now = monotonic
        self.stream_start_ms = max(last_epoch_ms + 1, int(wall() * 1000))
        self.stream_id = stream_id_of(name, self.stream_start_ms)
        self._timed = partial(metrics.timed, "decode")
        self._feed = Feed(name, self._settings.fps, metrics, now=monotonic, wall=wall)
        self._converter = Converter(long_side_px=self._settings.max_long_side_px)
        self._backoff = Backoff(self._settings, rng or random.Random())
        self._readers = threading.BoundedSemaphore(_MAX_READERS)
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name=f"capture-{name}", daemon=True)
        self._supervisor.start()

    @property
    def info(self) -> SourceInfo:
        """The camera's own size, rate and codec; sizes are 0 until it answered for the first time."""
        return self._feed.info

    @property
    def decode_errors(self) -> DecodeErrors:
        """The packets that could not be decoded so far."""
        return self._feed.damage

    @property
    def state(self) -> LiveState:
        """Whether pictures come, and if not, why."""
        return self._feed.state

    def frames(self) -> Iterator[Frame]:
        """The newest picture whenever one is asked for; ends after `close`."""
        return (message for message in self.messages() if isinstance(message, Frame))

    def messages(self) -> Iterator[Frame | Gap]:
        """Frames as from `frames()`, and before the first one after an outage the `Gap` that it left.

        An outage that lasts until `close` ends in a gap too.
        """
        while (message := self._feed.newest.take()) is not None:
            if isinstance(message, Gap):
                yield message
            elif (frame := self._frame(message)) is not None:
                yield frame

    def close(self) -> None:
        """Stop, in 2 s at the most even while a read hangs. Any thread may call it; `frames()` ends."""
        self._closing.set()
        self._feed.close()
        if connection := self._connection:
            connection.abandon()
            connection.join(_JOIN_S)
        self._supervisor.join(_JOIN_S)

    def _supervise(self) -> None:
        while not self._closing.is_set():
            if not self._readers.acquire(timeout=self._settings.reconnect_min_s):
                continue
            connection = Connection(
                self._address,
                self._settings,
                self._feed,
                name=self._name,
                now=self._now,
                on_exit=self._readers.release,
                timed=self._timed,
            )
            self._feed.listen_to(connection)
            connection.start()
            self._connection = connection
            self._recover(connection, self._watch(connection))

    def _watch(self, connection: Connection) -> Outage:
        """Wait until the connection ends, or give it up where it falls silent."""
        while not self._closing.is_set() and (left_s := connection.patience_ends_s - self._now()) > 0:
            # The end of the patience comes nearer when the camera answers, so no wait is longer than the shortest.
            if connection.over.wait(min(left_s, self._settings.stall_timeout_s)):
                return connection.outage
        silence = connection.silence()
        connection.abandon()
        return silence

    def _recover(self, connection: Connection, outage: Outage) -> None:
        """Note the outage and wait until it is time for the next attempt."""
        if self._closing.is_set():
            return
        before = self._feed.state
        self._feed.fall(outage)
        wait_s = self._backoff.wait_s(refused=outage.refused, up_s=connection.up_s)
        level = logging.DEBUG if before.reason == outage.reason else logging.WARNING
        _log.log(level, "camera %s: %s (%s), next try in %.1f s", self._name, outage.reason, outage.text, wait_s)
        self._closing.wait(wait_s)

    def _frame(self, picture: Picture) -> Frame | None:
        try:
            pixels = self._converter.pixels(picture.image)
        except av.FFmpegError as error:
            self._feed.spoilt(f"{picture.image.format.name} cannot be converted: {error.strerror}")
            return None
        return Frame(self.stream_id, picture.index, picture.time_s, picture.captured_at, pixels)
