"""Which sources there are and how many shards, as all processes know it through Redis."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import cast

from fer_stream.broker.client import Link
from fer_stream.broker.keys import SHARDS, SOURCES, Keys
from fer_stream.errors import ConfigError

_FRESH_S = 1.0
"""What was read or written longer ago is looked at again: a server that restarted empty has forgotten it."""
_TIDY_EVERY_S = 60.0


class Directory:
    """The list of sources. Refuses to work where Redis holds another number of shards."""

    def __init__(self, link: Link, shards: int) -> None:
        self._link = link
        self._shards = shards
        self._added_at: dict[str, float] = {}
        self._listed: list[Keys] = []
        self._listed_at = self._tidied_at = float("-inf")
        self._gone: set[str] = set()
        self._check()

    def keys(self, source: str) -> Keys:
        """The keys of `source`, listed or not."""
        return Keys(source, self._shards)

    def add(self, source: str) -> Keys:
        """See to it that `source` is listed; its keys. Cheap enough for every put."""
        now = time.monotonic()
        if now - self._added_at.get(source, float("-inf")) > _FRESH_S:
            self._check()
            # SADD is refused at the memory limit even where it would change nothing.
            if not self._link.call(lambda client: client.sismember(SOURCES, source)):
                self._link.call(lambda client: client.sadd(SOURCES, source))
            self._added_at[source] = now
        return self.keys(source)

    def tidy(self, shards: Collection[int]) -> None:
        """Strike off the sources of `shards` of which all has expired. Looks every minute; for their owner alone.

        A source must have nothing twice in a row: a capture lists one just before it says something of it.
        """
        now = time.monotonic()
        if now - self._tidied_at < _TIDY_EVERY_S:
            return
        gone = {keys.source for keys in self.listed(shards, fresh=True) if not self._holds(keys)}
        if struck := gone & self._gone:
            self._link.call(lambda client: client.srem(SOURCES, *struck))
            self._listed_at = float("-inf")
        self._gone, self._tidied_at = gone, now

    def _holds(self, keys: Keys) -> bool:
        return bool(self._link.call(lambda client: client.exists(keys.predictions, keys.counts)))

    def listed(self, shards: Collection[int], *, fresh: bool = False) -> list[Keys]:
        """The keys of all sources in `shards`, by name; read once a second unless it must be `fresh`."""
        now = time.monotonic()
        if fresh or not self._listed or now - self._listed_at > _FRESH_S:
            self._check()
            names = self._link.call(lambda client: cast(set[bytes], client.smembers(SOURCES)))
            self._listed = [self.keys(name.decode()) for name in sorted(names)]
            self._listed_at = now
        return [keys for keys in self._listed if keys.shard in shards]

    def _check(self) -> None:
        held = self._link.call(lambda client: client.get(SHARDS))
        if held is None:
            self._link.call(lambda client: client.set(SHARDS, self._shards, nx=True))
            held = self._link.call(lambda client: client.get(SHARDS))
        if held is not None and int(cast(bytes, held)) != self._shards:
            raise ConfigError(
                f"{self._link.name} holds {int(cast(bytes, held))} shards, the settings say {self._shards}. Set the "
                f"same number everywhere, or stop all processes and delete the key {SHARDS} to change it"
            )
