"""The time of a live picture: seconds since the source was opened, never going backwards."""

from __future__ import annotations

from collections.abc import Callable

TOLERANCE_S = 1.0
"""A PTS may differ by so much from the time of arrival: more than a network's jitter, less than a viewer notices."""


class MediaClock:
    """Turns the PTS of a camera into media time.

    The PTS know when a picture was taken, the arrival only when the network brought it, so time follows the PTS
    as long as they can be believed: `time_s` = PTS + offset, where the offset belongs to the fastest picture seen
    (no picture comes from the future). A PTS that went missing, that does not rise or that leaps ahead is a
    discontinuity: the picture gets the time of its arrival, and the next ones count from there. So does every
    picture of a stream that never had a PTS, which is no discontinuity. A camera whose clock runs slow is caught
    up with in steps of `TOLERANCE_S`.

    `on_discontinuity` is called once for each.
    """

    def __init__(self, on_discontinuity: Callable[[], None]) -> None:
        self._on_discontinuity = on_discontinuity
        self._offset_s: float | None = None
        self._last_pts_s: float | None = None
        self._last_arrival_s = 0.0
        self._last_s = 0.0

    def restart(self) -> None:
        """A new connection: its PTS have nothing to do with those before. Time goes on."""
        self._offset_s = self._last_pts_s = None

    def time_s(self, pts_s: float | None, arrived_s: float) -> float:
        """The media time of a picture that arrived `arrived_s` seconds after the source was opened."""
        if not self._believable(pts_s, arrived_s):
            self._on_discontinuity()
            self._offset_s = None
        self._last_pts_s, self._last_arrival_s = pts_s, arrived_s
        self._last_s = max(self._last_s, arrived_s if pts_s is None else self._follow(pts_s, arrived_s))
        return self._last_s

    def _believable(self, pts_s: float | None, arrived_s: float) -> bool:
        if self._last_pts_s is None:
            return True  # FFmpeg gives the first picture of some cameras without a PTS
        if pts_s is None:
            return False
        step_s = pts_s - self._last_pts_s
        return 0 < step_s < arrived_s - self._last_arrival_s + TOLERANCE_S

    def _follow(self, pts_s: float, arrived_s: float) -> float:
        if self._offset_s is None or not 0 <= arrived_s - (pts_s + self._offset_s) <= TOLERANCE_S:
            self._offset_s = arrived_s - pts_s
        return pts_s + self._offset_s


class Pacer:
    """Spreads pictures that arrive in bursts, as those of an HLS segment do, over the time that their PTS say."""

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def delay_s(self, pts_s: float | None, now_s: float) -> float:
        """How long the picture has to wait. One that is late, or too early to be true, sets the playback anew."""
        if pts_s is None:
            return 0.0
        early_s = 0.0 if self._offset_s is None else pts_s + self._offset_s - now_s
        if self._offset_s is None or abs(early_s) > TOLERANCE_S:
            self._offset_s = now_s - pts_s
            return 0.0
        return max(0.0, early_s)
