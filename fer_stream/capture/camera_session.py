"""What becomes of a camera's pictures until someone takes them: their time, the choice among them, the gaps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from av.video.frame import VideoFrame

from fer_stream.capture.clock import MediaClock
from fer_stream.capture.connection import Connection
from fer_stream.capture.disconnect import REASONS, Outage, Reason
from fer_stream.capture.latest import Newest
from fer_stream.capture.source import Sampler
from fer_stream.metrics import Metrics
from fer_stream.records import DecodeErrors, Gap, SourceInfo


@dataclass(frozen=True, slots=True)
class LiveState:
    """How a camera is. `reason` and `text` say why it is down (None and empty while it is up or is first tried).

    `failures` counts the connections that ended since the last picture.
    """

    up: bool
    reason: Reason | None = None
    text: str = ""
    failures: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture that was not converted yet; the numbers are those of the `Frame` it becomes."""

    image: VideoFrame
    index: int
    time_s: float
    captured_at: float


class Feed:
    """Listens to one connection after the other, and only to the newest: an abandoned one may still speak.

    Media time counts from the making of the feed. `newest` is where the pictures and gaps come out.
    """

    def __init__(
        self, name: str, fps: float | None, metrics: Metrics, *, now: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.newest: Newest[Picture] = Newest()
        self.state = LiveState(up=False)
        self.info = SourceInfo(name, "video", 0, 0, None, None, None, "", "")
        self.damage = DecodeErrors()
        self._name = name
        self._now, self._wall = now, wall
        self._counts = _Counts(metrics, name)
        self._clock = MediaClock(self._counts.discontinuities.inc)
        self._sampler = Sampler(fps)
        self._opened_s = now()
        self._decoded = 0
        self._last_s = 0.0
        self._gap: Gap | None = None
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def listen_to(self, connection: Connection) -> None:
        """Take pictures from this connection and from no other."""
        with self._lock:
            self._connection = connection

    def opened(self, connection: Connection, info: SourceInfo) -> None:
        """The camera answered."""
        with self._lock:
            if connection is self._connection:
                self.info = info
                self._clock.restart()

    def picture(self, connection: Connection, image: VideoFrame, pts_s: float | None) -> None:
        """Note a picture, and leave it for whoever takes the next one."""
        with self._lock:
            if connection is not self._connection:
                return
            self._last_s = self._clock.time_s(pts_s, self._elapsed_s())
            if not self.state.up:
                self._rise()
            picture = Picture(image, self._decoded, self._last_s, self._wall())
            self._decoded += 1
            self._counts.last_frame.set(picture.captured_at)
            if not self._sampler.keep(picture.time_s):
                self._counts.sampled.inc()
                return
            if self.newest.put(picture, self._gap):
                self._counts.overrun.inc()
            self._gap = None

    def damaged(self, connection: Connection, reason: str) -> None:
        """A packet could not be decoded."""
        with self._lock:
            if connection is self._connection:
                self._lose(reason)

    def spoilt(self, reason: str) -> None:
        """A picture that was taken turned out to be of no use."""
        with self._lock:
            self._lose(reason)

    def fall(self, outage: Outage) -> None:
        """The connection is over: the gap begins, if it has not begun yet."""
        with self._lock:
            self._connection = None
            self.state = LiveState(False, outage.reason, outage.text, self.state.failures + 1)
            self._gap = self._gap or Gap(self._name, self._last_s, self._last_s, outage.reason)
            self._counts.fall(outage.reason)

    def close(self) -> None:
        """Nothing more is wanted. An outage that still lasts ends here."""
        with self._lock:
            self._connection = None
            if self._gap and not self.state.up:
                self._gap = replace(self._gap, end_s=self._elapsed_s())
            self._counts.up.set(0)
            self.newest.close(self._gap)

    def _rise(self) -> None:
        if self._gap:
            self._gap = replace(self._gap, end_s=self._last_s)
        self.state = LiveState(up=True)
        self._counts.up.set(1)

    def _lose(self, reason: str) -> None:
        self._counts.damaged.inc()
        self.damage = DecodeErrors(self.damage.packets + 1, self.damage.reason or reason)

    def _elapsed_s(self) -> float:
        return self._now() - self._opened_s


class _Counts:
    """The collectors of one camera. They are made at once, so that every series starts at 0."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.up = metrics.camera_up.labels(name)
        self.last_frame = metrics.camera_last_frame.labels(name)
        self.discontinuities = metrics.pts_discontinuities.labels(name)
        self.sampled = metrics.frames_dropped.labels(name, "capture", "sampled")
        self.overrun = metrics.frames_dropped.labels(name, "capture", "overrun")
        self.damaged = metrics.frames_dropped.labels(name, "decode", "damaged")
        self._stalls = metrics.stalls.labels(name)
        self._reconnects = {reason: metrics.reconnects.labels(name, reason) for reason in REASONS}

    def fall(self, reason: Reason) -> None:
        """The camera was lost, or is still not there."""
        self.up.set(0)
        self._reconnects[reason].inc()
        if reason == "stalled":
            self._stalls.inc()
