"""Faults specific to the queue on Redis: dead processes, restarted servers, servers at their memory limit."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import redis
from redis.cluster import RedisCluster

from fer_stream.broker.client import Connection, RedisClient, open_client
from fer_stream.broker.codec import encode
from fer_stream.broker.consumer import ConsumerOptions
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.lease import Lease
from fer_stream.broker.protocols import JOURNAL_START, Counts, DeadReason, Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.source_registry import COUNTS_EXPIRE_MS, GROUP, SHARDS, SOURCES, SourceKeys
from fer_stream.errors import ConfigError, LeaseLost, QueueError
from fer_stream.records import FaceCrop, FaceKey, FrameHeader, Prediction, shard_of
from tests.support.waiting import wait_until

MakeCrop = Callable[..., FaceCrop]
Predict = Callable[[FaceCrop], Prediction]
Server = tuple[str, bool]

STREAM = "door@1"
DOOR = SourceKeys("door", 1)
SHORT_POLL = ConsumerOptions(poll_timeout_s=0.05)

_WORKER = """
import sys, time
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.client import open_client
from fer_stream.broker.consumer import ConsumerOptions
url, cluster = sys.argv[1], sys.argv[2] == "True"
options = ConsumerOptions("killed", poll_timeout_s=5)
batch = RedisQueue(open_client(url, cluster=cluster), consumer=options).receive(8, 0)
print(len(batch), flush=True)
time.sleep(60)
"""


def connect(server: Server) -> redis.Redis | RedisCluster:
    url, cluster = server
    return RedisCluster.from_url(url, protocol=2) if cluster else redis.Redis.from_url(url, protocol=2)


def node_of_door(conn: redis.Redis | RedisCluster) -> redis.Redis:
    """Return a client of the server that stores the crops of DOOR."""
    if isinstance(conn, redis.Redis):
        return conn
    node: redis.Redis = conn.get_node_from_key(DOOR.crops).redis_connection  # type: ignore[no-untyped-call]
    return node


def clients_of(node: redis.Redis) -> list[dict[str, object]]:
    return cast(list[dict[str, object]], node.client_list())


def expire_in_flight(connection: Connection, redelivery: Redelivery) -> None:
    """End the visibility timeout of all crops of DOOR in flight."""
    in_flight: list[dict[str, Any]] = connection.xpending_range(DOOR.crops, GROUP, "-", "+", 1000)
    idle_ms = round(1000 * redelivery.visibility_timeout_s)
    for pending in in_flight:
        ids = [pending["message_id"]]
        connection.xclaim(DOOR.crops, GROUP, pending["consumer"], 0, ids, idle=idle_ms, justid=True)


def published(journal: RedisJournal) -> list[FaceKey]:
    entries = journal.read({"door": JOURNAL_START}, 10_000, 0)
    return [entry.message.face.key for entry in entries if isinstance(entry.message, Prediction)]


def test_crops_of_a_killed_worker_are_redelivered_and_published_once(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict
) -> None:
    redelivery = Redelivery(visibility_timeout_s=60)
    capture = RedisQueue(client, overflow=Overflow.file())
    capture.enqueue([crop(frame) for frame in range(20)])
    killed = subprocess.Popen([sys.executable, "-c", _WORKER, server[0], str(server[1])], stdout=subprocess.PIPE)
    assert killed.stdout is not None
    assert int(killed.stdout.readline()) == 8
    killed.kill()
    killed.wait()
    killed.stdout.close()
    client.call(lambda connection: expire_in_flight(connection, redelivery))

    worker = RedisQueue(client, redelivery=redelivery, consumer=SHORT_POLL)
    redelivered = 0
    while batch := worker.receive(8, 0):
        redelivered += sum(delivery.attempt == 2 for delivery in batch if len(batch) == 1)
        worker.ack([(delivery, predict(delivery.crop)) for delivery in batch])

    assert redelivered == 8
    assert sorted(key.frame_index for key in published(RedisJournal(client))) == list(range(20))
    assert capture.counts(STREAM) == Counts(enqueued=20, acked=20)
    assert worker.depth() == 0


def test_dead_letters_contain_no_pixels(server: Server, client: RedisClient, crop: MakeCrop) -> None:
    reasons: list[DeadReason] = []
    redelivery = Redelivery(visibility_timeout_s=60, max_deliveries=1)
    options = ConsumerOptions(poll_timeout_s=0.05, on_dead=reasons.append)
    RedisQueue(client, consumer=SHORT_POLL).enqueue([crop(5)])
    RedisQueue(client, consumer=SHORT_POLL).receive(1, 0)
    client.call(lambda connection: expire_in_flight(connection, redelivery))
    queue = RedisQueue(client, redelivery=redelivery, consumer=options)
    assert queue.receive(1, 0) == []
    assert queue.counts(STREAM).dead == 1
    assert reasons == ["deliveries"]
    with connect(server) as conn:
        [(_, letter)] = conn.xrange(DOOR.dead)
    assert letter[b"reason"] == b"deliveries"
    assert (letter[b"stream_id"], letter[b"person_id"], letter[b"frame_index"]) == (b"door@1", b"1", b"5")
    assert letter[b"deliveries"] == b"1"
    assert sum(map(len, letter.values())) < 200


@pytest.mark.parametrize("data", [b"no record", encode(FrameHeader(STREAM, 1, 0.2, 0)), b""])
def test_unreadable_entries_are_dead_lettered_and_the_others_delivered(
    server: Server, client: RedisClient, crop: MakeCrop, data: bytes
) -> None:
    reasons: list[DeadReason] = []
    queue = RedisQueue(client, consumer=ConsumerOptions(poll_timeout_s=0.2, on_dead=reasons.append))
    queue.enqueue([crop(0)])
    with connect(server) as conn:
        conn.xadd(DOOR.crops, {"s": STREAM, "c": data})
    queue.enqueue([crop(1)])
    assert [delivery.crop.face.key.frame_index for delivery in queue.receive(8, 0)] == [0, 1]
    assert queue.counts(STREAM).dead == 1
    assert reasons == ["unreadable"]
    with connect(server) as conn:
        [(_, letter)] = conn.xrange(DOOR.dead)
    assert letter[b"reason"] == b"unreadable"


def test_deleted_crops_in_flight_are_counted_as_dropped(server: Server, client: RedisClient, crop: MakeCrop) -> None:
    redelivery = Redelivery(visibility_timeout_s=60)
    queue = RedisQueue(client, consumer=SHORT_POLL)
    queue.enqueue([crop(0), crop(1)])
    queue.receive(2, 0)
    client.call(lambda connection: expire_in_flight(connection, redelivery))
    with connect(server) as conn:
        conn.xtrim(DOOR.crops, maxlen=0, approximate=False)
    assert RedisQueue(client, redelivery=redelivery, consumer=SHORT_POLL).receive(2, 0) == []
    assert queue.counts(STREAM) == Counts(enqueued=2, dropped=2)


def test_replacement_worker_reclaims_the_crops_of_its_predecessor_at_once(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict
) -> None:
    dead, other = (
        RedisQueue(client, consumer=ConsumerOptions(name, poll_timeout_s=0.2)) for name in ("first", "second")
    )
    dead.enqueue([*map(crop, range(4)), crop(0, source="yard")])
    assert len(dead.receive(3, 0)) == 3
    others = other.receive(8, 0)
    assert len(others) == 2
    with connect(server) as conn:
        conn.xdel(DOOR.crops, conn.xpending_range(DOOR.crops, GROUP, "-", "+", 1, "first")[0]["message_id"])
    replacement = RedisQueue(client, consumer=ConsumerOptions("first", poll_timeout_s=0.2))
    redelivered = [*replacement.receive(8, 0), *replacement.receive(8, 0)]
    assert replacement.receive(8, 0) == []
    assert [delivery.attempt for delivery in redelivered] == [2, 2]
    results = [(delivery, predict(delivery.crop)) for delivery in (*redelivered, *others)]
    assert replacement.ack(results) == 4
    assert (replacement.counts(STREAM).pending, replacement.counts(STREAM).dropped) == (0, 1)


def test_expired_stream_is_recreated(server: Server, client: RedisClient, crop: MakeCrop) -> None:
    queue = RedisQueue(client, overflow=Overflow.live(expire_s=60), consumer=SHORT_POLL)
    queue.enqueue([crop(0)])
    queue.enqueue([crop(0, source="yard")])
    with connect(server) as conn:
        for keys in (DOOR, SourceKeys("yard", 1)):
            assert 0 < conn.pttl(keys.crops) <= 60_000
            # As the server does when the time has passed.
            conn.delete(keys.crops)
    assert queue.receive(8, 0) == []
    queue.enqueue([crop(1)])
    assert [delivery.crop.face.key.frame_index for delivery in queue.receive(8, 0)] == [1]


def test_stream_deleted_during_a_blocking_read_is_recreated(
    server: Server, client: RedisClient, crop: MakeCrop
) -> None:
    capture = RedisQueue(client)
    worker = RedisQueue(client, consumer=ConsumerOptions(poll_timeout_s=30))
    capture.enqueue([crop(0)])
    assert len(worker.receive(8, 0)) == 1

    def delete_and_enqueue() -> None:
        with connect(server) as conn:
            wait_until(lambda: any("xreadgroup" in str(info["cmd"]) for info in clients_of(node_of_door(conn))))
            conn.delete(DOOR.crops)
        capture.enqueue([crop(1)])

    deleting = threading.Thread(target=delete_and_enqueue)
    deleting.start()
    assert [delivery.crop.face.key.frame_index for delivery in worker.receive(8, 0)] == [1]
    deleting.join()


def test_worker_receives_crops_of_a_source_registered_later(client: RedisClient, crop: MakeCrop) -> None:
    worker = RedisQueue(client, consumer=ConsumerOptions(poll_timeout_s=30))
    capture = RedisQueue(client)
    enqueuing = threading.Timer(0.1, lambda: capture.enqueue([crop(0)]))
    enqueuing.start()
    assert len(worker.receive(8, 0)) == 1
    enqueuing.join()


def test_different_number_of_shards_is_rejected(client: RedisClient, server: Server) -> None:
    RedisQueue(client, shards=4)
    with pytest.raises(ConfigError, match=r"is set up for 4 shards, but queue.shards is 2.*fer:shards"):
        RedisQueue(client, shards=2)


def test_all_keys_of_a_shard_share_a_hash_tag(
    client: RedisClient, server: Server, crop: MakeCrop, predict: Predict
) -> None:
    queue = RedisQueue(
        client,
        shards=3,
        redelivery=Redelivery(visibility_timeout_s=0.05, max_deliveries=1),
        consumer=SHORT_POLL,
    )
    queue.enqueue([crop(0, source=f"cam-{number}") for number in range(6)])
    [first, *_] = queue.receive(6, 0)
    queue.ack([(first, predict(first.crop))])
    with connect(server) as conn:
        names = {key.decode() for key in conn.scan_iter(count=1000)}
    tagged = names - {SOURCES, SHARDS}
    for number in range(6):
        source = f"cam-{number}"
        assert f"fer:{{{shard_of(source, 3)}}}:crops:{source}" in tagged
    assert all(name.startswith("fer:{") for name in tagged)


def test_workers_receive_crops_of_their_shards_only(client: RedisClient, server: Server, crop: MakeCrop) -> None:
    sources = [f"cam-{number}" for number in range(8)]
    RedisQueue(client, shards=2).enqueue([crop(0, source=source) for source in sources])
    for shard in (0, 1):
        worker = RedisQueue(client, shards=2, consumer=ConsumerOptions(shards=[shard], poll_timeout_s=0.1))
        seen = {delivery.crop.face.key.stream_id.removesuffix("@1") for delivery in worker.receive(16, 0)}
        assert seen == {source for source in sources if shard_of(source, 2) == shard}


def test_repeated_enqueue_call_adds_nothing_twice(client: RedisClient, server: Server, crop: MakeCrop) -> None:
    queue = RedisQueue(client, overflow=Overflow.live(capacity=2))
    run = client.run

    def twice(script: object, keys: list[str], arguments: list[str | bytes | int]) -> object:
        first = run(script, keys, arguments)  # type: ignore[arg-type]
        assert run(script, keys, arguments) == first  # type: ignore[arg-type]
        return first

    client.run = twice  # type: ignore[method-assign, assignment]
    assert queue.enqueue([crop(frame) for frame in range(3)]) == 1
    assert queue.enqueue([crop(3)]) == 1
    client.run = run  # type: ignore[method-assign]
    assert queue.counts(STREAM) == Counts(enqueued=4, dropped=2)
    assert queue.depth() == 2


def test_only_the_owner_of_the_lease_can_enqueue_and_append(client: RedisClient, crop: MakeCrop) -> None:
    old, new = Lease(client, DOOR.lease), Lease(client, DOOR.lease)
    assert old.acquire()
    queue, journal = RedisQueue(client, lease=old), RedisJournal(client, lease=old)
    queue.enqueue([crop(0)])
    journal.append([FrameHeader(STREAM, 0, 0.0, 1)])
    old.release()
    assert new.acquire()
    with pytest.raises(LeaseLost):
        queue.enqueue([crop(1)])
    with pytest.raises(LeaseLost):
        journal.append([FrameHeader(STREAM, 1, 0.2, 1)])
    assert queue.counts(STREAM) == Counts(enqueued=1)
    assert len(journal.read({"door": JOURNAL_START}, 10, 0)) == 1


def test_positions_are_invalid_after_the_server_lost_the_journal(client: RedisClient, server: Server) -> None:
    journal, header = RedisJournal(client), FrameHeader(STREAM, 0, 0.0, 0)
    journal.append([header])
    [entry] = journal.read({"door": JOURNAL_START}, 10, 0)
    assert journal.is_valid_position("door", entry.position)
    conn = connect(server)
    conn.delete(DOOR.predictions)
    assert not journal.is_valid_position("door", entry.position)
    # As written by a server that restarted empty with its clock set back by an hour.
    milliseconds = int(entry.position.partition("-")[0])
    conn.xadd(DOOR.predictions, {"m": encode(header)}, id=f"{milliseconds - 3_600_000}-0")
    assert journal.read({"door": entry.position}, 10, 0) == []
    assert not journal.is_valid_position("door", entry.position)


def test_only_idle_workers_without_crops_in_flight_are_removed(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict
) -> None:
    queue = RedisQueue(client, consumer=ConsumerOptions("busy", poll_timeout_s=0.05))
    queue.enqueue([crop(0), crop(1)])
    idle = RedisQueue(client, consumer=ConsumerOptions("idle", poll_timeout_s=0.05))
    idle.ack([(delivery, predict(delivery.crop)) for delivery in idle.receive(1, 0)])
    queue.receive(1, 0)
    with connect(server) as conn:
        assert {info["name"] for info in conn.xinfo_consumers(DOOR.crops, GROUP)} == {b"busy", b"idle"}
        assert queue.remove_idle_consumers(idle_s=600) == 0
        assert queue.remove_idle_consumers(idle_s=0) == 1
        assert [info["name"] for info in conn.xinfo_consumers(DOOR.crops, GROUP)] == [b"busy"]


def test_polling_workers_are_counted_without_traffic(client: RedisClient) -> None:
    redelivery = Redelivery(visibility_timeout_s=0.4)
    watcher = RedisQueue(client, redelivery=redelivery)
    workers = [
        RedisQueue(client, redelivery=redelivery, consumer=ConsumerOptions(poll_timeout_s=0.02)) for _ in range(2)
    ]

    def poll() -> None:
        for worker in workers:
            assert worker.receive(1, 0) == []

    poll()
    assert watcher.consumer_count() == 0, "no source is registered"
    RedisJournal(client).append([FrameHeader(STREAM, 0, 0.0, 0)])
    started_s = time.monotonic()

    def counted_after_their_first_read_has_expired() -> bool:
        poll()
        return time.monotonic() - started_s > 0.8 and watcher.consumer_count() == 2

    wait_until(counted_after_their_first_read_has_expired)
    wait_until(lambda: watcher.consumer_count() == 0)


def test_closed_worker_is_removed_once_it_has_no_crops_in_flight(
    server: Server, client: RedisClient, crop: MakeCrop
) -> None:
    RedisQueue(client).enqueue([crop(0)])
    worker = RedisQueue(client, consumer=ConsumerOptions("leaving", poll_timeout_s=0.05))
    worker.receive(1, 0)
    worker.close()
    with connect(server) as conn:
        # It still has a crop in flight, which its removal would lose.
        assert [info["name"] for info in conn.xinfo_consumers(DOOR.crops, GROUP)] == [b"leaving"]
        conn.xack(DOOR.crops, GROUP, conn.xrange(DOOR.crops)[0][0])
        worker.close()
        assert conn.xinfo_consumers(DOOR.crops, GROUP) == []


def test_source_without_data_is_purged(
    server: Server, client: RedisClient, crop: MakeCrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_stream.broker.source_registry.PURGE_INTERVAL_S", 0.0)
    queue, journal = RedisQueue(client, consumer=SHORT_POLL), RedisJournal(client)
    queue.enqueue([crop(0), crop(0, source="yard")])
    journal.append([FrameHeader("hall@1", 0, 0.0, 0)])

    def registered() -> list[str]:
        return [keys.source for keys in queue.registry.sources([0])]

    def expire(source: str) -> None:
        keys = SourceKeys(source, 1)
        with connect(server) as conn:
            conn.delete(keys.crops, keys.predictions, keys.counts)

    for source in ("hall", "yard"):
        expire(source)
    queue.registry.purge([0])
    assert registered() == ["door", "hall", "yard"], "a capture may be about to write the first entry"
    journal.append([FrameHeader("hall@1", 1, 0.2, 0)])
    queue.registry.purge([0])
    assert registered() == ["door", "hall"]
    monkeypatch.setattr("fer_stream.broker.source_registry.REFRESH_INTERVAL_S", -1.0)
    queue.enqueue([crop(1, source="yard")])
    assert registered() == ["door", "hall", "yard"]


def test_stream_created_by_a_worker_expires(server: Server, client: RedisClient) -> None:
    RedisJournal(client).append([FrameHeader(STREAM, 0, 0.0, 0)])
    assert RedisQueue(client, consumer=SHORT_POLL).receive(8, 0) == []
    with connect(server) as conn:
        assert 0 < conn.pttl(DOOR.crops) <= COUNTS_EXPIRE_MS


def test_counts_of_the_last_two_sessions_are_kept(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict
) -> None:
    queue = RedisQueue(client, overflow=Overflow.file(), consumer=SHORT_POLL)
    for session in range(1, 31):
        queue.enqueue([crop(0, session=session)])
        queue.ack([(delivery, predict(delivery.crop)) for delivery in queue.receive(8, 0)])
    with connect(server) as conn:
        assert conn.hlen(DOOR.counts) == 2 * len(("enqueued", "acked")) + len(("call", "call:dropped", "stream_id"))
    assert queue.counts("door@28") == Counts()
    assert [queue.counts(f"door@{session}") for session in (29, 30)] == [Counts(enqueued=1, acked=1)] * 2


def test_counts_are_kept_while_crops_of_their_session_are_pending(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict
) -> None:
    queue = RedisQueue(client, overflow=Overflow.file(), consumer=SHORT_POLL)
    queue.enqueue([crop(0, session=9), crop(1, session=9)])
    queue.ack([(delivery, predict(delivery.crop)) for delivery in queue.receive(1, 0)])
    for session in (10, 11, 12):
        queue.enqueue([crop(0, session=session)])
    assert queue.counts("door@9") == Counts(enqueued=2, acked=1)
    queue.ack([(delivery, predict(delivery.crop)) for delivery in queue.receive(8, 0)])
    assert queue.counts("door@9") == Counts(enqueued=2, acked=2)
    queue.enqueue([crop(0, session=13)])
    assert [queue.counts(f"door@{session}").enqueued for session in (9, 10, 11, 12, 13)] == [0, 0, 0, 1, 1]


def test_camera_drops_its_oldest_crops_at_the_memory_limit(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict
) -> None:
    queue = RedisQueue(client, overflow=Overflow.live(capacity=100_000), consumer=ConsumerOptions(poll_timeout_s=0.2))
    queue.enqueue([crop(frame) for frame in range(100)])
    with connect(server) as conn:
        node = node_of_door(conn)
        used = int(node.info("memory")["used_memory"])
        node.config_set("maxmemory", used + 100_000)
        try:
            dropped = sum(queue.enqueue([crop(frame)]) for frame in range(100, 400))
            assert dropped > 0
            assert queue.counts(STREAM) == Counts(enqueued=400, dropped=dropped)
            node.config_set("maxmemory", 1)
            batch = queue.receive(8, 0)
            assert len(batch) == 8
            assert queue.ack([(delivery, predict(delivery.crop)) for delivery in batch]) == 8
            # No memory at all: the stream is emptied, and new crops are counted as dropped.
            lost = sum(queue.enqueue([crop(frame)]) for frame in range(400, 420))
        finally:
            node.config_set("maxmemory", 0)
    counts = queue.counts(STREAM)
    assert (counts.enqueued, counts.acked, counts.dropped) == (420, 8, dropped + lost)
    assert counts.pending == queue.depth() == 0
    assert queue.enqueue([crop(420)]) == 0


def test_file_waits_at_the_memory_limit(server: Server, client: RedisClient, crop: MakeCrop) -> None:
    queue = RedisQueue(client, overflow=Overflow.file())
    queue.enqueue([crop(0)])
    with connect(server) as conn:
        node = node_of_door(conn)
        node.config_set("maxmemory", 1)
        freeing = threading.Timer(0.2, lambda: node.config_set("maxmemory", 0))
        freeing.start()
        assert queue.enqueue([crop(1)]) == 0
        freeing.join()
    assert queue.counts(STREAM) == Counts(enqueued=2)


def test_queue_recovers_from_a_server_that_restarts_empty(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    crop: MakeCrop,
    predict: Predict,
    caplog: pytest.LogCaptureFixture,
    canary: str,
) -> None:
    port = free_port()
    process = redis_server(tmp_path, port, "--requirepass", canary)
    client = open_client(f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", retry_timeout_s=10)
    caplog.set_level("INFO")
    capture, worker, journal = RedisQueue(client), RedisQueue(client), RedisJournal(client)
    capture.enqueue([crop(0), crop(1)])
    [in_flight, _] = worker.receive(2, 0)
    process.kill()
    process.wait()
    restart = threading.Timer(0.4, redis_server, [tmp_path, port, "--requirepass", canary])
    restart.start()
    try:
        capture.enqueue([crop(2), crop(3)])
        assert worker.ack([(in_flight, predict(in_flight.crop))]) == 0
        capture.enqueue([crop(4)])
        seen: list[int] = []
        while len(seen) < 3:
            batch = worker.receive(8, 0)
            seen += [delivery.crop.face.key.frame_index for delivery in batch]
            worker.ack([(delivery, predict(delivery.crop)) for delivery in batch])
        assert seen == [2, 3, 4]
        assert [key.frame_index for key in published(journal)] == [2, 3, 4]
        assert capture.counts(STREAM) == Counts(enqueued=3, acked=3)
        assert [record.message for record in caplog.records][:2] == ["redis_unreachable", "redis_reachable"]
        assert "canary" not in caplog.text
    finally:
        restart.join()


def test_unreachable_server_raises_an_error_without_its_password(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    crop: MakeCrop,
    canary: str,
) -> None:
    port = free_port()
    process = redis_server(tmp_path, port, "--requirepass", canary)
    client = open_client(f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", retry_timeout_s=0.3)
    queue = RedisQueue(client)
    process.kill()
    process.wait()
    with pytest.raises(QueueError, match="cannot be reached") as caught:
        queue.enqueue([crop(0)])
    assert f"redis://***@127.0.0.1:{port}" in str(caught.value)
    assert "canary" not in repr(caught.value)


def test_calls_are_retried_while_a_slot_migrates(
    cluster_url: str, crop: MakeCrop, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisCluster.from_url(cluster_url) as conn:
        conn.flushall()
        slot, here = conn.keyslot(DOOR.crops), conn.get_node_from_key(DOOR.crops)
        there = next(node for node in conn.get_primaries() if node != here)
        ids = {node.name: node.redis_connection.cluster("MYID").decode() for node in (here, there)}
        client = open_client(cluster_url, cluster=True, retry_timeout_s=20)
        queue = RedisQueue(client)
        queue.enqueue([crop(0)])

        aborted = threading.Event()

        def abort_migration() -> None:
            aborted.set()
            for node in (here, there):
                node.redis_connection.cluster("SETSLOT", slot, "STABLE")

        # During migration the server replies TRYAGAIN: crops and counts are here, the lease can be there.
        there.redis_connection.cluster("SETSLOT", slot, "IMPORTING", ids[here.name])
        here.redis_connection.cluster("SETSLOT", slot, "MIGRATING", ids[there.name])
        aborting = threading.Timer(1.5, abort_migration)
        aborting.start()
        try:
            queue.enqueue([crop(1)])
            assert aborted.is_set()
        finally:
            aborting.join()
        assert queue.counts(STREAM) == Counts(enqueued=2)
        assert "redis_unreachable" in caplog.text
        client.close()


def test_password_is_not_stored_in_redis(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict, canary: str
) -> None:
    queue = RedisQueue(client, consumer=SHORT_POLL)
    queue.enqueue([crop(0), crop(1)])
    [first, _] = queue.receive(2, 0)
    queue.ack([(first, predict(first.crop))])
    with connect(server) as conn:
        for key in conn.scan_iter(count=1000):
            dump = conn.dump(key)
            assert dump is not None
            assert canary.encode() not in key + dump
            assert b"canary" not in key + dump


def test_source_without_faces_is_registered(client: RedisClient) -> None:
    journal = RedisJournal(client)
    journal.append([FrameHeader(STREAM, 0, 0.0, 0)])
    assert [keys.source for keys in journal.registry.sources([0], fresh=True)] == ["door"]


def test_user_with_the_documented_permissions_can_run_all_operations(
    server: Server, client: RedisClient, crop: MakeCrop, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, cluster = server
    permissions = ["+@read", "+@write", "+@stream", "+@scripting", "+@connection", "+time"]
    permissions += ["+cluster|slots", "+cluster|shards", "+command"] if cluster else []
    with connect(server) as conn:
        nodes = conn.get_primaries() if isinstance(conn, RedisCluster) else []  # type: ignore[no-untyped-call]
        for node in [node.redis_connection for node in nodes] or [conn]:
            node.acl_setuser("worker", enabled=True, passwords=["+canary"], commands=permissions, keys=["fer:*"])
    host = url.rpartition("@")[2]
    restricted_url = url.replace("unix://", "unix://worker@") + "?password=canary"
    if "@" in url:
        restricted_url = f"redis://worker:canary@{host}"
    restricted = open_client(restricted_url, cluster=cluster, retry_timeout_s=1)
    lease = Lease(restricted, DOOR.lease)
    assert lease.acquire()
    redelivery = Redelivery(visibility_timeout_s=0.05, max_deliveries=1)
    queue = RedisQueue(
        restricted,
        lease=lease,
        redelivery=redelivery,
        overflow=Overflow.live(capacity=3),
        consumer=SHORT_POLL,
    )
    journal = RedisJournal(restricted, lease=lease)
    assert queue.enqueue([crop(frame) for frame in range(4)]) == 1
    first, *_ = queue.receive(3, 0)
    queue.ack([(first, predict(first.crop))])
    assert RedisQueue(restricted).consumer_count() == 1
    wait_until(lambda: queue.receive(1, 0) == [] and not queue.counts(STREAM).pending)
    assert queue.counts(STREAM) == Counts(enqueued=4, acked=1, dropped=1, dead=2)
    journal.append([FrameHeader(STREAM, 0, 0.0, 1)])
    entries = journal.read({"door": JOURNAL_START}, 10, 0)
    journal.trim("door", entries[-1].position)
    assert queue.oldest_pending(["door"]) == {}
    queue.close()
    restricted.call(lambda conn: conn.delete(DOOR.predictions, DOOR.counts))
    monkeypatch.setattr("fer_stream.broker.source_registry.PURGE_INTERVAL_S", 0.0)
    for _ in range(2):
        queue.registry.purge([0])
    assert queue.registry.sources([0]) == []
    lease.release()
    restricted.close()
