"""The names of everything in Redis that belongs to the queue.

All keys of a shard share the hash tag `{shard}`, so that they lie in one slot of a Redis Cluster and one script
may touch them together.
"""

from __future__ import annotations

from zlib import crc32

SOURCES = "fer:sources"
"""Set: the names of all sources."""

SHARDS = "fer:shards"
"""String: the number of shards that all processes must agree on."""

GROUP = "classify"
"""The consumer group of the workers on every crops stream."""

COUNTS_EXPIRE_MS = 7 * 86_400_000
"""The counts of a source that is gone are kept for a week: longer than any timeline stays open."""


def shard_of(source: str, shards: int) -> int:
    """The shard of a source: CRC-32 of its name modulo `shards`."""
    return crc32(source.encode()) % shards


class Keys:
    """The keys of one source."""

    def __init__(self, source: str, shards: int) -> None:
        self.source = source
        self.shard = shard_of(source, shards)
        self.crops = f"fer:{{{self.shard}}}:crops:{source}"
        self.predictions = f"fer:{{{self.shard}}}:predictions:{source}"
        self.counts = f"fer:{{{self.shard}}}:counts:{source}"
        self.lease = f"fer:{{{self.shard}}}:lease:capture:{source}"
        self.dead = f"fer:{{{self.shard}}}:dead"
