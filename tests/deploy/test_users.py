"""Permissions that users of queue and store must not have. test_stack.py covers those that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import redis

from fer_stream.broker.client import open_client
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.records import Face, FaceCrop, FaceKey, Quality, stream_id_of

if TYPE_CHECKING:
    from tests.deploy.conftest import Stack

FORBIDDEN = [
    ("queue", "default", "GET fer:shards"),
    ("queue", "health", "GET fer:shards"),
    ("queue", "classify", "GET fer:{0}:lease:capture:door"),
    ("queue", "classify", "FLUSHALL"),
    ("queue", "classify", "KEYS *"),
    ("queue", "capture", "CONFIG GET *"),
    ("queue", "capture", "XRANGE fer:{0}:dead - +"),
    ("queue", "timeline", "XADD fer:{0}:predictions:door * m x"),
    ("store", "capture", "ZRANGE fer:store:door:segments 0 -1"),
    ("store", "capture", "HSET fer:store:door:checkpoint position 0"),
    ("store", "capture", "DEL fer:store:door:results"),
    ("store", "timeline", "LPUSH rq:queue:fer-jobs-normal x"),
    ("store", "jobs", "XRANGE fer:store:door:results - +"),
    ("store", "web", "XADD fer:store:door:results * at 1 frame x"),
    ("store", "web", "ZADD fer:store:door:segments 1 x"),
    ("store", "web", "SET fer:store:lease:timeline:0 x"),
    ("store", "web", "FLUSHDB"),
    ("store", "web", "SHUTDOWN"),
]


def test_commands_beyond_the_role_are_denied(stack: Stack) -> None:
    stack.start_servers()
    for server, user, command in FORBIDDEN:
        assert is_denied(stack.admin(server), user, command), (server, user, command)
    for server in ("queue", "store"):
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=stack.port(server)).ping()
        redis.Redis(port=stack.port(server), username="health", password="any").ping()
    # Roles that do not use a server have no user there.
    assert set(stack.admin("queue").acl_users()) == {"default", "health", "capture", "classify", "timeline", "admin"}
    assert "classify" not in stack.admin("store").acl_users()


def test_store_keeps_transactions_over_a_restart(stack: Stack) -> None:
    """Redis 7 loads its append-only file with the permissions of the user `default`."""
    stack.start_servers()
    stack.admin("store").mset({"a": "1", "b": "2"})
    with stack.admin("store").pipeline(transaction=True) as pipeline:
        pipeline.set("c", "3")
        pipeline.set("d", "4")
        pipeline.execute()
    stack.restart_server("store")
    assert stack.admin("store").mget("a", "b", "c", "d") == ["1", "2", "3", "4"]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=stack.port("store")).ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=stack.port("store"), username="default", password="").ping()


def test_rare_operations_are_permitted(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.broker.source_registry.PURGE_INTERVAL_S", 0.0)
    stack.start_servers()
    capture, classify, timeline = (
        open_client(f"redis://{user}:{stack.secret(user)}@127.0.0.1:{stack.port('queue')}")
        for user in ("capture", "classify", "timeline")
    )
    for stream_start_ms in (1, 2, 3):  # the third removes the counts of the first
        RedisQueue(capture).enqueue([crop(stream_start_ms)])
    dead, replacement = (RedisQueue(classify, consumer=ConsumerOptions("worker")) for _ in range(2))
    assert [len(worker.receive(3, 0)) for worker in (dead, replacement)] == [3, 1]
    keys = SourceKeys("door", 1)
    stack.admin("queue").delete(keys.predictions, keys.counts)
    owner = RedisQueue(timeline)
    for _ in range(2):
        owner.registry.purge([0])
    assert owner.registry.sources([0]) == []
    assert stack.denied() == []
    for client in (capture, classify, timeline):
        client.close()


def crop(stream_start_ms: int) -> FaceCrop:
    key, box = FaceKey(stream_id_of("door", stream_start_ms), 1, 0), np.zeros(4, np.float32)
    return FaceCrop(Face(key, 0.0, 0.0, box, 0.9, Quality(0.9, "ok")), np.zeros((48, 48), np.uint8))


def is_denied(client: redis.Redis, user: str, command: str) -> bool:
    response = client.execute_command("ACL DRYRUN", user, *command.split())  # type: ignore[no-untyped-call]
    return "has no permissions" in str(response)
