"""How long to wait before a camera is tried again."""

from __future__ import annotations

import random

from fer_stream.config import CameraSettings

STEADY_S = 5.0
"""A connection that gave pictures for so long held: even if it is lost at once again, trying soon does no harm."""


class Backoff:
    """Waits that double from `reconnect_min_s` to `reconnect_max_s`, each shortened by up to a half at random.

    The chance keeps a hundred cameras behind one rebooted switch from knocking in step. A camera that refuses us
    (wrong password, no such path) waits `reconnect_auth_s` at once: trying again faster locks accounts.
    """

    def __init__(self, settings: CameraSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._next_s = settings.reconnect_min_s

    def wait_s(self, *, refused: bool, up_s: float) -> float:
        """Seconds to wait after a connection that gave pictures for `up_s` seconds.

        One that held starts the series again; a camera that comes and goes is waited for longer and longer.
        """
        if up_s >= STEADY_S:
            self._next_s = self._settings.reconnect_min_s
        if refused:
            return self._shortened(self._settings.reconnect_auth_s)
        wait_s = self._shortened(self._next_s)
        self._next_s = min(2 * self._next_s, self._settings.reconnect_max_s)
        return wait_s

    def _shortened(self, wait_s: float) -> float:
        return wait_s * self._rng.uniform(0.5, 1.0)
