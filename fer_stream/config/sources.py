"""One source of the live service: a camera, or a file in place of one."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from fer_stream.config.settings import (
    DetectorSettings,
    Fraction,
    Positive,
    QualitySettings,
    Settings,
    TrackerSettings,
)

_SCHEMES = ("rtsp", "rtsps", "http", "https")


def _checked_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    scheme, separator, rest = text.partition("://")
    # As in rtsp:/me:password@cam, which would be taken for a file and told in full when it is not found.
    if not separator and re.search(r":[^/]*@", text):
        raise ValueError("a camera's address begins with rtsp://, rtsps://, http:// or https://")
    if not text or re.search(r"\s", text) or (separator and (scheme.lower() not in _SCHEMES or not rest)):
        raise ValueError(
            "expected an rtsp://, rtsps://, http:// or https:// URL with special characters of the password "
            "percent-encoded, a device such as /dev/video0, the number of a webcam, or a video file"
        )
    return url


def _checked_zone(zone: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = zone
    if left >= right or top >= bottom:
        raise ValueError("a zone is [left, top, right, bottom] with left < right and top < bottom")
    return zone


SourceUrl = Annotated[
    SecretStr, AfterValidator(_checked_url), Field(json_schema_extra={"type": ["string", "integer"]})
]
Zone = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], AfterValidator(_checked_zone)]
"""[left, top, right, bottom] in fractions of the picture."""


class CameraSettings(Settings):
    """How a camera is read, and how patiently it is waited for."""

    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries the pictures: over TCP none is lost on the way."""
    fps: Positive | None = None
    """Pictures a second to look at; by default every one, because a face that moves must overlap itself from one to
    the next to be the same person. Where a machine cannot look at all, the newest win."""
    max_long_side_px: Annotated[int, Field(ge=64)] | None = None
    """Pictures are shrunk to this long side; by default they keep their size."""
    open_timeout_s: Positive = 5.0
    """Connecting has two steps, a first answer and a first look at the stream; each may take so long."""
    stall_timeout_s: Positive = 5.0
    """A camera that sends nothing for so long is stalled. Set it above the segment length of HLS."""
    no_frame_timeout_s: Positive = 30.0
    """So long may data come without a picture: above the time between two key frames."""
    reconnect_min_s: Positive = 0.5
    """The wait before a lost camera is tried again; doubles with every failure."""
    reconnect_max_s: Positive = 30.0
    """The longest of these waits."""
    reconnect_auth_s: Positive = 60.0
    """The wait after a wrong password or an unknown path: trying again faster locks accounts."""


class OverflowSettings(Settings):
    """What happens when a source has more faces than the workers can classify."""

    policy: Literal["auto", "drop_oldest", "block"] = "auto"
    """`drop_oldest` drops the faces that wait longest and counts them, `block` lets the source wait. `auto` drops
    those of a camera, where old faces are worth nothing, and lets a file wait, of which nothing is lost."""
    capacity: Annotated[int, Field(ge=1)] | None = None
    """So many faces may wait: by default 64 where faces are dropped (2 s of 15 fps with two faces), else 256, enough
    for a few workers to have full batches."""
    max_age_s: Positive = 2.0
    """No face waits longer where faces are dropped: a live label that comes later helps nobody."""


class SourceSettings(CameraSettings):
    """One camera, or a file in place of one."""

    url: SourceUrl
    """An rtsp://, rtsps://, http:// or https:// URL, a device such as /dev/video0, the number of a webcam, or a video
    file. A secret, because it may hold a password."""
    playback: Literal["realtime", "fast"] = "realtime"
    """How a file is played: as a camera would give it, or as fast as it goes. A camera has its own playback."""
    ignore_zones: tuple[Zone, ...] = ()
    """Faces whose centre lies in one of these zones are ignored: posters, screens, the street behind a window."""
    record: bool = False
    """Keep the annotated video, in `recordings.dir`. Off, because it is the most personal of all outputs."""
    overflow: OverflowSettings = OverflowSettings()
    detector: DetectorSettings = DetectorSettings()
    """As for all sources, but for what is said here; so too `tracker` and `quality`."""
    tracker: TrackerSettings = TrackerSettings()
    quality: QualitySettings = QualitySettings()

    @property
    def kind(self) -> Literal["camera", "file"]:
        """What `url` names."""
        text = self.url.get_secret_value()
        return "camera" if "://" in text or text.isdecimal() or text.startswith("/dev/") else "file"
