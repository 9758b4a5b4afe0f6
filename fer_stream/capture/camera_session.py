"""Session of a camera across reconnections: time, sampling, gaps, and hand-over of the latest frame."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from av.video.frame import VideoFrame

from fer_stream.capture.disconnect import REASONS, Disconnect, Reason
from fer_stream.capture.pixel_formats import UNSPECIFIED, Display
from fer_stream.capture.source import Clocks, MediaClock, Sampler
from fer_stream.log import get_logger
from fer_stream.records import DecodeErrors, Gap, SourceInfo, source_of

if TYPE_CHECKING:
    from fer_stream.capture.connection import Connection
    from fer_stream.metrics import Metrics

T = TypeVar("T")

_log = get_logger(__name__)


class LatestFrame(Generic[T]):
    """Slot for one frame and the gap before it, between a producer thread and a consumer thread.

    A newer frame replaces one that was not taken, so a slow consumer gets fewer frames, never older ones.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._gap: Gap | None = None
        self._frame: T | None = None
        self._final_gap: Gap | None = None
        self._closed = False

    def put(self, frame: T, gap: Gap | None = None) -> bool:
        """Store a frame and the gap before it. Return True if it replaced a frame that was not taken.

        A gap that was not taken is extended to include the new one. Ignored after `close`.
        """
        with self._changed:
            if self._closed:
                return False
            replaced = self._frame is not None
            self._frame = frame
            self._gap = replace(self._gap, end_s=gap.end_s) if self._gap and gap else self._gap or gap
            self._changed.notify()
        return replaced

    def take(self) -> Gap | T | None:
        """Wait for and return the gap, then the frame after it; None if all is taken after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._frame is not None)
            if self._gap is not None:
                gap, self._gap = self._gap, None
                return gap
            if self._frame is not None:
                frame, self._frame = self._frame, None
                return frame
            final_gap, self._final_gap = self._final_gap, None
            return final_gap

    def close(self, gap: Gap | None = None) -> None:
        """Accept no more frames. Stored ones can still be taken, followed by `gap`, in which the source ends."""
        with self._changed:
            self._closed, self._final_gap = True, gap
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """State of a camera. `reason` and `text` explain why it is down (None and empty while it is up or first opened).

    `failures` counts the connections that ended since the last frame.
    """

    up: bool
    reason: Reason | None = None
    text: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrame:
    """Decoded frame before conversion, and how it is displayed; index and times are those of the `Frame`."""

    image: VideoFrame
    index: int
    time_s: float
    captured_at: float
    display: Display = UNSPECIFIED


class CameraSession:
    """Listener of successive connections to one camera. Events of a connection other than the attached one are
    ignored.

    Media time counts from the creation of the session. Frames and gaps are handed over through `latest`.
    """

    def __init__(self, stream_id: str, fps: float | None, metrics: Metrics, *, clocks: Clocks) -> None:
        name = source_of(stream_id)
        self.latest: LatestFrame[DecodedFrame] = LatestFrame()
        self.status = CameraStatus(up=False)
        self.info = SourceInfo(name, "video", 0, 0, None, None, None, "", "")
        self.decode_errors = DecodeErrors()
        self._stream_id = stream_id
        self._name = name
        self._clocks = clocks
        self._metrics = metrics
        self._counts = _Counters(metrics, name)
        self._clock = MediaClock(self._counts.discontinuities.inc)
        self._sampler = Sampler(fps)
        self._started_s = clocks.monotonic()
        self._decoded = 0
        self._last_s = 0.0
        self._gap: Gap | None = None
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def attach(self, connection: Connection) -> None:
        """Accept the events of this connection and of no other."""
        with self._lock:
            self._connection = connection

    def decode_timer(self) -> AbstractContextManager[None]:
        """Return a context that measures the decoding of one packet."""
        return self._metrics.timed("decode")

    def on_open(self, connection: Connection, info: SourceInfo) -> None:
        """Record the properties of a camera that responded."""
        with self._lock:
            if connection is self._connection:
                self.info = info
                self._clock.restart()

    def on_frame(
        self, connection: Connection, image: VideoFrame, pts_s: float | None, display: Display = UNSPECIFIED
    ) -> None:
        """Assign index and time to a frame, and store it as the latest one if it is sampled."""
        with self._lock:
            if connection is not self._connection:
                return
            self._last_s = self._clock.time_s(pts_s, self._elapsed_s())
            if not self.status.up:
                self._on_connect()
            frame = DecodedFrame(image, self._decoded, self._last_s, self._clocks.wall(), display)
            self._decoded += 1
            self._counts.last_frame.set(frame.captured_at)
            if not self._sampler.accept(frame.time_s):
                self._counts.sampled.inc()
                return
            if self.latest.put(frame, self._gap):
                self._counts.overrun.inc()
            self._gap = None

    def on_decode_error(self, connection: Connection, reason: str) -> None:
        """Count a packet that could not be decoded."""
        with self._lock:
            if connection is self._connection:
                self._count_decode_error(reason)

    def discard(self, reason: str) -> None:
        """Count a frame that was taken but cannot be used."""
        with self._lock:
            self._count_decode_error(reason)

    def on_disconnect(self, disconnect: Disconnect, *, retry_s: float) -> None:
        """Detach the connection and start a gap, unless one has started. The next attempt is in `retry_s` seconds."""
        with self._lock:
            self._connection = None
            previous = self.status
            self.status = CameraStatus(False, disconnect.reason, disconnect.text, previous.failures + 1)
            self._gap = self._gap or Gap(self._stream_id, self._last_s, self._last_s, disconnect.reason)
            self._counts.on_disconnect(disconnect.reason, was_up=previous.up)
        event = "camera_disconnected" if previous.up else "camera_unreachable"
        # Once per reason: a camera that stays away would fill the log with its retries.
        log = _log.debug if previous.reason == disconnect.reason else _log.warning
        log(event, source=self._name, reason=disconnect.reason, detail=disconnect.text, retry_s=round(retry_s, 1))

    def close(self) -> None:
        """Accept no more frames. A gap that has not ended ends here."""
        with self._lock:
            self._connection = None
            if self._gap and not self.status.up:
                self._gap = replace(self._gap, end_s=self._elapsed_s())
            self._counts.up.set(0)
            self.latest.close(self._gap)

    def _on_connect(self) -> None:
        info = self.info
        fields = {"width": info.width, "height": info.height, "codec": info.codec, "fps": info.fps}
        if self._decoded and self._gap:
            after_s = round(self._last_s - self._gap.start_s, 1)
            _log.info("camera_reconnected", source=self._name, after_s=after_s, **fields)
        else:
            _log.info("camera_connected", source=self._name, **fields)
        if self._gap:
            self._gap = replace(self._gap, end_s=self._last_s)
        self.status = CameraStatus(up=True)
        self._counts.up.set(1)

    def _count_decode_error(self, reason: str) -> None:
        self._counts.corrupt.inc()
        self.decode_errors = DecodeErrors(self.decode_errors.packets + 1, self.decode_errors.reason or reason)

    def _elapsed_s(self) -> float:
        return self._clocks.monotonic() - self._started_s


class _Counters:
    """Metrics of one camera. All series are created at once, so that each starts at 0."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.up = metrics.camera_up.labels(name)
        self.last_frame = metrics.camera_last_frame.labels(name)
        self.discontinuities = metrics.pts_discontinuities.labels(name)
        self.sampled = metrics.frames_dropped.labels(name, "capture", "sampled")
        self.overrun = metrics.frames_dropped.labels(name, "capture", "overrun")
        self.corrupt = metrics.frames_dropped.labels(name, "decode", "corrupt")
        self._stalls = metrics.stalls.labels(name)
        self._outages = metrics.outages.labels(name)
        self._reconnects = {reason: metrics.reconnects.labels(name, reason) for reason in REASONS}

    def on_disconnect(self, reason: Reason, *, was_up: bool) -> None:
        """Count a connection that ended or failed."""
        self.up.set(0)
        self._outages.inc(was_up)
        self._reconnects[reason].inc()
        if reason == "stalled":
            self._stalls.inc()
