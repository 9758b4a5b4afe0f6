"""Leases: exclusive write access of one capture process per source and one timeline process per shard.

A lease is a key with a token and a TTL. The lease alone stops nobody from writing. The scripts that write compare the
token (`broker/lua/fence.lua`), so a process that was suspended beyond the end of its lease writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from fer_stream.broker.client import ACQUIRE_LEASE, RELEASE_LEASE, RENEW_LEASE
from fer_stream.errors import FerStreamError
from fer_stream.log import get_logger

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient, Script

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Identity of a process. A replacement of a dead process has its `name` and the next `generation`.

    A later generation takes over the leases of earlier ones without waiting for their expiry, so the supervisor may
    start it only after the earlier process has exited.
    """

    name: str = field(default_factory=lambda: uuid4().hex)
    generation: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the output of `str`. Raises `ValueError`."""
        name, _, generation = text.rpartition(":")
        return cls(name, int(generation))

    @property
    def next_generation(self) -> Owner:
        """The owner that replaces this one."""
        return Owner(self.name, self.generation + 1)

    def __str__(self) -> str:
        return f"{self.name}:{self.generation}"


def is_held(client: RedisClient, key: str) -> bool:
    """Return whether any process holds the lease `key`."""
    return client.call(lambda connection: connection.get(key)) is not None


class Lease:
    """Write access to the resource of `key`, for `ttl_s` seconds after each `acquire` or `renew`.

    `owner` is the process that requests it, by default one that replaces no other. `clock` returns monotonic seconds.
    """

    def __init__(
        self,
        client: RedisClient,
        key: str,
        ttl_s: float = 10.0,
        *,
        owner: Owner | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self.ttl_s = ttl_s
        self._owner = owner or Owner()
        # Unique per object: a hanging thread must not write beside the thread that replaced it in the same process.
        self.token = f"{self._owner}:{uuid4().hex}"
        self._client = client
        self._clock = clock
        self._valid_until_s = float("-inf")

    def acquire(self) -> bool:
        """Acquire or extend the lease; return whether it is held now. Replaces earlier generations of the owner."""
        return self._request(ACQUIRE_LEASE, [self._owner.name, self._owner.generation])

    def renew(self) -> bool:
        """Extend the lease; return False if it expired, because another process may have held it since.

        Must be called at least every `ttl_s` / 3 seconds.
        """
        return self._request(RENEW_LEASE, [])

    @property
    def is_valid(self) -> bool:
        """True if the lease is certainly held, without asking the server. False `ttl_s` after the last renewal."""
        return self._clock() < self._valid_until_s

    def release(self) -> None:
        """Release the lease if it is held, so that the next owner need not wait for its expiry."""
        self._client.run(RELEASE_LEASE, [self.key], [self.token])

    def _request(self, script: Script, more: list[str | bytes | int]) -> bool:
        # The TTL starts on the server after this moment, so the lease is never assumed valid for too long.
        requested_s = self._clock()
        held = self._client.run(script, [self.key], [self.token, round(1000 * self.ttl_s), *more]) == 1
        self._valid_until_s = requested_s + self.ttl_s if held else float("-inf")
        return held


class AutoRenewingLease:
    """Context manager that renews an acquired lease in a thread until `stop` is set, and releases it on exit.

    The thread depends on the server of the lease only, not on other servers or cameras that block the owner. If the
    lease is lost, or `stop` is set, `lost` is set and `on_lost` is called in the thread. After `stop`, at least three
    quarters of `ttl_s` remain for shutdown. `name` identifies the lease in the log; `interval_s` between renewals is
    `ttl_s` / 4 by default.
    """

    def __init__(
        self,
        lease: Lease,
        name: str,
        *,
        stop: Event,
        on_lost: Callable[[], object] = lambda: None,
        interval_s: float | None = None,
    ) -> None:
        self.lost = Event()
        self._lease = lease
        self._name = name
        self._stop = stop
        self._on_lost = on_lost
        self._interval_s = lease.ttl_s / 4 if interval_s is None else interval_s
        self._exited = False

    def __enter__(self) -> Self:
        Thread(target=self._renew_until_lost, name=f"lease-renewal {self._name}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._exited = True
        self._lease.release()

    def _renew_until_lost(self) -> None:
        while not self._stop.wait(self._interval_s):
            held = self._exited or self._renew()
            # The lease may have been released during the renewal, which is not a loss.
            if self._exited:
                return
            if not held:
                _log.error("lease_lost", lease=self._name, key=self._lease.key)
                break
        self.lost.set()
        self._on_lost()

    def _renew(self) -> bool:
        """Renew once. An unreachable server does not prove that the lease is lost, so renewal is tried again."""
        try:
            return self._lease.renew()
        except FerStreamError as error:
            _log.error("lease_renewal_failed", lease=self._name, error=str(error))
            return True
