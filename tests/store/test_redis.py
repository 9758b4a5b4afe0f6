"""Faults of a store on a server: killed processes, lost replies, the memory limit."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pytest
import redis

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.lease import Lease
from fer_stream.errors import CodecError, ConfigError, LeaseLost, QueueError, StoreFull
from fer_stream.records import Gap, LabelledFrame, Segment
from fer_stream.store.protocol import START, CameraState, Checkpoint, Retention, position_of
from fer_stream.store.redis import SOURCES, Keys, RedisStore, lease_key
from tests.support.waiting import wait_until

MakeFrame = Callable[..., LabelledFrame]
MakeSegment = Callable[..., Segment]
MakeGap = Callable[..., Gap]

DOC = Path(__file__).resolve().parents[2] / "docs" / "reference" / "store.md"
DOOR = Keys("door")
FIRST, SECOND = Checkpoint("1-0", b"first", {"a.csv": 1}), Checkpoint("2-0", b"second", {"a.csv": 2})


class Relay(Protocol):
    url: str
    lose_next: bool
    lost: int


@pytest.fixture(params=["valkey", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty server."""
    url = str(request.getfixturevalue(f"{request.param}_url"))
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def link(url: str) -> Iterator[RedisClient]:
    link = open_client(url, retry_timeout_s=5)
    yield link
    link.close()


@pytest.fixture
def raw(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, protocol=2) as client:
        yield client


@pytest.fixture(params=["valkey", "redis"])
def persistent(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    canary: str,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Return the URL of a server with an append-only file, and a function that kills and restarts it."""
    if request.param == "redis":
        port = free_port()
        options = ("--requirepass", canary, "--appendonly", "yes")
        running = [redis_server(tmp_path, port, *options)]

        url = f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}"

        def restart() -> None:
            with redis.Redis.from_url(url) as client:
                until_written(client)
            running[-1].kill()
            running[-1].wait()
            running.append(redis_server(tmp_path, port, *options))

        yield url, restart
        return

    servers = [EmbeddedServer(tmp_path, "store")]

    def restart_embedded() -> None:
        with redis.Redis.from_url(servers[-1].url) as client:
            until_written(client)
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        servers[-1].close()
        servers.append(EmbeddedServer(tmp_path, "store"))

    yield servers[0].url, restart_embedded
    servers[-1].close()


def until_written(client: redis.Redis) -> None:
    """Wait until the server has written its buffer, which takes up to 2 s on a busy disk."""
    wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)


def indices(store: RedisStore) -> list[int]:
    return [frame.index for frame in store.results("door", START, 10_000, 0)]


def test_killed_server_and_repeated_calls_neither_lose_nor_duplicate_data(
    persistent: tuple[str, Callable[[], None]], frame: MakeFrame, segment: MakeSegment, gap: MakeGap
) -> None:
    url, restart = persistent
    link = open_client(url, retry_timeout_s=10)
    store = RedisStore(link)
    frames = [frame(index) for index in range(20)]
    store.publish("door", frames)
    store.commit("door", FIRST, [segment(0, 2)], [gap(2, 3)])
    restart()
    assert store.checkpoint("door") == FIRST
    assert store.publish("door", frames) == 0
    assert store.publish("door", [frame(20)]) == 1
    store.commit("door", SECOND, [segment(3, 4)], [])
    restart()
    assert indices(store) == list(range(21))
    assert store.segments("door", 0, math.inf) == [segment(0, 2), segment(3, 4)]
    assert store.gaps("door", 0, math.inf) == [gap(2, 3)]
    assert store.checkpoint("door") == SECOND
    latest = store.latest("door")
    assert latest is not None
    assert latest.index == 20
    link.close()


def test_erased_data_stays_erased_after_a_restart(
    persistent: tuple[str, Callable[[], None]], frame: MakeFrame, segment: MakeSegment
) -> None:
    url, restart = persistent
    link = open_client(url, retry_timeout_s=10)
    store = RedisStore(link)
    frames = [frame(index) for index in range(5)]
    store.publish("door", frames)
    store.commit("door", FIRST, [segment(0, 2)], [])
    assert store.erase("door", 0, math.inf) == 6
    restart()
    assert store.publish("door", frames) == 0
    assert indices(store) == []
    assert store.segments("door", 0, math.inf) == []
    link.close()


def test_commit_with_lost_reply_is_written_once(
    url: str, raw: redis.Redis, lossy_relay: Callable[[str], Relay], segment: MakeSegment, gap: MakeGap
) -> None:
    relay = lossy_relay(url)
    link = open_client(relay.url, retry_timeout_s=10)
    lease = Lease(link, lease_key(0))
    lease.acquire()
    store = RedisStore(link, lease=lease)
    store.commit("door", FIRST, [segment(0, 1)], [])
    relay.lose_next = True
    store.commit("door", SECOND, [segment(1, 2)], [gap(2, 3)])
    assert relay.lost == 1
    assert store.checkpoint("door") == SECOND
    assert (raw.zcard(DOOR.segments), raw.zcard(DOOR.gaps)) == (2, 1)
    link.close()


def test_repeated_commit_does_not_restore_erased_data(link: RedisClient, url: str, segment: MakeSegment) -> None:
    store = RedisStore(link)
    run, calls = link.run, []

    def note(script: object, keys: object, arguments: object) -> object:
        calls.append((script, keys, arguments))
        return run(script, keys, arguments)  # type: ignore[arg-type]

    link.run = note  # type: ignore[method-assign]
    store.commit("door", FIRST, [segment(0, 1)], [])
    store.erase("door", 0, math.inf)
    assert run(*calls[0]) == 0  # type: ignore[arg-type]
    assert store.segments("door", 0, math.inf) == []


def test_results_with_lost_reply_are_stored_once(
    url: str, lossy_relay: Callable[[str], Relay], frame: MakeFrame
) -> None:
    relay = lossy_relay(url)
    link = open_client(relay.url, retry_timeout_s=10)
    store = RedisStore(link)
    store.publish("door", [frame(0)])
    relay.lose_next = True
    store.publish("door", [frame(1), frame(2)])
    assert relay.lost == 1
    assert indices(store) == [0, 1, 2]
    link.close()


def test_former_owner_of_the_lease_cannot_write(
    link: RedisClient, raw: redis.Redis, frame: MakeFrame, segment: MakeSegment, gap: MakeGap
) -> None:
    first, second = Lease(link, lease_key(0)), Lease(link, lease_key(0))
    assert first.acquire()
    old = RedisStore(link, lease=first)
    old.publish("door", [frame(0)])
    old.commit("door", FIRST, [segment(0, 1)], [])
    with pytest.raises(LeaseLost):
        RedisStore(link, lease=second).commit("door", SECOND, [], [])
    raw.delete(first.key)  # as when it expires
    assert second.acquire()
    new = RedisStore(link, lease=second)
    assert new.checkpoint("door") == FIRST
    new.publish("door", [frame(0), frame(1)])
    new.commit("door", SECOND, [segment(1, 2)], [])
    before = {key: raw.dump(key) for key in raw.scan_iter(f"{DOOR.results[:-7]}*")}

    with pytest.raises(LeaseLost, match="another process writes the timeline of this source now"):
        old.publish("door", [frame(2)])
    with pytest.raises(LeaseLost):
        old.commit("door", FIRST, [segment(5, 6)], [gap(6, 7)])
    assert {key: raw.dump(key) for key in raw.scan_iter(f"{DOOR.results[:-7]}*")} == before
    assert len(before) == 4
    assert new.segments("door", 0, math.inf) == [segment(0, 1), segment(1, 2)]
    # Readers and captures need no lease.
    RedisStore(link).set_state("door", CameraState(True, 0))
    assert RedisStore(link).checkpoint("door") == SECOND


def test_memory_limit_rejects_results_but_not_segments(
    link: RedisClient, raw: redis.Redis, frame: MakeFrame, segment: MakeSegment
) -> None:
    RedisStore(link).publish("door", [frame(0)])
    raw.config_set("maxmemory", 1)
    try:
        store = RedisStore(link)  # as after a restart of the process
        with pytest.raises(StoreFull, match="memory limit, 2 results of door were not added") as caught:
            store.publish("door", [frame(1), frame(2)])
        store.commit("door", FIRST, [segment(0, 1)], [])
        store.set_state("door", CameraState(True, 0))
        assert store.erase("door", 0, math.inf) == 2
    finally:
        raw.config_set("maxmemory", 0)
    assert "canary" not in str(caught.value)
    assert store.checkpoint("door") == FIRST
    assert store.publish("door", [frame(1), frame(2)]) == 2


def test_all_keys_of_a_source_expire(
    link: RedisClient, raw: redis.Redis, frame: MakeFrame, segment: MakeSegment, gap: MakeGap
) -> None:
    store = RedisStore(link, retention=Retention(frames_s=60, segments_days=2, state_s=30))
    store.publish("door", [frame(299)])
    store.commit("door", FIRST, [segment(0, 1)], [gap(1, 2)])
    store.set_state("door", CameraState(True, 0))
    left_s = {key.decode(): raw.ttl(key) for key in raw.scan_iter("fer:store:door:*")}
    day_s = 86_400
    limits = {
        DOOR.results: 60, DOOR.latest: 60, DOOR.state: 30, DOOR.segments: 2 * day_s, DOOR.gaps: 2 * day_s,
        DOOR.checkpoint: 7 * day_s,
    }  # fmt: skip
    assert left_s.keys() == limits.keys()
    for key, limit_s in limits.items():
        assert limit_s - 5 <= left_s[key] <= limit_s, key


def test_old_results_are_trimmed_by_the_next_ones(link: RedisClient, raw: redis.Redis, frame: MakeFrame) -> None:
    RedisStore(link).publish("door", [frame(index) for index in range(250)])
    store = RedisStore(link, retention=Retention(frames_s=20))
    store.publish("door", [frame(250)])
    assert raw.xlen(DOOR.results) < 70
    assert indices(store)[-1] == 250


@pytest.mark.parametrize("cluster", [False, True])
def test_cluster_is_rejected(cluster_url: str, cluster: bool) -> None:
    link = open_client(cluster_url, cluster=cluster)
    with pytest.raises(ConfigError, match=r"part of a Redis Cluster.*store\.url") as caught:
        RedisStore(link)
    assert "canary" not in str(caught.value)
    link.close()


def test_invalid_data_raises_codec_error(link: RedisClient, raw: redis.Redis, frame: MakeFrame) -> None:
    store = RedisStore(link)
    store.publish("door", [frame(0)])
    raw.xadd(DOOR.results, {"at": "1", "frame": "nonsense"})
    raw.zadd(DOOR.segments, {'{"v":2}': 1})
    with pytest.raises(CodecError, match=r"Invalid frame in the store.*: Invalid JSON"):
        store.results("door", position_of(frame(0)), 10, 0)
    with pytest.raises(CodecError, match="Invalid segment in the store, expected version 1"):
        store.segments("door", 0, math.inf)


def test_error_of_an_unreachable_server_does_not_contain_the_password(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    canary: str,
    frame: MakeFrame,
) -> None:
    port = free_port()
    process = redis_server(tmp_path, port, "--requirepass", canary)
    link = open_client(f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", retry_timeout_s=0.3)
    store = RedisStore(link)
    process.kill()
    process.wait()
    for call in (lambda: store.publish("door", [frame(0)]), lambda: store.results("door", START, 1, 1)):
        with pytest.raises(QueueError, match="cannot be reached") as caught:
            call()
        assert "canary" not in repr(caught.value)


def test_stored_data_does_not_contain_the_password(
    link: RedisClient, raw: redis.Redis, frame: MakeFrame, segment: MakeSegment, gap: MakeGap
) -> None:
    fill(RedisStore(link), frame, segment, gap)
    keys = list(raw.scan_iter())
    assert len(keys) == 7
    for key in keys:
        assert b"canary" not in key + (raw.dump(key) or b"")


def fill(store: RedisStore, frame: MakeFrame, segment: MakeSegment, gap: MakeGap) -> None:
    store.publish("door", [frame(index, faces=2) for index in range(3)])
    store.commit("door", FIRST, [segment(0, 1)], [gap(1, 2)])
    store.set_state("door", CameraState(False, 1767225600.5, "refused", "Connection refused", 2))


def test_consumer_in_the_docs_reads_old_and_new_results(link: RedisClient, url: str, frame: MakeFrame) -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    store = RedisStore(link)
    store.publish("door", [frame(0, faces=2), frame(1, faces=0)])
    reader = subprocess.Popen([sys.executable, "-c", example, url, "door"], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    try:
        lines = [reader.stdout.readline() for _ in range(2)]
        store.publish("door", [frame(2)])
        lines.append(reader.stdout.readline())
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "person 1 happy\n", "person 2 happy\n", "person 1 happy\n",
    ]  # fmt: skip


def test_keys_and_fields_match_the_docs(
    link: RedisClient, url: str, frame: MakeFrame, segment: MakeSegment, gap: MakeGap
) -> None:
    lease = Lease(link, lease_key(0))
    lease.acquire()
    fill(RedisStore(link, lease=lease), frame, segment, gap)
    text = DOC.read_text()
    client: Any = redis.Redis.from_url(url, protocol=2, decode_responses=True)

    for key in client.scan_iter():
        name = key.replace(":door:", ":SOURCE:").replace("timeline:0", "timeline:SHARD")
        assert f"| `{name}` | {client.type(key).replace('zset', 'sorted set')} |" in text
    documented = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    [(_, entry)] = client.xrevrange(DOOR.results, count=1)
    stored = [entry["frame"], *client.zrange(DOOR.segments, 0, 0), *client.zrange(DOOR.gaps, 0, 0)]
    for shown, found in zip(documented, map(json.loads, stored), strict=True):
        assert shown.keys() == found.keys()
    assert documented[0]["faces"][0].keys() == json.loads(stored[0])["faces"][0].keys()

    latest, state = client.hgetall(DOOR.latest), client.hgetall(DOOR.state)
    assert latest == {"id": position_of(frame(2)), **entry}
    assert state == {
        "up": "0", "since": "1767225600.500000", "reason": "refused", "text": "Connection refused", "failures": "2",
        "width": "0", "height": "0",
    }  # fmt: skip
    assert all(f"`{field}`" in text for field in (*latest, *state))
    assert client.zrange(SOURCES, 0, -1) == ["door"]
    client.close()
