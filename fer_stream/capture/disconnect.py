"""Reasons why a camera delivers no frames: errors of FFmpeg, sockets and TLS as sentences with a cure."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import av
import av.error

from fer_stream.capture.camera_url import tls_context
from fer_stream.config.source_url import TLS_SCHEMES

if TYPE_CHECKING:
    from fer_stream.capture.camera_url import CameraUrl
    from fer_stream.config.live import CameraSettings

Reason = Literal[
    "refused", "unknown_host", "certificate", "unauthorized", "not_found", "transport", "no_video", "timeout",
    "stalled", "ended", "decode", "network", "internal",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Reasons why a camera delivers no frames, also a label of metrics."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End of a connection. `text` is for users and contains no URL and no password."""

    reason: Reason
    text: str

    @property
    def access_denied(self) -> bool:
        """True if the camera rejected user, password or path: frequent retries would not help."""
        return self.reason in ("unauthorized", "not_found")


class DisconnectError(Exception):
    """A connection ended for the reason `disconnect`."""

    def __init__(self, disconnect: Disconnect) -> None:
        super().__init__(disconnect.text)
        self.disconnect = disconnect


LOGIN_REQUIRED = Disconnect("unauthorized", "the camera requires a login: set username and password")
LOGIN_REJECTED = Disconnect("unauthorized", "the camera rejects user or password: check username and password")
FORBIDDEN = Disconnect("unauthorized", "the user may not view this stream: change the rights of this user")
NOT_FOUND = Disconnect("not_found", "the camera has no stream at this path: check the path of the url")
NO_VIDEO = Disconnect("no_video", "the stream has no video track: check the path of the url")
ENDED = Disconnect("ended", "the camera ended the stream")
_REFUSED = Disconnect("refused", "nothing listens on this port: check address and port, and that the camera is on")
_UNKNOWN_HOST = Disconnect("unknown_host", "the host name is unknown: check it, or use the IP address of the camera")
_NO_ROUTE = Disconnect("network", "no route to the camera: check its address and the network")
CLOSED = Disconnect("network", "the camera closed the connection: check scheme and port, and its limit of viewers")
_REJECTED = Disconnect("network", "the camera rejects the request: check path and scheme, and its limit of viewers")
_FAULTY = Disconnect("network", "the camera reports an internal error: it may be starting or overloaded")
OTHER = Disconnect("network", "the connection failed: check scheme, address and port")
NO_ANSWER = Disconnect("timeout", "the camera does not respond: check address, port and firewall")
CA_UNREADABLE = Disconnect(
    "certificate", "the file `tls.ca` cannot be read, or contains no certificate in PEM format: check its path"
)
ENCRYPTED_HLS = Disconnect("decode", "encrypted HLS is not supported: use another stream of the camera")
_INVALID = Disconnect("decode", "the camera sends no valid stream: check scheme, port and path of the url")
_NO_DECODER = Disconnect("decode", "the codec of the stream is not supported: select H.264 or H.265 on the camera")
_NO_DEVICE = Disconnect("not_found", "the device does not exist: check its number, and that the webcam is connected")
_DEVICE_LOCKED = Disconnect("unauthorized", "no permission to read the device: add the user to the group video")

_BY_TYPE: tuple[tuple[type[Exception], Disconnect], ...] = (
    (av.error.HTTPUnauthorizedError, LOGIN_REJECTED),
    (av.error.HTTPForbiddenError, FORBIDDEN),
    (av.error.HTTPNotFoundError, NOT_FOUND),
    (av.error.HTTPServerError, _FAULTY),
    (av.error.HTTPClientError, _REJECTED),
    (av.error.EOFError, ENDED),
    (av.error.ExitError, NO_ANSWER),
    (av.error.DecoderNotFoundError, _NO_DECODER),
    (av.error.InvalidDataError, _INVALID),
    (socket.gaierror, _UNKNOWN_HOST),
    (TimeoutError, NO_ANSWER),
    (FileNotFoundError, _NO_DEVICE),
    (PermissionError, _DEVICE_LOCKED),
)
_BY_ERRNO = {
    errno.ECONNREFUSED: _REFUSED,
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.ENETUNREACH: _NO_ROUTE,
    errno.ECONNRESET: CLOSED,
    errno.EPIPE: CLOSED,
    errno.ETIMEDOUT: NO_ANSWER,
}
# FFmpeg's error for RTSP status 461, Unsupported Transport.
_TRANSPORT_REFUSED = errno.EPROTONOSUPPORT

_CA_CURE = "set `tls: {ca: FILE}` to the certificate of the camera or of the authority that signed it"
_CERTIFICATE_TEXTS: Mapping[int, str] = {
    9: "the certificate of the camera is not valid yet: check the clocks of the camera and of this machine",
    10: "the certificate of the camera has expired: renew it on the camera",
    18: f"the certificate of the camera is self-signed: {_CA_CURE}",
    19: f"the certificate of the camera is signed by an unknown authority: {_CA_CURE}",
    20: f"the certificate of the camera is signed by an unknown authority: {_CA_CURE}",
    21: f"the certificate of the camera is signed by an unknown authority: {_CA_CURE}",
    62: "the certificate of the camera is for another host name: use the name in the certificate in the url",
    64: "the certificate of the camera is for another address: use the name in the certificate in the url",
}
"""Texts by verification result of OpenSSL (X509_V_ERR_…)."""


def classify_error(error: OSError | av.FFmpegError, *, transport: str = "", login: bool = True) -> Disconnect:
    """Return the reason and the cure of an error of FFmpeg, a socket or TLS.

    `transport` is that of an RTSP connection; `login` is False if no user was given. The text of `error` is not used:
    FFmpeg's ends with the whole URL.
    """
    if isinstance(error, ssl.SSLError):
        return _classify_tls(error)
    if error.errno == _TRANSPORT_REFUSED and transport:
        other = {"tcp": "udp", "udp": "tcp"}[transport]
        return Disconnect("transport", f"the camera refuses RTSP over {transport.upper()}: set `transport: {other}`")
    if isinstance(error, av.error.HTTPUnauthorizedError) and not login:
        return LOGIN_REQUIRED
    found = next((disconnect for kind, disconnect in _BY_TYPE if isinstance(error, kind)), None)
    return found or _BY_ERRNO.get(error.errno or 0, OTHER)


_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935}


def diagnose(url: CameraUrl, settings: CameraSettings) -> Disconnect:
    """Return why FFmpeg could not connect, which reports an unknown host and a certificate as the same error.

    Resolves the name, connects and, for rtsps, verifies the certificate. Nothing else is sent.
    """
    if url.parts is None or url.scheme not in _DEFAULT_PORTS:
        return OTHER
    address = (url.parts.host, url.parts.port or _DEFAULT_PORTS[url.scheme])
    try:
        context = tls_context(settings.tls) if url.scheme in TLS_SCHEMES else None
    except OSError:
        return CA_UNREADABLE
    try:
        with socket.create_connection(address, settings.open_timeout_s) as plain:
            if context:
                context.wrap_socket(plain, server_hostname=url.parts.host).close()
    except OSError as error:
        return classify_error(error)
    return OTHER


def decode_error_text(error: av.FFmpegError) -> str:
    """Return why a packet could not be decoded."""
    if isinstance(error, av.error.PatchWelcomeError):
        return "a variant of the codec that FFmpeg does not support"
    return "damaged data" if isinstance(error, av.error.InvalidDataError) else "the decoder failed"


def http_status(status: int, *, login: bool) -> Disconnect:
    """Return the reason and the cure of an HTTP error status."""
    if status == 401:
        return LOGIN_REJECTED if login else LOGIN_REQUIRED
    by_status = {403: FORBIDDEN, 404: NOT_FOUND, 410: NOT_FOUND}
    found = by_status.get(status, _FAULTY if status >= 500 else _REJECTED)
    return Disconnect(found.reason, f"{found.text} (HTTP {status})")


def _classify_tls(error: ssl.SSLError) -> Disconnect:
    if isinstance(error, ssl.SSLCertVerificationError):
        text = _CERTIFICATE_TEXTS.get(
            error.verify_code, f"the certificate of the camera is not accepted ({error.verify_message}): {_CA_CURE}"
        )
        return Disconnect("certificate", f"{text}; `tls: {{verify: false}}` accepts any certificate")
    if error.reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        return Disconnect("certificate", "the camera has no TLS 1.2 or newer: update its firmware")
    return Disconnect("certificate", "no TLS connection: check that this is the TLS port of the camera")
