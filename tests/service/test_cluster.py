"""The service with its queue on a Redis Cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from redis.cluster import RedisCluster

from fer_stream.broker.keys import shard_of

if TYPE_CHECKING:
    from tests.service.conftest import Service, Truth

SHARDS = 12


def test_a_clip_goes_through_a_cluster_unchanged(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path, cluster_url: str, redis_url: str
) -> None:
    with RedisCluster.from_url(cluster_url) as queue, redis.Redis.from_url(redis_url) as store:
        queue.flushall()
        store.flushall()
    live = service(
        sources={"door": {"url": str(clips / "one_face_smile.mp4"), "playback": "fast"}},
        queue={"url": cluster_url, "cluster": True, "shards": SHARDS},
        store={"url": redis_url},
    )
    live.worker("timeline", "--shard", str(shard_of("door", SHARDS)))
    live.worker("classify")
    live.worker("capture")
    expected = truth("one_face_smile")
    live.wait(lambda: expected.is_told_by(live, "door"), 120)
    expected.check(live, "door")
    assert live.stop() == [0, 0, 0]
