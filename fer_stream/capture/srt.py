"""SRT streams, received with the system library libsrt: the FFmpeg in PyAV does not contain it."""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import av
from av.container import InputContainer

from fer_stream.capture.disconnect import ENDED, NO_ANSWER, Disconnect, DisconnectError, classify_error

if TYPE_CHECKING:
    from fer_stream.capture.camera_url import CameraUrl
    from fer_stream.config.live import CameraSettings

# Names of Debian's two builds, of other distributions, and of Homebrew.
_LIBRARIES = ("libsrt-gnutls.so.1.5", "libsrt-openssl.so.1.5", "libsrt.so.1.5", "libsrt.1.5.dylib")
# Constants of srt.h: socket options, errors, and reasons of a rejected connection.
_RECEIVE_TIMEOUT_MS, _PASSPHRASE, _CONNECT_TIMEOUT_MS, _LATENCY_MS, _STREAM_ID = 14, 26, 36, 43, 46
_ERROR_NO_SERVER, _ERROR_REJECTED, _ERROR_TIMEOUT = 1001, 1002, 6003
_REJECTED_PASSPHRASE, _REJECTED_UNENCRYPTED = 10, 11
_LOG_CRITICAL = 2
_MAX_DATAGRAM_BYTES = 1500

_MISSING = Disconnect("internal", "srt:// needs the system library libsrt: install it, on Debian as libsrt1.5-gnutls")
_NO_LISTENER = Disconnect("timeout", "no SRT listener responds: check address, port (UDP) and firewall")
_BAD_PASSPHRASE = Disconnect("unauthorized", "the passphrase of the stream must have 10 to 79 characters")
_WRONG_PASSPHRASE = Disconnect("unauthorized", "the camera rejects the passphrase: check password")
_PASSPHRASE_MISMATCH = Disconnect("unauthorized", "only one side has a passphrase: set or remove password")
_REFUSED = Disconnect("refused", "the camera rejects the connection: check the streamid in the url")
_INVALID_OPTION = Disconnect("network", "the value of streamid or latency in the url is not valid")


class SrtStream:
    """Connection to an SRT listener, as a file that PyAV reads. Raises `DisconnectError`.

    The query of the URL can contain `streamid`, `latency` in milliseconds and `passphrase`, which the password of the
    source replaces.
    """

    name = ""

    def __init__(self, url: CameraUrl, settings: CameraSettings, *, read_timeout_s: float) -> None:
        assert url.parts
        self._library = _library()
        self._failure = ENDED
        query = {key: values[-1] for key, values in parse_qs(url.parts.path.partition("?")[2]).items()}
        passphrase = url.login[1] if url.login else query.get("passphrase", "")
        self._socket: int | None = self._library.srt_create_socket()
        try:
            self._set(_CONNECT_TIMEOUT_MS, round(1000 * settings.open_timeout_s))
            self._set(_RECEIVE_TIMEOUT_MS, round(1000 * read_timeout_s))
            if latency := query.get("latency"):
                self._set(_LATENCY_MS, int(latency) if latency.isdecimal() else -1)
            if stream_id := query.get("streamid"):
                self._set(_STREAM_ID, stream_id)
            if passphrase:
                self._set(_PASSPHRASE, passphrase, _BAD_PASSPHRASE)
            self._connect(*_socket_address(url.parts.host, url.parts.port or 0))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection. May be called twice."""
        if self._socket is not None:
            self._library.srt_close(self._socket)
            self._socket = None

    def read(self, _size: int) -> bytes:
        """Return the next datagram, or nothing at the end."""
        if self._socket is None:
            return b""
        buffer = ctypes.create_string_buffer(_MAX_DATAGRAM_BYTES)
        received = self._library.srt_recv(self._socket, buffer, _MAX_DATAGRAM_BYTES)
        if received > 0:
            return buffer.raw[:received]
        if self._library.srt_getlasterror(None) == _ERROR_TIMEOUT:
            self._failure = NO_ANSWER
        return b""

    @contextmanager
    def container(self, url: CameraUrl) -> Iterator[InputContainer]:
        """Open the stream for the duration of the body, and raise the error that ended it."""
        try:
            with av.open(self, "r", format=url.format, options=url.options, metadata_errors="replace") as container:
                yield container
        except av.FFmpegError as error:
            raise DisconnectError(classify_error(error)) from None
        raise DisconnectError(self._failure)

    def _connect(self, address: bytes, size: int) -> None:
        if self._library.srt_connect(self._socket, address, size) == 0:
            return
        if self._library.srt_getlasterror(None) == _ERROR_NO_SERVER:
            raise DisconnectError(_NO_LISTENER)
        reason = self._library.srt_getrejectreason(self._socket)
        known = {_REJECTED_PASSPHRASE: _WRONG_PASSPHRASE, _REJECTED_UNENCRYPTED: _PASSPHRASE_MISMATCH}
        raise DisconnectError(known.get(reason, _REFUSED))

    def _set(self, option: int, value: int | str, failure: Disconnect = _INVALID_OPTION) -> None:
        data = struct.pack("=i", value) if isinstance(value, int) else value.encode()
        if self._library.srt_setsockflag(self._socket, option, data, len(data)) != 0:
            raise DisconnectError(failure)


@cache
def _library() -> ctypes.CDLL:
    """Load and start libsrt. Raises `DisconnectError` if it is not installed."""
    for name in (*_LIBRARIES, ctypes.util.find_library("srt")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library:
            library.srt_startup()
            library.srt_setloglevel(_LOG_CRITICAL)
            return library
    raise DisconnectError(_MISSING)


def _socket_address(host: str, port: int) -> tuple[bytes, int]:
    """Resolve a host and return a C `struct sockaddr` with its size."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise DisconnectError(classify_error(error)) from None
    packed = socket.inet_pton(family, str(address[0]))
    head = struct.pack("=H", family) + struct.pack("!H", port)
    data = head + packed + bytes(8) if family == socket.AF_INET else head + bytes(4) + packed + bytes(4)
    return data, len(data)
