"""All sources at a glance, looked up once for all who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fer_stream.errors import FerStreamError
from fer_stream.records import LabelledFrame
from fer_stream.store.protocol import CameraState, ResultStore

_FRESH_S = 0.5


@dataclass(frozen=True, slots=True)
class Sight:
    """What the store knows of a source now."""

    name: str
    state: CameraState | None
    latest: LabelledFrame | None


class Overview:
    """The sources of `store`. However many ask, it is read twice a second at the most.

    That it is away is told to all who wait as well: each of them would wait in turn for an answer of its own.
    """

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: Sequence[Sight] = ()
        self._failure: FerStreamError | None = None
        self._looked_s = -_FRESH_S
        self._marked: dict[str, float] = {}

    def look(self) -> Sequence[Sight]:
        """All sources, by name. Raises `QueueError` and `CodecError` as the store does."""
        with self._lock:
            if time.monotonic() - self._looked_s >= _FRESH_S:
                self._look_anew()
            if self._failure:
                raise self._failure.with_traceback(None)
            return self._seen

    def find(self, name: str) -> Sight | None:
        """One source, or None where there is none of that name."""
        return next((sight for sight in self.look() if sight.name == name), None)

    def watch(self, name: str) -> None:
        """Say that somebody looks at `name`: once a second will do."""
        now_s = time.monotonic()
        if now_s - self._marked.get(name, 0.0) >= 1.0:
            self._marked[name] = now_s
            self._store.watch(name)

    def _look_anew(self) -> None:
        try:
            self._seen, self._failure = [self._sight(name) for name in self._store.sources()], None
        except FerStreamError as error:
            self._failure = error
        self._looked_s = time.monotonic()

    def _sight(self, name: str) -> Sight:
        return Sight(name, self._store.state(name), self._store.latest(name))
