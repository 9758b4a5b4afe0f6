"""Whether a process is alive, and whether it is ready for work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from fer_stream.log import redact_secrets

# A loop may wait 30 s for the queue and 30 s for the store before it comes round. A server that is away must not pass
# for a loop that hangs: starting the process again would not bring the server back.
_HUNG_S = 90.0
_LOOK_S = 2.0
# Looking takes 5 s where a server is silent, and there are two.
_STALE_S = 15.0

_log = logging.getLogger(__name__)

Need = Callable[[], str | None]
"""What is missing, in words, or None."""


class Health:
    """What a process knows of its own health. It is asked by many threads, and asking costs nothing.

    The process is alive unless its loop, once begun, has not come round for 90 s. It is ready when its loop has begun
    and all its needs are met.
    """

    def __init__(self, role: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._role = role
        self._now = monotonic
        self._beat_s: float | None = None
        self._needs: dict[str, Need] = {}
        self._missing: dict[str, str | None] = {}
        self._looked_s = monotonic()

    def beat(self) -> None:
        """The loop came round."""
        self._beat_s = self._now()

    def need(self, name: str, need: Need) -> None:
        """From now on the process is ready only while `need` returns None. It is asked every 2 s and may take 5 s."""
        self._missing[name] = "not looked at yet"
        self._needs[name] = need

    def look(self) -> None:
        """Ask all needs. One that cannot be asked is not met."""
        for name, need in list(self._needs.items()):
            self._missing[name] = self._missing_of(name, need)
        self._looked_s = self._now()

    def _missing_of(self, name: str, need: Need) -> str | None:
        try:
            missing = need()
        except Exception as error:  # noqa: BLE001 - whoever asks must be there for the other needs, and the next time
            missing = f"cannot be asked: {type(error).__name__}"
            if missing != self._missing[name]:
                _log.exception("health of %s", name)
        return None if missing is None else redact_secrets(missing)

    def watch(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        while not stop.wait(_LOOK_S):
            self.look()

    def alive(self) -> tuple[bool, dict[str, object]]:
        """Is it alive, and what there is to say of it, for JSON."""
        silent_s = None if self._beat_s is None else self._now() - self._beat_s
        alive = silent_s is None or silent_s < _HUNG_S
        return alive, {"alive": alive, "role": self._role, "last_beat_s": silent_s and round(silent_s, 1)}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Is it ready, and what is missing, for JSON. Names sources, but holds no address and no password."""
        missing = {name: text for name, text in self._missing.items() if text is not None}
        if self._beat_s is None:
            missing["loop"] = "not begun yet"
        if (ago_s := self._now() - self._looked_s) > _STALE_S:
            missing["health"] = f"not looked at for {ago_s:.0f} s"
        return not missing, {"ready": not missing, "role": self._role, "missing": missing}
