"""Fixtures of the broker tests: records, and a client of each kind of real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis
from redis.cluster import RedisCluster

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.records import Face, FaceCrop, FaceKey, Prediction, Quality, stream_id_of


@pytest.fixture
def crop() -> Callable[..., FaceCrop]:
    """Return a factory of crops, whose pixels equal the frame index modulo 256."""

    def make(frame: int, source: str = "door", session: int = 1, person_id: int = 1) -> FaceCrop:
        face = Face(
            key=FaceKey(stream_id_of(source, session), person_id, frame),
            time_s=frame / 5,
            captured_at=1_767_225_600.0 + frame / 5,
            xyxy=np.array([1, 2, 30, 40], np.float32),
            confidence=0.9,
            quality=Quality(0.8, "ok"),
        )
        return FaceCrop(face, np.full((48, 48), frame % 256, np.uint8))

    return make


@pytest.fixture
def predict() -> Callable[[FaceCrop], Prediction]:
    """Return a classifier with uniform probabilities."""

    def make(crop: FaceCrop) -> Prediction:
        return Prediction(crop.face, np.full(7, 1 / 7, np.float32), "test-model")

    return make


@pytest.fixture(params=["valkey", "redis", "cluster"])
def server(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """Return the URL of an empty server, and whether it is a Cluster."""
    url = str(request.getfixturevalue(f"{request.param}_url"))
    cluster = request.param == "cluster"
    client = RedisCluster.from_url(url) if cluster else redis.Redis.from_url(url)
    client.flushall()
    client.close()
    return url, cluster


@pytest.fixture
def client(server: tuple[str, bool]) -> Iterator[RedisClient]:
    url, cluster = server
    client = open_client(url, cluster=cluster, retry_timeout_s=5)
    yield client
    client.close()
