"""Protocol of frame sources, reduction of their frame rate, and the media time of live frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol

from fer_stream.errors import UnreadableSource
from fer_stream.formatting import format_time
from fer_stream.records import TIMESTAMP_TOLERANCE_S, DecodeErrors, Frame, SourceInfo


class FrameSource(Protocol):
    """Source of frames: a video file, a camera or a still image.

    The constructor opens the source. It raises a `SourceError` that names the source and the remedy.
    """

    stream_id: str

    @property
    def info(self) -> SourceInfo:
        """Properties of the source that are available before the first frame."""
        ...

    @property
    def decode_errors(self) -> DecodeErrors:
        """Packets that could not be decoded so far."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order; `index` counts from 0 and `time_s` never decreases."""
        ...

    def close(self) -> None:
        """Release all resources. May be called twice, and while `frames()` is suspended."""
        ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Which frames of a file are read, and how they are turned.

    At most `fps` frames per second (None: all) of media time from `start_s` up to, not including, `end_s` (None: the
    end of the file). Frames are rotated by `rotate` degrees clockwise, a multiple of 90, in addition to the rotation
    that the file declares.
    """

    fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None
    rotate: int = 0

    @property
    def is_partial(self) -> bool:
        """Whether only a part of the file is read."""
        return self.start_s > 0 or self.end_s is not None

    def is_before(self, time_s: float) -> bool:
        """Return whether a frame at `time_s` precedes the part that is read."""
        return time_s < self.start_s - TIMESTAMP_TOLERANCE_S

    def is_after(self, time_s: float) -> bool:
        """Return whether a frame at `time_s` follows the part that is read."""
        return self.end_s is not None and time_s >= self.end_s - TIMESTAMP_TOLERANCE_S

    def refuse_empty(self, name: object, end_s: float) -> NoReturn:
        """Raise `UnreadableSource`: the file `name`, whose last frame is at `end_s`, has no frame in this part."""
        if self.start_s > end_s:
            cure = f"It ends at {format_time(end_s)}: choose an earlier start (--start)."
        else:
            cure = "Choose a later end (--end) or an earlier start (--start)."
        until = "" if self.end_s is None else f" and before {format_time(self.end_s)}"
        raise UnreadableSource(f"{name} has no frame from {format_time(self.start_s)}{until}. {cure}")


EVERYTHING = ReadOptions()
"""All frames, as the file declares them."""


class Sampler:
    """Selects at most `fps` frames per second; `fps` None selects all.

    Media time is divided into slots of 1/fps s, starting at zero, and the first frame of each slot is selected. The
    decision depends on the time of the frame alone, not on frames dropped before it.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None and fps <= 0:
            raise ValueError(f"fps must be above 0, got {fps}")
        self._fps = fps
        self._slot = -1

    def accept(self, time_s: float) -> bool:
        """Return True if the frame at `time_s`, in media seconds, is selected."""
        if self._fps is None:
            return True
        slot = int((time_s + TIMESTAMP_TOLERANCE_S) * self._fps)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


def throttle(
    frames: Iterator[Frame], *, monotonic: Callable[[], float], wait: Callable[[float], object]
) -> Iterator[Frame]:
    """Delay each frame until its media time has passed since the first one, to play a file at its own speed."""
    started_s: float | None = None
    for frame in frames:
        started_s = monotonic() - frame.time_s if started_s is None else started_s
        if (early_s := started_s + frame.time_s - monotonic()) > 0:
            wait(early_s)
        yield frame


TOLERANCE_S = 1.0
"""Maximum difference between PTS and arrival time: above network jitter, below what a viewer notices."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks of a camera, in seconds: `monotonic` for media time and timeouts, `wall` for Unix time."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


CLOCK_TOLERANCE_S = 5.0
"""Maximum error of the wall times of a session. NTP corrects smaller offsets gradually, without a step."""


class ClockMonitor:
    """Detects steps of the system clock, which NTP, users and suspended machines cause.

    Only steps change the difference between the wall clock and the monotonic clock, because NTP slews both alike.
    Several small steps add up.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._offset_s = clocks.wall() - clocks.monotonic()

    def step_s(self) -> float | None:
        """Return by how many seconds the clock was set forward since the last step, or None if 5 s or less."""
        offset_s = self._clocks.wall() - self._clocks.monotonic()
        step_s = offset_s - self._offset_s
        if abs(step_s) <= CLOCK_TOLERANCE_S:
            return None
        self._offset_s = offset_s
        return step_s


class MediaClock:
    """Converts the PTS of a camera to media time.

    PTS state when a frame was recorded, the arrival only when the network delivered it. Time therefore follows valid
    PTS: `time_s` = PTS + offset, with the offset of the fastest frame so far (no frame comes from the future). A PTS
    that is missing after valid ones, does not increase or leaps ahead is a discontinuity: the frame gets its arrival
    time, and later PTS are relative to it. Every frame of a stream without PTS gets its arrival time, which is not a
    discontinuity. A camera whose clock runs slow is corrected in steps of `TOLERANCE_S`.

    `on_discontinuity` is called once per discontinuity.
    """

    def __init__(self, on_discontinuity: Callable[[], None]) -> None:
        self._on_discontinuity = on_discontinuity
        self._offset_s: float | None = None
        self._last_pts_s: float | None = None
        self._last_arrival_s = 0.0
        self._last_s = 0.0

    def restart(self) -> None:
        """Start a new connection, whose PTS are unrelated to earlier ones. Media time continues."""
        self._offset_s = self._last_pts_s = None

    def time_s(self, pts_s: float | None, arrived_s: float) -> float:
        """Return the media time of a frame that arrived `arrived_s` seconds after the session start."""
        if not self._is_continuous(pts_s, arrived_s):
            self._on_discontinuity()
            self._offset_s = None
        self._last_pts_s, self._last_arrival_s = pts_s, arrived_s
        self._last_s = max(self._last_s, arrived_s if pts_s is None else self._from_pts(pts_s, arrived_s))
        return self._last_s

    def _is_continuous(self, pts_s: float | None, arrived_s: float) -> bool:
        if self._last_pts_s is None:
            return True  # FFmpeg returns the first frame of some cameras without a PTS
        if pts_s is None:
            return False
        step_s = pts_s - self._last_pts_s
        return 0 < step_s < arrived_s - self._last_arrival_s + TOLERANCE_S

    def _from_pts(self, pts_s: float, arrived_s: float) -> float:
        if self._offset_s is None or not 0 <= arrived_s - (pts_s + self._offset_s) <= TOLERANCE_S:
            self._offset_s = arrived_s - pts_s
        return pts_s + self._offset_s


class Pacer:
    """Spreads frames that arrive in bursts, such as those of an HLS segment, over time according to their PTS."""

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def delay_s(self, pts_s: float | None, now_s: float) -> float:
        """Return the delay of a frame in seconds. A late or implausibly early frame restarts the pacing."""
        if pts_s is None:
            return 0.0
        early_s = 0.0 if self._offset_s is None else pts_s + self._offset_s - now_s
        if self._offset_s is None or abs(early_s) > TOLERANCE_S:
            self._offset_s = now_s - pts_s
            return 0.0
        return max(0.0, early_s)
