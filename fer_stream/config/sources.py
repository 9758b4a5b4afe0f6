"""Settings of one source of the live service: a camera, or a file played like one."""

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


def _check_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    scheme, separator, rest = text.partition("://")
    # rtsp:/me:password@cam would pass as a file name, which is printed in full when the file is not found.
    if not separator and re.search(r":[^/]*@", text):
        raise ValueError("a camera URL must start with rtsp://, rtsps://, http:// or https://")
    if not text or re.search(r"\s", text) or (separator and (scheme.lower() not in _SCHEMES or not rest)):
        raise ValueError(
            "expected an rtsp://, rtsps://, http:// or https:// URL with a percent-encoded password, a device such "
            "as /dev/video0, a webcam number, or a video file"
        )
    return url


def _check_zone(zone: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = zone
    if left >= right or top >= bottom:
        raise ValueError("a zone must be [left, top, right, bottom] with left < right and top < bottom")
    return zone


SourceUrl = Annotated[SecretStr, AfterValidator(_check_url), Field(json_schema_extra={"type": ["string", "integer"]})]
Zone = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], AfterValidator(_check_zone)]
"""[left, top, right, bottom] as fractions of the frame."""


class CameraSettings(Settings):
    """Connection to a camera."""

    transport: Literal["tcp", "udp"] = "tcp"
    """Transport of RTSP. TCP loses no packets; use UDP for cameras that do not support TCP."""
    fps: Positive | None = None
    """Maximum number of frames analysed per second. Default: all, because tracking needs boxes that overlap from one
    frame to the next. If the machine is too slow, the newest frame is analysed and older ones are dropped."""
    max_long_side_px: Annotated[int, Field(ge=64)] | None = None
    """Frames with a longer side are scaled down to it. Default: no limit."""
    open_timeout_s: Positive = 5.0
    """Timeout of each of the two steps of connecting: the first response, and probing the stream."""
    stall_timeout_s: Positive = 5.0
    """A connected camera that sends no data for this long is stalled. Must exceed the segment length of HLS."""
    no_frame_timeout_s: Positive = 30.0
    """Maximum time that data may arrive without a decodable frame. Must exceed the interval between key frames."""
    reconnect_min_s: Positive = 0.5
    """Delay before the first reconnection attempt; it doubles with every failure."""
    reconnect_max_s: Positive = 30.0
    """Maximum delay between attempts."""
    reconnect_auth_s: Positive = 60.0
    """Delay after a wrong password or an unknown path. More frequent attempts lock accounts."""


class OverflowSettings(Settings):
    """Behaviour when a source produces more faces than the workers classify."""

    policy: Literal["auto", "drop_oldest", "block"] = "auto"
    """`drop_oldest` drops and counts the oldest faces; `block` makes the source wait. `auto` drops the faces of a
    camera, where old labels are useless, and blocks a file, which must be complete."""
    capacity: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of queued faces. Default: 64 with `drop_oldest` (2 s at 15 fps with two faces), otherwise 256
    (full batches for several workers)."""
    max_age_s: Positive = 2.0
    """Maximum age of a queued face with `drop_oldest`."""


class SourceSettings(CameraSettings):
    """One camera, or a file played like one."""

    url: SourceUrl
    """An rtsp://, rtsps://, http:// or https:// URL, a device such as /dev/video0, a webcam number, or a video file.
    Treated as a secret, because it may contain a password."""
    playback: Literal["realtime", "fast"] = "realtime"
    """Speed at which a file is read: at its frame rate, or as fast as possible. Ignored for cameras."""
    ignore_zones: tuple[Zone, ...] = ()
    """Faces with their centre in one of these zones are ignored: posters, screens, a street behind a window."""
    record: bool = False
    """Write the annotated video to `recordings.dir`. Off by default, because it is the most personal of all
    outputs."""
    overflow: OverflowSettings = OverflowSettings()
    detector: DetectorSettings = DetectorSettings()
    """Overrides the service's `detector` for this source; likewise `tracker` and `quality`."""
    tracker: TrackerSettings = TrackerSettings()
    quality: QualitySettings = QualitySettings()

    @property
    def kind(self) -> Literal["camera", "file"]:
        """The kind of source that `url` refers to."""
        text = self.url.get_secret_value()
        return "camera" if "://" in text or text.isdecimal() or text.startswith("/dev/") else "file"
