"""Conversion of the settings of a camera to the arguments of the library that reads it."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import certifi

from fer_stream.config.source_url import LOGIN_SCHEMES, TLS_SCHEMES, UrlParts, check_source_url, device_of, split_url
from fer_stream.errors import UnreadableSource
from fer_stream.log import redact_secrets

if TYPE_CHECKING:
    from fer_stream.config.live import CameraSettings, CertificateSettings

# 0.2 s of analysis and no buffer: a camera opens in 0.4 s instead of 2.0 s, and without a stale backlog of 1.5 s.
LOW_LATENCY = {"analyzeduration": "200000", "fflags": "nobuffer"}
_OPTIONS = {
    # A datagram that does not fit into the buffer is lost, as in the network, and does not end the connection.
    "udp": {"overrun_nonfatal": "1"},
    "rtmp": {"rtmp_live": "live"},
}
_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "srt": "mpegts", "udp": "mpegts"}


@dataclass(frozen=True, slots=True)
class CameraUrl:
    """Address of a camera. `url` can contain a password and is excluded from the repr, like all secrets.

    `url`, `format` and `options` are arguments of `av.open`; `format` is None if the content decides. `parts` is None
    for a device, `login` is user and password, None if the camera needs none.
    """

    url: str = field(repr=False)
    format: str | None
    options: dict[str, str]
    parts: UrlParts | None = None
    login: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def scheme(self) -> str:
        """Scheme in lower case; empty for a device."""
        return self.parts.scheme if self.parts else ""


def parse_camera_url(url: str | int, settings: CameraSettings) -> CameraUrl:
    """Convert the URL of a camera, a device such as /dev/video0, or the number of a webcam.

    Raises `UnreadableSource` for anything else.
    """
    text = str(url)
    if device := device_of(text):
        return CameraUrl(device, "v4l2", {})
    try:
        check_source_url(text)
        if "://" not in text:
            raise ValueError("the path of a file is not a camera")
    except ValueError as error:
        raise UnreadableSource(f"Unsupported camera URL {redact_secrets(text)}: {error}.") from None
    parts = split_url(text)
    login = _login(parts, settings)
    user = ""
    if login and parts.scheme in LOGIN_SCHEMES:
        user = ":".join(quote(each, safe="") for each in login) + "@"
    return CameraUrl(
        f"{parts.scheme}://{user}{parts.address}{parts.path}",
        _FORMATS.get(parts.scheme),
        _ffmpeg_options(parts.scheme, settings),
        parts,
        login,
    )


def tls_context(settings: CertificateSettings) -> ssl.SSLContext:
    """Return how Python's connections verify certificates. Raises `OSError` if `ca` is not a PEM file."""
    if not settings.verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # "any certificate" includes those with short keys
        return context
    context = ssl.create_default_context(cafile=_ca_file(settings))
    # Like GnuTLS: `ca` can be the certificate of the camera itself, without the extensions that few cameras set.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _ca_file(settings: CertificateSettings) -> str:
    """Return the file of trusted certificates: `ca`, that of the system, or else that of certifi."""
    return os.fspath(settings.ca or ssl.get_default_verify_paths().cafile or certifi.where())


def _login(parts: UrlParts, settings: CameraSettings) -> tuple[str, str] | None:
    user = settings.username or parts.user or ""
    password = settings.password.get_secret_value() if settings.password else parts.password or ""
    return (user, password) if user or password else None


def _ffmpeg_options(scheme: str, settings: CameraSettings) -> dict[str, str]:
    options = LOW_LATENCY | _OPTIONS.get(scheme, {})
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
    if scheme in TLS_SCHEMES:
        # FFmpeg 8.0 verifies certificates only with tls_verify, and the GnuTLS in PyAV needs a ca_file.
        options |= {"tls_verify": str(int(settings.tls.verify)), "ca_file": _ca_file(settings.tls)}
    return options
