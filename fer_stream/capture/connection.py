"""One connection to a camera, from opening it to its end (PyAV)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.capture.pixel_formats import Display, StreamDisplay, displayed_size
from fer_stream.capture.source import Pacer
from fer_stream.errors import UnreadableSource
from fer_stream.log import redact_secrets
from fer_stream.records import SourceInfo

if TYPE_CHECKING:
    from fer_stream.config.live import CameraSettings

Reason = Literal[
    "refused", "unauthorized", "not_found", "timeout", "stalled", "ended", "decode", "network", "internal"
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Reasons why a camera delivers no frames, also a label of metrics."""

# 0.2 s of analysis and no buffer: a camera opens in 0.4 s instead of 2.0 s, and without a stale backlog of 1.5 s.
_LOW_LATENCY = {"analyzeduration": "200000", "fflags": "nobuffer"}
# A playlist can refer to any URL: without this, one from a camera could make FFmpeg read local files.
_HTTP = {"protocol_whitelist": "http,https,tcp,tls,crypto"}
# Includes stable names such as /dev/v4l/by-id/usb-Maker_Camera-video-index0, but no path that leaves /dev.
_DEVICE = re.compile(r"/dev/(?!.*\.\.)[\w./:+-]+")

# These formats have no timestamps, and FFmpeg generates PTS at 25 fps.
_FORMATS_WITHOUT_PTS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_HLS = "hls"
# FFmpeg returns one delayed packet when a read times out. The read must time out well after the supervisor gave up,
# or that packet would count as a response.
_READ_TIMEOUT_STALLS = 1.5

_REASON_OF_ERROR: tuple[tuple[type[av.FFmpegError], Reason], ...] = (
    (av.error.ConnectionRefusedError, "refused"),
    (av.error.HTTPUnauthorizedError, "unauthorized"),
    (av.error.HTTPForbiddenError, "unauthorized"),
    (av.error.PermissionError, "unauthorized"),
    (av.error.HTTPNotFoundError, "not_found"),
    (av.error.FileNotFoundError, "not_found"),
    (av.error.TimeoutError, "timeout"),
    (av.error.ExitError, "timeout"),
    (av.error.EOFError, "ended"),
    (av.error.InvalidDataError, "decode"),
    (av.error.DecoderNotFoundError, "decode"),
)


@dataclass(frozen=True, slots=True)
class CameraUrl:
    """Arguments of `av.open`. `url` can contain a password and is excluded from the repr."""

    url: str = field(repr=False)
    format: str | None
    options: dict[str, str]


def parse_camera_url(url: str | int, settings: CameraSettings) -> CameraUrl:
    """Parse an rtsp, rtsps, http or https URL, a device such as /dev/video0, or the number of a webcam.

    Raises `UnreadableSource` for anything else.
    """
    device = f"/dev/video{url}" if str(url).isdecimal() else str(url)
    if _DEVICE.fullmatch(device):
        return CameraUrl(device, "v4l2", {})
    scheme = device.partition("://")[0].lower()
    if scheme in ("rtsp", "rtsps"):
        options = {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
        return CameraUrl(device, "rtsp", _LOW_LATENCY | options)
    if scheme in ("http", "https"):
        return CameraUrl(device, None, _LOW_LATENCY | _HTTP)
    raise UnreadableSource(
        f"Unsupported camera URL {redact_secrets(device)}: expected rtsp://, rtsps://, http:// or https://, "
        "a device such as /dev/video0, or the number of a webcam."
    )


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End of a connection. `text` is for users and contains no URL and no password."""

    reason: Reason
    text: str

    @property
    def access_denied(self) -> bool:
        """True if the camera rejected user, password or path: frequent retries would not help."""
        return self.reason in ("unauthorized", "not_found")


def classify_error(error: av.FFmpegError) -> Disconnect:
    """Convert an error of FFmpeg. Its `str` ends with the whole URL, so only the description before it is used."""
    reason: Reason = next((reason for kind, reason in _REASON_OF_ERROR if isinstance(error, kind)), "network")
    return Disconnect(reason, redact_secrets(error.strerror or type(error).__name__))


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
        return min(
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
            return Disconnect("timeout", f"no response within {2 * self._settings.open_timeout_s:g} s")
        if self._now() - self._last_packet_s >= self._settings.stall_timeout_s:
            return Disconnect("stalled", f"connected, but no data for {self._settings.stall_timeout_s:g} s")
        return Disconnect("decode", f"data without a decodable frame for {self._settings.no_frame_timeout_s:g} s")

    def _run(self) -> None:
        try:
            self.disconnect = self._read()
        except av.FFmpegError as error:
            self.disconnect = self._classify_error(error)
        finally:
            self._on_exit()
            self.done.set()

    def _classify_error(self, error: av.FFmpegError) -> Disconnect:
        found = classify_error(error)
        timeout_s = self._settings.open_timeout_s
        # If opening times out while FFmpeg waits for the first bytes, it reports invalid data.
        opening_timed_out = self._last_packet_s is None and self._now() - self._started_s >= timeout_s
        if found.reason == "timeout" or (found.reason == "decode" and opening_timed_out):
            return Disconnect("timeout", f"no response within {timeout_s:g} s")
        return found

    def _read(self) -> Disconnect:
        with av.open(
            self._url.url,
            format=self._url.format,
            options=self._url.options,
            timeout=(self._settings.open_timeout_s, _READ_TIMEOUT_STALLS * self._settings.stall_timeout_s),
            metadata_errors="replace",
        ) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None:
                return Disconnect("decode", "no video stream that FFmpeg can decode")
            stream.codec_context.thread_count = 1  # more threads would delay frames, and cores are shared
            self._last_packet_s = self._last_frame_s = self._now()
            self._listener.on_open(self, self._info(stream))
            self._decode(container, stream)
        return Disconnect("ended", "the camera ended the stream")

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
                self._listener.on_decode_error(self, classify_error(error).text)
                continue
            for image in images:
                pts_s = None if without_pts else image.time
                if pacer:
                    self.done.wait(pacer.delay_s(pts_s, self._now()))
                self._last_frame_s = self._now()
                self._first_frame_s = self._first_frame_s or self._last_frame_s
                self._listener.on_frame(self, image, pts_s, display.of(image))

    def _info(self, stream: VideoStream) -> SourceInfo:
        codec = stream.codec_context
        width, height = displayed_size(codec.width, codec.height, StreamDisplay(stream).aspect())
        return SourceInfo(
            name=self._name,
            kind="video",
            width=width,
            height=height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            frames=None,
            duration_s=None,
            codec=codec.codec.canonical_name,
            pixel_format=codec.pix_fmt or "",
        )
