"""Redis keys of the queue, and the registry of sources and of the number of shards that all processes share.

All keys of a shard contain the hash tag `{shard}`, so that they lie in one slot of a Redis Cluster and one script can
access all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, cast

from fer_stream.errors import ConfigError
from fer_stream.records import shard_of

if TYPE_CHECKING:
    from fer_stream.broker.client import RedisClient

SOURCES = "fer:sources"
"""Set of the names of all sources."""

SHARDS = "fer:shards"
"""String: the number of shards, which must be the same in all processes."""

GROUP = "classify"
"""Consumer group of the workers on every stream of crops."""

COUNTS_EXPIRE_MS = 7 * 86_400_000
"""Retention of the counts of an inactive source: a week, longer than any timeline stays open."""

REFRESH_INTERVAL_S = 1.0
"""Age at which cached registry data is read again: a server that restarted empty has lost it."""

PURGE_INTERVAL_S = 60.0
"""Minimum interval between two purges of expired sources."""


class SourceKeys:
    """Redis keys of one source."""

    def __init__(self, source: str, shards: int) -> None:
        self.source = source
        self.shard = shard_of(source, shards)
        self.crops = f"fer:{{{self.shard}}}:crops:{source}"
        self.predictions = f"fer:{{{self.shard}}}:predictions:{source}"
        self.counts = f"fer:{{{self.shard}}}:counts:{source}"
        self.lease = f"fer:{{{self.shard}}}:lease:capture:{source}"
        self.dead = f"fer:{{{self.shard}}}:dead"


class SourceRegistry:
    """Registry of sources in Redis. `clock` returns monotonic seconds.

    Every method that reaches Redis raises `ConfigError` if it holds another number of shards.
    """

    def __init__(self, client: RedisClient, shards: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._shards = shards
        self._clock = clock
        self._registered_at_s: dict[str, float] = {}
        self._sources: list[SourceKeys] = []
        self._sources_read_at_s = self._purged_at_s = float("-inf")
        self._expired: set[str] = set()
        self._check_shards()

    def keys(self, source: str) -> SourceKeys:
        """Return the keys of `source`, registered or not."""
        return SourceKeys(source, self._shards)

    def register(self, source: str) -> SourceKeys:
        """Register `source` if necessary and return its keys. Reaches Redis at most once per second and source."""
        now_s = self._clock()
        if now_s - self._registered_at_s.get(source, float("-inf")) > REFRESH_INTERVAL_S:
            self._check_shards()
            # SADD is rejected at the memory limit even if it would change nothing.
            if not self._client.call(lambda connection: connection.sismember(SOURCES, source)):
                self._client.call(lambda connection: connection.sadd(SOURCES, source))
            self._registered_at_s[source] = now_s
        return self.keys(source)

    def sources(self, shards: Collection[int], *, fresh: bool = False) -> list[SourceKeys]:
        """Return the keys of all sources in `shards`, sorted by name; at most 1 s old, or current with `fresh`."""
        now_s = self._clock()
        if fresh or not self._sources or now_s - self._sources_read_at_s > REFRESH_INTERVAL_S:
            self._check_shards()
            names = self._client.call(lambda connection: cast(set[bytes], connection.smembers(SOURCES)))
            self._sources = [self.keys(name.decode()) for name in sorted(names)]
            self._sources_read_at_s = now_s
        return [keys for keys in self._sources if keys.shard in shards]

    def purge(self, shards: Collection[int]) -> None:
        """Remove the sources of `shards` whose journal and counts have expired. Only for the owner of the shards.

        Runs at most once a minute. A source is removed when it is found empty twice in a row, because a capture
        registers a source before it writes the first entry.
        """
        now_s = self._clock()
        if now_s - self._purged_at_s < PURGE_INTERVAL_S:
            return
        expired = {keys.source for keys in self.sources(shards, fresh=True) if not self._has_data(keys)}
        if removed := expired & self._expired:
            self._client.call(lambda connection: connection.srem(SOURCES, *removed))
            self._sources_read_at_s = float("-inf")
        self._expired, self._purged_at_s = expired, now_s

    def _has_data(self, keys: SourceKeys) -> bool:
        return bool(self._client.call(lambda connection: connection.exists(keys.predictions, keys.counts)))

    def _check_shards(self) -> None:
        stored = self._client.call(lambda connection: connection.get(SHARDS))
        if stored is None:
            self._client.call(lambda connection: connection.set(SHARDS, self._shards, nx=True))
            stored = self._client.call(lambda connection: connection.get(SHARDS))
        if stored is not None and int(cast(bytes, stored)) != self._shards:
            raise ConfigError(
                f"{self._client.name} is set up for {int(cast(bytes, stored))} shards, but queue.shards is "
                f"{self._shards}. Set the same number in all processes, or stop all of them and delete the key "
                f"{SHARDS} to change it"
            )
