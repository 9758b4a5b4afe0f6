"""The service with its queue on a Redis Cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from redis.cluster import RedisCluster

from fer_stream.records import shard_of

if TYPE_CHECKING:
    from tests.service.conftest import ExpectedResults, Service

SHARDS = 12


def test_results_with_a_redis_cluster_are_those_of_run(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
    cluster_url: str,
    redis_url: str,
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
    expected = expected_results("one_face_smile")
    live.wait(lambda: expected.is_complete_in(live, "door"), 120)
    expected.assert_equal_in(live, "door")
    assert live.stop() == [0, 0, 0]
