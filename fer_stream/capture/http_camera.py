"""Cameras over HTTP: MJPEG, HLS and other streams, and snapshots (httpx).

Python makes the requests and not FFmpeg, which does not verify the certificates of HLS segments, repeats the login of
every request, and does not say why a connection failed.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import av
import httpx
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from fer_stream.capture.camera_url import LOW_LATENCY, CameraUrl, tls_context
from fer_stream.capture.disconnect import (
    CA_UNREADABLE,
    CLOSED,
    ENCRYPTED_HLS,
    NO_ANSWER,
    OTHER,
    Disconnect,
    DisconnectError,
    classify_error,
    http_status,
)

if TYPE_CHECKING:
    from fer_stream.config.live import CameraSettings

# Both log every request at levels that are in use.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_MAX_REDIRECTS = 5
_MAX_PICTURE_BYTES = 32 * 1024 * 1024
_HLS_TYPES = ("application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl")
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/xhtml")
# FFmpeg asserts that it opened the connection itself before it reuses one.
_HLS = {"http_persistent": "0"}


class HttpCamera:
    """Session with one camera: login, certificates, redirects. All methods raise `DisconnectError`.

    The constructor makes the first request. Its content decides whether the camera sends a stream
    (`container`) or a picture per request (`is_snapshot`, `picture`). `read_timeout_s` is the maximum time
    without data.
    """

    def __init__(self, url: CameraUrl, settings: CameraSettings, *, read_timeout_s: float) -> None:
        assert url.parts
        self._failure: Disconnect | None = None
        self._login = _Login(*url.login) if url.login else None
        self._client = httpx.Client(
            verify=_context(settings),
            timeout=httpx.Timeout(settings.open_timeout_s, read=read_timeout_s),
            headers={"User-Agent": "fer-stream"},
        )
        try:
            self._url = httpx.URL(f"{url.scheme}://{url.parts.address}{url.parts.path}")
            self._first: _Body | None = self._get(self._url)
            self._format = _format_of(self._first)
        except BaseException as error:
            self.close()
            if isinstance(error, httpx.InvalidURL):
                raise DisconnectError(Disconnect("network", "the url of the camera is not valid")) from None
            raise

    @property
    def is_snapshot(self) -> bool:
        """Whether the camera sends one picture per request."""
        return self._format == _PICTURE

    def close(self) -> None:
        """End the session."""
        self._client.close()

    def picture(self) -> bytes:
        """Request the current picture. The first call returns that of the first request."""
        body, self._first = self._first, None
        try:
            return (body or self._get(self._url)).read_all(_MAX_PICTURE_BYTES)
        except DisconnectError as error:
            if error.disconnect != CLOSED:
                raise
        # The camera closed the connection of the previous request.
        return self._get(self._url).read_all(_MAX_PICTURE_BYTES)

    @contextmanager
    def container(self) -> Iterator[InputContainer]:
        """Open the stream for the duration of the body, and raise the error that ended it.

        Playlists and segments are requested here as well, so none refers to a local file.
        """
        assert self._first
        try:
            with av.open(
                _StreamFile(self._first, self._fail),
                "r",
                format=self._format,
                options=LOW_LATENCY | (_HLS if self._format == "hls" else {}),
                metadata_errors="replace",
                io_open=self._open_nested,
            ) as container:
                yield container
        except av.FFmpegError:
            if self._failure is None:
                raise
        if self._failure:
            raise DisconnectError(self._failure)

    def _fail(self, disconnect: Disconnect) -> None:
        self._failure = self._failure or disconnect

    def _open_nested(self, url: str, _flags: int, _options: dict[str, str]) -> _StreamFile:
        """Open a playlist or a segment. After an error it is empty, because PyAV prints exceptions of its callbacks.

        A missing segment is skipped: the camera deletes old ones.
        """
        body = None
        try:
            if url.partition("://")[0] not in ("http", "https"):
                raise DisconnectError(ENCRYPTED_HLS)
            if self._failure is None:
                body = self._get(httpx.URL(url))
        except DisconnectError as error:
            if error.disconnect.reason != "not_found":
                self._fail(error.disconnect)
        return _StreamFile(body, lambda _: None)

    def _get(self, url: httpx.URL) -> _Body:
        """Return the body of a response after redirects. The password is sent to the host of the camera only."""
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                response = self._client.send(
                    self._client.build_request("GET", url),
                    stream=True,
                    auth=self._login if self._is_camera(url) else None,
                )
                location = response.headers.get("Location") if response.is_redirect else None
                if location is None:
                    return self._checked(response)
                response.close()
                url = _redirected(url, location)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise _failed(error) from None
        raise DisconnectError(Disconnect("network", "the camera redirects in a circle: check the path of the url"))

    def _is_camera(self, url: httpx.URL) -> bool:
        """Return whether `url` is on the host of the camera, and not less protected than the camera's own URL."""
        same_port = (url.scheme, url.port) == (self._url.scheme, self._url.port)
        return url.host == self._url.host and (same_port or url.scheme == "https")

    def _checked(self, response: httpx.Response) -> _Body:
        if response.is_success:
            return _Body(response)
        response.close()
        raise DisconnectError(http_status(response.status_code, login=self._login is not None))


class _Login(httpx.Auth):
    """Digest or Basic authentication, as the camera requires. A wrong password is sent once, not repeatedly."""

    def __init__(self, user: str, password: str) -> None:
        self._methods = {"digest": httpx.DigestAuth(user, password), "basic": httpx.BasicAuth(user, password)}
        self._method: httpx.Auth | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._method is None:
            response = yield request
            if response.status_code != 401:
                return
            offered = {value.partition(" ")[0].lower() for value in response.headers.get_list("WWW-Authenticate")}
            self._method = next((method for name, method in self._methods.items() if name in offered), None)
            if self._method is None:
                return
        yield from self._method.auth_flow(request)


class _Body:
    """Body of a response. `url` is the base of relative addresses in a playlist."""

    def __init__(self, response: httpx.Response) -> None:
        self.url = str(response.url.copy_with(username=None, password=None))
        self.type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.length = response.headers.get("Content-Length")
        self._response = response
        self._chunks = response.iter_bytes()
        self._data = b""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes as soon as there are some; none at the end."""
        data = self.peek()[:size]
        self._data = self._data[len(data) :]
        return data

    def peek(self) -> bytes:
        """Return the next bytes, which `read` returns again."""
        try:
            while not self._data:
                self._data = next(self._chunks)
        except StopIteration:
            pass
        except httpx.HTTPError as error:
            raise _failed(error) from None
        return self._data

    def read_all(self, max_bytes: int) -> bytes:
        """Return the whole body and release its connection."""
        parts, total = [], 0
        while part := self.read(max_bytes):
            parts.append(part)
            total += len(part)
            if total > max_bytes:
                raise DisconnectError(Disconnect("decode", f"a picture of more than {max_bytes // 2**20} MB"))
        self.close()
        return b"".join(parts)

    def close(self) -> None:
        """Release the connection."""
        self._response.close()


class _StreamFile:
    """File that PyAV reads. It ends at an error, which is passed to `on_failure`; `body` None is an empty file."""

    def __init__(self, body: _Body | None, on_failure: Callable[[Disconnect], None]) -> None:
        self.name = body.url if body else ""
        self._body = body
        self._on_failure = on_failure

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end or after an error."""
        try:
            return self._body.read(size) if self._body else b""
        except DisconnectError as error:
            self.close()
            self._on_failure(error.disconnect)
            return b""

    def close(self) -> None:
        """Release the connection."""
        body, self._body = self._body, None
        if body:
            body.close()


_PICTURE = "picture"


def _format_of(body: _Body) -> str | None:
    """Return FFmpeg's name of the format, None if FFmpeg must detect it, or `_PICTURE`."""
    if body.type.startswith("multipart/"):
        return "mpjpeg"
    start = body.peek()
    if body.type.startswith("image/") or (body.length and _picture_codec(start)):
        return _PICTURE
    if body.type in _HLS_TYPES or start.startswith(b"#EXTM3U"):
        return "hls"
    if body.type.startswith(_TEXT_TYPES):
        raise DisconnectError(
            Disconnect(
                "no_video",
                f"the url returns {body.type}: use the address of a stream or a snapshot, not of a web page",
            )
        )
    return None


def _picture_codec(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "mjpeg"
    if data.startswith(b"\x89PNG"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def decode_picture(data: bytes) -> tuple[VideoCodecContext, list[VideoFrame]]:
    """Decode a JPEG, PNG or WebP picture. Return the decoder, which knows its size, and the frames."""
    codec = cast("VideoCodecContext", VideoCodecContext.create(_picture_codec(data) or "mjpeg", "r"))
    return codec, [*codec.decode(av.Packet(data)), *codec.decode(None)]


def _context(settings: CameraSettings) -> ssl.SSLContext:
    try:
        return tls_context(settings.tls)
    except OSError:
        raise DisconnectError(CA_UNREADABLE) from None


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    """Return the target of a redirect. One that is less protected than `url` is refused."""
    target = url.join(location)
    if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme != "https"):
        raise DisconnectError(
            Disconnect("network", f"the camera redirects from {url.scheme} to {target.scheme}, which is refused")
        )
    return target


def _failed(error: httpx.HTTPError | httpx.InvalidURL) -> DisconnectError:
    """Convert an error of httpx, whose chain of causes ends with that of the socket or of TLS."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return DisconnectError(classify_error(cause))
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return DisconnectError(NO_ANSWER)
    return DisconnectError(CLOSED if isinstance(error, httpx.RemoteProtocolError) else OTHER)
