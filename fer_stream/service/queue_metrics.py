"""What waits in one shard and who works on it, for metrics: told by the process that owns the shard's timelines."""

from __future__ import annotations

import time

from fer_stream.broker.queue import RedisQueue
from fer_stream.metrics import Metrics

# Two round trips per source, so that 64 sources cost about 1 % of a core.
_LOOK_S = 2.0


class ShardWatch:
    """Looks at the queue of one shard now and then. `queue` serves that shard alone."""

    def __init__(self, shard: int, queue: RedisQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._shard = shard
        self._depth = metrics.queue_depth.labels(shard)
        self._oldest_age = metrics.queue_oldest_age.labels(shard)
        self._metrics = metrics
        self._looked_s = float("-inf")

    def look(self) -> None:
        """Look again where it is time to."""
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        self._looked_s = time.monotonic()
        sources = [keys.source for keys in self._queue.directory.listed([self._shard])]
        self._depth.set(self._queue.depth())
        oldest = [crop.captured_at for crop in self._queue.oldest(sources).values() if crop]
        self._oldest_age.set(max(0.0, time.time() - min(oldest)) if oldest else 0.0)
        # Workers sign on where there are sources; without any there is nobody to be missed.
        if sources:
            self._metrics.queue_consumers.labels(self._shard).set(self._queue.workers())
