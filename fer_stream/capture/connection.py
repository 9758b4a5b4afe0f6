"""One connection to a camera, from opening it to its end (PyAV)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.capture.disconnect import (
    ENDED,
    NO_VIDEO,
    OTHER,
    Disconnect,
    DisconnectError,
    classify_error,
    decode_error_text,
    diagnose,
)
from fer_stream.capture.pixel_formats import SQUARE, UNSPECIFIED, Display, StreamDisplay, displayed_size
from fer_stream.capture.source import Pacer
from fer_stream.records import SourceInfo

if TYPE_CHECKING:
    from fer_stream.capture.camera_url import CameraUrl
    from fer_stream.capture.http_camera import HttpCamera
    from fer_stream.config.live import CameraSettings

# These formats have no timestamps, and FFmpeg generates PTS at 25 fps.
_FORMATS_WITHOUT_PTS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_HLS = "hls"
# FFmpeg returns one delayed packet when a read times out. The read must time out well after the supervisor gave up,
# or that packet would count as a response.
_READ_TIMEOUT_STALLS = 1.5

SNAPSHOT_FPS = 2.0
"""Requests per second of a snapshot URL without `fps`."""


class ConnectionListener(Protocol):
    """Receives the events of a connection, in the thread of the connection."""

    def on_open(self, connection: Connection, info: SourceInfo) -> None:
        """The camera responded."""
        ...

    def decode_timer(self) -> AbstractContextManager[None]:
        """Return a context in which one packet is decoded."""
        ...

    def on_frame(self, connection: Connection, image: VideoFrame, pts_s: float | None, display: Display) -> None:
        """A frame was decoded.

        `pts_s` is in seconds, None if the stream has no usable timestamps.
        """
        ...

    def on_decode_error(self, connection: Connection, reason: str) -> None:
        """A packet could not be decoded."""
        ...


class Connection:
    """Reads one camera in a thread of its own, because a read inside FFmpeg can block and cannot be interrupted.

    The owner waits for `done` until `deadline_s`, and then calls `cancel` and opens another connection. A cancelled
    connection delivers no more frames and ends with FFmpeg's own timeouts, after at most 3 × `stall_timeout_s`.
    `on_exit` is called when the thread ends for any reason. `now` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        url: CameraUrl,
        settings: CameraSettings,
        listener: ConnectionListener,
        *,
        name: str,
        now: Callable[[], float],
        on_exit: Callable[[], None],
    ) -> None:
        self.done = threading.Event()
        self.disconnect = Disconnect("internal", "unexpected error; the traceback is in the log")
        self._url = url
        self._settings = settings
        self._listener = listener
        self._name = name
        self._now = now
        self._on_exit = on_exit
        self._started_s = now()
        self._last_packet_s: float | None = None
        self._first_frame_s: float | None = None
        self._last_frame_s: float | None = None
        self._poll_interval_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"capture-{name}-reader", daemon=True)

    def start(self) -> None:
        """Open and read the camera in the background."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop delivering frames. Does not wait for the thread."""
        self.done.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, for at most `timeout_s` seconds."""
        self._thread.join(timeout_s)

    @property
    def deadline_s(self) -> float:
        """Time at which the connection times out, unless data arrives before."""
        if self._last_packet_s is None or self._last_frame_s is None:
            return self._started_s + 2 * self._settings.open_timeout_s
        return self._poll_interval_s + min(
            self._last_packet_s + self._settings.stall_timeout_s,
            self._last_frame_s + self._settings.no_frame_timeout_s,
        )

    @property
    def uptime_s(self) -> float:
        """Seconds between the first and the last frame of this connection."""
        if self._first_frame_s is None or self._last_frame_s is None:
            return 0.0
        return self._last_frame_s - self._first_frame_s

    def timeout_reason(self) -> Disconnect:
        """Return which timeout the deadline belongs to."""
        if self._last_packet_s is None:
            return self._no_response(2 * self._settings.open_timeout_s)
        if self._now() - self._last_packet_s >= self._settings.stall_timeout_s:
            return Disconnect("stalled", f"connected, but no data for {self._settings.stall_timeout_s:g} s")
        return Disconnect("decode", f"data without a decodable frame for {self._settings.no_frame_timeout_s:g} s")

    def _no_response(self, seconds: float) -> Disconnect:
        if self._url.scheme == "udp":
            cure = "check that the sender uses this address and port, and the firewall"
            return Disconnect("timeout", f"no data within {seconds:g} s: {cure}")
        return Disconnect("timeout", f"no response within {seconds:g} s: check address, port and firewall")

    def _run(self) -> None:
        try:
            self.disconnect = self._read()
        except DisconnectError as error:
            self.disconnect = error.disconnect
        except av.FFmpegError as error:
            self.disconnect = self._classify_error(error)
        finally:
            self._on_exit()
            self.done.set()

    def _classify_error(self, error: av.FFmpegError) -> Disconnect:
        transport = self._settings.transport if self._url.format == "rtsp" else ""
        found = classify_error(error, transport=transport, login=self._url.login is not None)
        timeout_s = self._settings.open_timeout_s
        # If opening times out while FFmpeg waits for the first bytes, it reports invalid data.
        opening_timed_out = self._last_packet_s is None and self._now() - self._started_s >= timeout_s
        if found.reason == "timeout" or (found.reason == "decode" and opening_timed_out):
            return self._no_response(timeout_s)
        return diagnose(self._url, self._settings) if found == OTHER and self._last_packet_s is None else found

    def _read(self) -> Disconnect:
        read_timeout_s = _READ_TIMEOUT_STALLS * self._settings.stall_timeout_s
        if self._url.scheme in ("http", "https"):
            from fer_stream.capture.http_camera import HttpCamera

            with closing(HttpCamera(self._url, self._settings, read_timeout_s=read_timeout_s)) as camera:
                if camera.is_snapshot:
                    return self._poll(camera)
                with camera.container() as container:
                    return self._demux(container)
        if self._url.scheme == "srt":
            from fer_stream.capture.srt import SrtStream

            with (
                closing(SrtStream(self._url, self._settings, read_timeout_s=read_timeout_s)) as stream,
                stream.container(self._url) as container,
            ):
                return self._demux(container)
        with av.open(
            self._url.url,
            format=self._url.format,
            options=self._url.options,
            timeout=(self._settings.open_timeout_s, read_timeout_s),
            metadata_errors="replace",
        ) as container:
            return self._demux(container)

    def _demux(self, container: InputContainer) -> Disconnect:
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.codec_context is None:
            return NO_VIDEO
        stream.codec_context.thread_count = 1  # more threads would delay frames, and cores are shared
        self._last_packet_s = self._last_frame_s = self._now()
        self._listener.on_open(
            self, self._info(stream.codec_context, StreamDisplay(stream).aspect(), stream.average_rate)
        )
        self._decode(container, stream)
        return ENDED

    def _poll(self, camera: HttpCamera) -> Disconnect:
        """Request pictures at the rate of the source until the connection is cancelled."""
        fps = self._settings.fps or SNAPSHOT_FPS
        self._poll_interval_s = 1 / fps
        due_s = self._now()
        while not self.done.is_set():
            data = camera.picture()
            self._last_packet_s = self._now()
            self._decode_picture(data, fps, due_s)
            due_s = max(due_s + self._poll_interval_s, self._now())
            self.done.wait(due_s - self._now())
        return ENDED

    def _decode_picture(self, data: bytes, fps: float, requested_s: float) -> None:
        from fer_stream.capture.http_camera import decode_picture

        first = self._last_frame_s is None
        self._last_frame_s = self._last_frame_s or self._now()
        try:
            with self._listener.decode_timer():
                codec, images = decode_picture(data)
        except av.FFmpegError as error:
            self._listener.on_decode_error(self, decode_error_text(error))
            return
        if first:
            self._listener.on_open(self, self._info(codec, SQUARE, fps))
        for image in images:
            self._on_frame(image, requested_s, UNSPECIFIED)

    def _decode(self, container: InputContainer, stream: VideoStream) -> None:
        without_pts = container.format.name in _FORMATS_WITHOUT_PTS
        pacer = Pacer() if container.format.name == _HLS else None
        display = StreamDisplay(stream)
        for packet in container.demux(stream):
            if self.done.is_set():
                return
            self._last_packet_s = self._now()
            try:
                with self._listener.decode_timer():
                    images = packet.decode()
            except av.FFmpegError as error:
                self._listener.on_decode_error(self, decode_error_text(error))
                continue
            for image in images:
                pts_s = None if without_pts else image.time
                if pacer:
                    self.done.wait(pacer.delay_s(pts_s, self._now()))
                self._on_frame(image, pts_s, display.of(image))

    def _on_frame(self, image: VideoFrame, pts_s: float | None, display: Display) -> None:
        self._last_frame_s = self._now()
        self._first_frame_s = self._first_frame_s or self._last_frame_s
        self._listener.on_frame(self, image, pts_s, display)

    def _info(self, codec: VideoCodecContext, aspect: Fraction, fps: Fraction | float | None) -> SourceInfo:
        width, height = displayed_size(codec.width, codec.height, aspect)
        return SourceInfo(
            name=self._name,
            kind="video",
            width=width,
            height=height,
            fps=float(fps) if fps else None,
            frames=None,
            duration_s=None,
            codec=codec.codec.canonical_name,
            pixel_format=codec.pix_fmt or "",
        )
