"""Syntax of the `url` of a source, and the likely intention behind a wrong one.

No message contains a part of the URL that could be a password.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "srt", "udp")
"""Schemes of camera URLs."""
LOGIN_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp")
"""Schemes whose servers can ask for a user and a password."""
TLS_SCHEMES = ("rtsps", "https")
_PORT_REQUIRED = ("srt", "udp")

_SCHEME_OF_PORT = {80: "http", 8080: "http", 443: "https", 8443: "https", 322: "rtsps", 1935: "rtmp"}
_EXPECTED = (
    f"expected a URL that starts with {', '.join(f'{scheme}://' for scheme in SCHEMES)}, a device such as "
    "/dev/video0, a webcam number, or a video file"
)
_ENCODE = "give user and password in `username` and `password`, or percent-encode them (%40 is @, %2F is /, %25 is %)"
# Includes stable names such as /dev/v4l/by-id/usb-Maker_Camera-video-index0, but no path that leaves /dev.
_DEVICE = re.compile(r"/dev/(?!.*\.\.)[\w./:+-]+")
_HOST_AND_PORT = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:]+\])(?::(?P<port>\d{1,5}))?(?=[/?]|$)")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class UrlParts:
    """Parts of a camera URL. `user` and `password` are decoded, None if absent; `path` includes the query."""

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    address: str
    path: str = field(repr=False)

    @property
    def host(self) -> str:
        """Host name or address, without the brackets of IPv6."""
        return _split_port(self.address)[0].strip("[]")

    @property
    def port(self) -> int | None:
        """Port, None if the URL has none."""
        port = _split_port(self.address)[1]
        return int(port) if port else None


def split_url(text: str) -> UrlParts:
    """Split a camera URL that `check_source_url` accepts."""
    scheme, _, rest = text.partition("://")
    netloc, path = _split_path(rest)
    login, at, address = netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if not at or not login:  # udp://@239.0.0.1:5000 is a common notation of a multicast group
        return UrlParts(scheme.lower(), None, None, address, path)
    return UrlParts(scheme.lower(), unquote(user), unquote(password) if colon else None, address, path)


def device_of(text: str) -> str | None:
    """Return the path of a webcam for a number or a path below /dev; None for anything else."""
    path = f"/dev/video{text}" if text.isdecimal() else text
    return path if _DEVICE.fullmatch(path) else None


def kind_of(text: str) -> Literal["camera", "file"]:
    """Return what a valid `url` refers to."""
    return "camera" if "://" in text or device_of(text) else "file"


def check_source_url(text: str) -> None:
    """Raise `ValueError` with the likely intention if `text` is no URL, device, webcam number or path of a file."""
    if not text or re.search(r"\s", text):
        raise ValueError(f"{_EXPECTED}, without white space")
    if "://" in text:
        _check_camera_url(text)
    elif device_of(text) is None:
        _check_path(text)


def check_file(text: str) -> None:
    """Raise `ValueError` if `text` is the path of a video file that does not exist."""
    if kind_of(text) == "file" and not Path(text).is_file():
        problem = "is a folder" if Path(text).is_dir() else "does not exist"
        raise ValueError(
            f"the file {problem}: check the path, which is relative to the working directory. "
            "The URL of a camera starts with rtsp:// or http://"
        )


def _check_camera_url(text: str) -> None:
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        nearest = difflib.get_close_matches(scheme, SCHEMES, n=1)
        raise ValueError(_EXPECTED + (f" (did you mean {nearest[0]}://?)" if nearest else ""))
    _check_login(text)
    _check_address(split_url(text))


def _check_login(text: str) -> None:
    """Reject a password that ends at the wrong place because it is not percent-encoded."""
    netloc, path = _split_path(text.partition("://")[2])
    login, at, _ = netloc.rpartition("@")
    if "@" in login:
        raise ValueError(f"the password contains an unescaped @: {_ENCODE}")
    if "@" in path and (at or not _is_unambiguous(netloc)):
        raise ValueError(
            f"an @ follows the first /, ? or #: if these belong to the password, {_ENCODE}; "
            "if they belong to the path, write the @ as %40"
        )
    if _BAD_PERCENT.search(login):
        raise ValueError(f"user or password contain an unescaped %: {_ENCODE}")


def _check_address(parts: UrlParts) -> None:
    host, port = _split_port(parts.address)
    if not host and parts.scheme != "udp":
        raise ValueError("the URL has no host")
    if parts.scheme == "srt" and "mode=" in parts.path and "mode=caller" not in parts.path:
        raise ValueError(
            "srt:// connects to the camera: remove mode from the url, and set the camera to listener mode"
        )
    if port is None and (parts.scheme in _PORT_REQUIRED or ":" in parts.address.rpartition("]")[2]):
        raise ValueError(f"the port of the URL is missing, as in {parts.scheme}://host:5000")
    if port is not None and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError("the port of the URL must be a number from 1 to 65535")


def _check_path(text: str) -> None:
    """Reject a camera URL without a scheme, which would be taken for the path of a file."""
    scheme = text.partition(":")[0].lower()
    if scheme in SCHEMES and ":" in text:
        raise ValueError(f"a camera URL needs a colon and two slashes: {scheme}://")
    if re.search(r":[^/]*@", text):  # a password, and the error about a missing file would name the whole path
        raise ValueError("a camera URL must start with its scheme, such as rtsp:// or http://")
    if (found := _HOST_AND_PORT.match(text)) and (found["port"] or _is_ip(found["host"])):
        guess = _SCHEME_OF_PORT.get(int(found["port"] or 554), "rtsp")
        shown = f"{guess}://{found[0]}" + ("/…" if len(text) > found.end() else "")  # a path can contain a password
        raise ValueError(f"a camera URL starts with its scheme (did you mean {shown}?)")


def _split_path(rest: str) -> tuple[str, str]:
    end = min((position for position in map(rest.find, "/?#") if position >= 0), default=len(rest))
    return rest[:end], rest[end:]


def _split_port(address: str) -> tuple[str, str | None]:
    """Split `host:port`; the port is None if it is missing or empty."""
    host, _, port = address.rpartition(":") if ":" in address.rpartition("]")[2] else (address, "", "")
    return host, port or None


def _is_unambiguous(netloc: str) -> bool:
    """Return whether text before the first slash is a host, not a user and the beginning of a password."""
    host, port = _split_port(netloc)
    return not port or (port.isdecimal() and ("." in host or "[" in host or host == "localhost"))


def _is_ip(host: str) -> bool:
    try:
        return bool(ip_address(host.strip("[]")))
    except ValueError:
        return False
