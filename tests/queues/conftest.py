"""Real servers for the queue: the embedded Valkey, Debian's Redis, and a Redis Cluster of three nodes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import redis
from redis.cluster import RedisCluster

from fer_stream.queues.embedded import EmbeddedServer
from fer_stream.records import FaceCrop, FaceKey, Prediction, Quality, stream_id_of
from fer_stream.redis_link import Link, open_link

CANARY = "canary/p@ss#w0rd"
CANARY_IN_URL = quote(CANARY, safe="")


@pytest.fixture
def crop() -> Callable[..., FaceCrop]:
    """Makes a crop of frame `frame`, whose pixels tell it from others."""

    def make(frame: int, source: str = "door", epoch: int = 1, track: int = 1) -> FaceCrop:
        return FaceCrop(
            key=FaceKey(stream_id_of(source, epoch), track, frame),
            time_s=frame / 5,
            captured_at=1_767_225_600.0 + frame / 5,
            xyxy=np.array([1, 2, 30, 40], np.float32),
            confidence=0.9,
            quality=Quality(0.8, "ok"),
            pixels=np.full((48, 48), frame % 256, np.uint8),
        )

    return make


@pytest.fixture
def answer() -> Callable[[FaceCrop], Prediction]:
    """What a classifier would say of a crop."""

    def make(crop: FaceCrop) -> Prediction:
        probs = np.full(7, 1 / 7, np.float32)
        return Prediction(
            crop.key, crop.time_s, crop.captured_at, crop.xyxy, crop.confidence, crop.quality, probs, "test-model"
        )

    return make


@pytest.fixture(scope="session")
def canary() -> str:
    """The password of Debian's Redis and of the Cluster; must be in no message and no key."""
    return CANARY


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedServer(tmp_path_factory.mktemp("valkey"), "queue") as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Debian's redis-server in a folder with options of the caller's, and waits until it answers."""
    started: list[subprocess.Popen[bytes]] = []
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("needs redis-server: apt-get install redis-server")

    def start(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [binary, "--port", str(port), "--dir", str(folder), "--save", "", "--loglevel", "warning", *options],
            stdout=subprocess.DEVNULL,
        )
        started.append(process)
        client = redis.Redis(port=port, password=CANARY if "--requirepass" in options else None)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                client.ping()
                client.close()
                return process
            except redis.ConnectionError:
                time.sleep(0.02)
        raise TimeoutError("redis-server did not answer")

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port on which nobody listens, low enough for the bus of a Cluster 10,000 above it."""

    def find() -> int:
        for _ in range(1000):
            with socket.socket() as probe, socket.socket() as bus:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1]) - 10_000
                if port < 1024:
                    continue
                try:
                    bus.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise OSError("no free port")

    return find


@pytest.fixture(scope="session")
def redis_url(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
) -> str:
    port = free_port()
    redis_server(tmp_path_factory.mktemp("redis"), port, "--requirepass", CANARY)
    return f"redis://:{CANARY_IN_URL}@127.0.0.1:{port}"


@pytest.fixture(scope="session")
def cluster_url(
    tmp_path_factory: pytest.TempPathFactory,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
) -> Iterator[str]:
    """Three primaries that share the 16,384 slots."""
    ports = [free_port() for _ in range(3)]
    options = ("--requirepass", CANARY, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with ExitStack() as stack:
        for port in ports:
            redis_server(tmp_path_factory.mktemp("node"), port, *options)
        nodes = [stack.enter_context(redis.Redis(port=port, password=CANARY, protocol=2)) for port in ports]
        bounds = [0, 5461, 10_923, 16_384]
        for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for port in ports[1:]:
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port)
        deadline = time.monotonic() + 20
        while not all(_whole(node) for node in nodes):
            assert time.monotonic() < deadline, "the cluster did not form"
            time.sleep(0.05)
        yield f"redis://:{CANARY_IN_URL}@127.0.0.1:{ports[0]}"


@pytest.fixture(params=["valkey", "redis", "cluster"])
def server(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """URL of an empty server, and whether it is a Cluster."""
    url = str(request.getfixturevalue(f"{request.param}_url"))
    cluster = request.param == "cluster"
    client = RedisCluster.from_url(url) if cluster else redis.Redis.from_url(url)
    client.flushall()
    client.close()
    return url, cluster


@pytest.fixture
def link(server: tuple[str, bool]) -> Iterator[Link]:
    url, cluster = server
    link = open_link(url, cluster=cluster, patience_s=5)
    yield link
    link.close()


def _whole(node: redis.Redis) -> bool:
    info: dict[str, str] = node.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")
