"""A lease that is kept, whatever its owner waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Self

from fer_stream.broker.lease import Lease
from fer_stream.errors import FerStreamError

_log = logging.getLogger(__name__)


class HeldLease:
    """A lease that is ours, lengthened by a thread of its own until `stop` is set; leaving the context gives it back.

    Nothing but its own server can cost it: no other server that is away, and no camera that hangs. When it is lost,
    or `stop` is set, what it was held for is `over`, and the thread calls `end`. After `stop` three quarters of
    `ttl_s` at the least are left to come to an end. `what` names in the log what the lease is for.
    """

    def __init__(self, lease: Lease, what: str, *, stop: Event, end: Callable[[], object] = lambda: None) -> None:
        self.over = Event()
        self._lease = lease
        self._what = what
        self._stop = stop
        self._end = end
        self._left = False

    def __enter__(self) -> Self:
        Thread(target=self._keep, name=f"lease of {self._what}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._lease.release()

    def _keep(self) -> None:
        while not self._stop.wait(self._lease.ttl_s / 4):
            ours = self._left or self._lengthened()
            if self._left:
                return
            if not ours:
                _log.error("the lease of %s ran out or another process took it over", self._what)
                break
        self.over.set()
        self._end()

    def _lengthened(self) -> bool:
        try:
            return self._lease.keep()
        except FerStreamError as error:
            _log.error("%s", error)
            return True
