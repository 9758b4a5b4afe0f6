"""Where a camera is, and how FFmpeg is to open it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fer_stream.config import CameraSettings
from fer_stream.errors import UnreadableSource
from fer_stream.log import redact_secrets

# 0.2 s of analysis and no buffer: a camera opens in 0.4 s instead of 2.0 s, and without a stale backlog of 1.5 s.
_LOW_LATENCY = {"analyzeduration": "200000", "fflags": "nobuffer"}
# A playlist may name any URL: without this one from a camera could have FFmpeg read local files.
_HTTP = {"protocol_whitelist": "http,https,tcp,tls,crypto"}
# Also the names that stay, as in /dev/v4l/by-id/usb-Maker_Camera-video-index0; nothing that leads out of /dev.
_DEVICE = re.compile(r"/dev/(?!.*\.\.)[\w./:+-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """What `av.open` is to be given. `url` may hold a password and is kept out of the repr."""

    url: str = field(repr=False)
    format: str | None
    options: dict[str, str]


def camera_address(url: str | int, settings: CameraSettings) -> Address:
    """The address of a camera: an rtsp, rtsps, http or https URL, a device such as /dev/video0, or its number.

    Raises `UnreadableSource` for anything else.
    """
    device = f"/dev/video{url}" if str(url).isdecimal() else str(url)
    if _DEVICE.fullmatch(device):
        return Address(device, "v4l2", {})
    scheme = device.partition("://")[0].lower()
    if scheme in ("rtsp", "rtsps"):
        options = {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
        return Address(device, "rtsp", _LOW_LATENCY | options)
    if scheme in ("http", "https"):
        return Address(device, None, _LOW_LATENCY | _HTTP)
    raise UnreadableSource(
        f"{redact_secrets(device)} is no camera: expected an rtsp://, rtsps://, http:// or https:// URL, "
        "a device such as /dev/video0, or the number of a webcam."
    )
