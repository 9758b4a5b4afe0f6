"""One connection to a camera, from opening it to whatever ended it (PyAV)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.capture.camera_url import Address
from fer_stream.capture.clock import Pacer
from fer_stream.capture.disconnect import Outage, outage
from fer_stream.config import CameraSettings
from fer_stream.records import SourceInfo

# These formats carry no time, and FFmpeg makes up a PTS at 25 pictures a second.
_TIMELESS_FORMATS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_HLS = "hls"
# FFmpeg hands out one delayed packet when a read times out. It must not pass for a sign of life, so the read
# times out well after the watchdog gave up.
_READ_TIMEOUT_STALLS = 1.5


class Listener(Protocol):
    """Whoever takes the pictures of a connection; called in the connection's thread."""

    def opened(self, connection: Connection, info: SourceInfo) -> None:
        """The camera answered."""
        ...

    def picture(self, connection: Connection, image: VideoFrame, pts_s: float | None) -> None:
        """A picture was decoded. `pts_s` is in seconds, None where the stream has no time that can be used."""
        ...

    def damaged(self, connection: Connection, reason: str) -> None:
        """A packet could not be decoded."""
        ...


class Connection:
    """Reads one camera in a thread of its own, because a read in FFmpeg can hang and cannot be called off.

    Whoever started it waits for `over` and looks at `patience_ends_s`; past that it calls `abandon` and starts
    another. An abandoned reader gives no more pictures and ends with FFmpeg's own timeouts: after at most
    3 × `stall_timeout_s`. `on_exit` is called when the thread ends, however it ends. `timed` surrounds the decoding of each
    packet.
    """

    def __init__(
        self,
        address: Address,
        settings: CameraSettings,
        listener: Listener,
        *,
        name: str,
        now: Callable[[], float],
        on_exit: Callable[[], None],
        timed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.over = threading.Event()
        self.outage = Outage("internal", "the reader failed; its traceback says why")
        self._address = address
        self._settings = settings
        self._listener = listener
        self._name = name
        self._now = now
        self._on_exit = on_exit
        self._timed = timed
        self._started_s = now()
        self._heard_s: float | None = None
        self._first_picture_s: float | None = None
        self._seen_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"capture-{name}-reader", daemon=True)

    def start(self) -> None:
        """Open the camera and read it, in the background."""
        self._thread.start()

    def abandon(self) -> None:
        """Want nothing more from this connection."""
        self.over.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the reader to end, but no longer than `timeout_s`."""
        self._thread.join(timeout_s)

    @property
    def patience_ends_s(self) -> float:
        """The time by which the camera must have sent something, if nothing comes until then."""
        if self._heard_s is None or self._seen_s is None:
            return self._started_s + 2 * self._settings.open_timeout_s
        return min(self._heard_s + self._settings.stall_timeout_s, self._seen_s + self._settings.no_frame_timeout_s)

    @property
    def up_s(self) -> float:
        """For how long this connection gave pictures."""
        if self._first_picture_s is None or self._seen_s is None:
            return 0.0
        return self._seen_s - self._first_picture_s

    def silence(self) -> Outage:
        """What it means that the patience ended."""
        if self._heard_s is None:
            return Outage("timeout", f"no answer within {2 * self._settings.open_timeout_s:g} s")
        if self._now() - self._heard_s >= self._settings.stall_timeout_s:
            return Outage("stalled", f"connected, but nothing came for {self._settings.stall_timeout_s:g} s")
        return Outage("decode", f"data came, but no picture for {self._settings.no_frame_timeout_s:g} s")

    def _run(self) -> None:
        try:
            self.outage = self._read()
        except av.FFmpegError as error:
            self.outage = self._explained(error)
        finally:
            self._on_exit()
            self.over.set()

    def _explained(self, error: av.FFmpegError) -> Outage:
        found = outage(error)
        timeout_s = self._settings.open_timeout_s
        # An open that times out while FFmpeg waits for the first bytes is reported as invalid data.
        opening_timed_out = self._heard_s is None and self._now() - self._started_s >= timeout_s
        if found.reason == "timeout" or (found.reason == "decode" and opening_timed_out):
            return Outage("timeout", f"no answer within {timeout_s:g} s")
        return found

    def _read(self) -> Outage:
        with av.open(
            self._address.url,
            format=self._address.format,
            options=self._address.options,
            timeout=(self._settings.open_timeout_s, _READ_TIMEOUT_STALLS * self._settings.stall_timeout_s),
            metadata_errors="replace",
        ) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None:
                return Outage("decode", "it sends no video, or one that FFmpeg cannot decode")
            stream.codec_context.thread_count = 1  # threads would hold pictures back, and cores are shared
            self._heard_s = self._seen_s = self._now()
            self._listener.opened(self, self._info(stream))
            self._decode(container, stream)
        return Outage("ended", "the camera ended the stream")

    def _decode(self, container: InputContainer, stream: VideoStream) -> None:
        timeless = container.format.name in _TIMELESS_FORMATS
        pacer = Pacer() if container.format.name == _HLS else None
        for packet in container.demux(stream):
            if self.over.is_set():
                return
            self._heard_s = self._now()
            try:
                with self._timed():
                    images = packet.decode()
            except av.FFmpegError as error:
                self._listener.damaged(self, outage(error).text)
                continue
            for image in images:
                pts_s = None if timeless else image.time
                if pacer:
                    self.over.wait(pacer.delay_s(pts_s, self._now()))
                self._seen_s = self._now()
                self._first_picture_s = self._first_picture_s or self._seen_s
                self._listener.picture(self, image, pts_s)

    def _info(self, stream: VideoStream) -> SourceInfo:
        codec = stream.codec_context
        return SourceInfo(
            name=self._name,
            kind="video",
            width=codec.width,
            height=codec.height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            frames=None,
            duration_s=None,
            codec=codec.codec.canonical_name,
            pixel_format=codec.pix_fmt or "",
        )
