"""What only the queue on Redis can do wrong: processes that die, servers that restart or are full."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from redis.cluster import RedisCluster

from fer_stream.broker.client import Link, open_link
from fer_stream.broker.codec import encode
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.keys import COUNTS_EXPIRE_MS, GROUP, SHARDS, SOURCES, Keys, shard_of
from fer_stream.broker.lease import Lease
from fer_stream.broker.protocols import START, Counts, DeadReason, Overflow, Redelivery
from fer_stream.broker.queue import RedisQueue
from fer_stream.errors import ConfigError, LeaseLost, QueueError
from fer_stream.records import FaceCrop, FaceKey, FrameHeader, Prediction

MakeCrop = Callable[..., FaceCrop]
Answer = Callable[[FaceCrop], Prediction]
Server = tuple[str, bool]

STREAM = "door@1"
DOOR = Keys("door", 1)

_DOOMED_WORKER = """
import sys, time
from fer_stream.broker.queue import RedisQueue
from fer_stream.broker.client import open_link
url, cluster = sys.argv[1], sys.argv[2] == "True"
batch = RedisQueue(open_link(url, cluster=cluster), consumer="doomed", idle_s=5).take(8, 0)
print(len(batch), flush=True)
time.sleep(60)
"""


def raw(server: Server) -> redis.Redis | RedisCluster:
    url, cluster = server
    return RedisCluster.from_url(url, protocol=2) if cluster else redis.Redis.from_url(url, protocol=2)


def home(client: redis.Redis | RedisCluster) -> redis.Redis:
    """The server on which the crops of the door lie."""
    if isinstance(client, redis.Redis):
        return client
    node: redis.Redis = client.get_node_from_key(DOOR.crops).redis_connection  # type: ignore[no-untyped-call]
    return node


def published(journal: RedisJournal) -> list[FaceKey]:
    entries = journal.read({"door": START}, 10_000, 0)
    return [entry.message.key for entry in entries if isinstance(entry.message, Prediction)]


def test_a_worker_killed_in_mid_batch_loses_nothing_and_repeats_nothing(
    server: Server, link: Link, crop: MakeCrop, answer: Answer
) -> None:
    redelivery = Redelivery(after_s=0.3)
    capture = RedisQueue(link, overflow=Overflow.file())
    capture.put([crop(frame) for frame in range(20)])
    doomed = subprocess.Popen(
        [sys.executable, "-c", _DOOMED_WORKER, server[0], str(server[1])], stdout=subprocess.PIPE
    )
    assert doomed.stdout is not None
    assert int(doomed.stdout.readline()) == 8
    doomed.kill()
    doomed.wait()
    doomed.stdout.close()
    killed_at = time.monotonic()

    worker = RedisQueue(link, redelivery=redelivery, idle_s=0.2)
    alone = 0
    while capture.counts(STREAM).open:
        assert time.monotonic() - killed_at < 20
        batch = worker.take(8, 0)
        alone += sum(delivery.attempt == 2 for delivery in batch if len(batch) == 1)
        worker.settle([(delivery, answer(delivery.crop)) for delivery in batch])
    print(f"recovered {alone} crops {time.monotonic() - killed_at:.2f} s after the kill")

    assert alone == 8
    assert sorted(key.frame_index for key in published(RedisJournal(link))) == list(range(20))
    assert capture.counts(STREAM) == Counts(put=20, settled=20)
    assert worker.depth() == 0


def test_dead_letters_hold_no_pixels(server: Server, link: Link, crop: MakeCrop) -> None:
    told: list[DeadReason] = []
    redelivery = Redelivery(after_s=0.05, deliveries=1)
    queue = RedisQueue(link, redelivery=redelivery, idle_s=0.05, on_dead=told.append)
    queue.put([crop(5)])
    queue.take(1, 0)
    while not queue.counts(STREAM).dead:
        queue.take(1, 0)
    assert told == ["deliveries"]
    with raw(server) as client:
        [(_, letter)] = client.xrange(DOOR.dead)
    assert letter[b"reason"] == b"deliveries"
    assert (letter[b"stream"], letter[b"track"], letter[b"frame"]) == (b"door@1", b"1", b"5")
    assert letter[b"deliveries"] == b"1"
    assert sum(map(len, letter.values())) < 200


@pytest.mark.parametrize("what", [b"no record", encode(FrameHeader(STREAM, 1, 0.2, 0)), b""])
def test_what_cannot_be_read_is_buried_and_the_others_come_through(
    server: Server, link: Link, crop: MakeCrop, what: bytes
) -> None:
    told: list[DeadReason] = []
    queue = RedisQueue(link, idle_s=0.2, on_dead=told.append)
    queue.put([crop(0)])
    with raw(server) as client:
        client.xadd(DOOR.crops, {"s": STREAM, "c": what})
    queue.put([crop(1)])
    assert [delivery.crop.key.frame_index for delivery in queue.take(8, 0)] == [0, 1]
    assert queue.counts(STREAM).dead == 1
    assert told == ["unreadable"]
    with raw(server) as client:
        [(_, letter)] = client.xrange(DOOR.dead)
    assert letter[b"reason"] == b"unreadable"


def test_crops_on_loan_that_someone_deleted_are_counted_as_dropped(
    server: Server, link: Link, crop: MakeCrop
) -> None:
    queue = RedisQueue(link, redelivery=Redelivery(after_s=0.05), idle_s=0.05)
    queue.put([crop(0), crop(1)])
    queue.take(2, 0)
    with raw(server) as client:
        client.xtrim(DOOR.crops, maxlen=0, approximate=False)
    deadline = time.monotonic() + 5
    while queue.counts(STREAM).open and time.monotonic() < deadline:
        queue.take(2, 0)
    assert queue.counts(STREAM) == Counts(put=2, dropped=2)


def test_a_worker_in_the_place_of_a_dead_one_has_its_loans_handed_out_at_once(
    server: Server, link: Link, crop: MakeCrop, answer: Answer
) -> None:
    dead, other = (RedisQueue(link, consumer=name, idle_s=0.2) for name in ("first", "second"))
    dead.put([*map(crop, range(4)), crop(0, source="yard")])
    assert len(dead.take(3, 0)) == 3
    others = other.take(8, 0)
    assert len(others) == 2
    with raw(server) as client:
        client.xdel(DOOR.crops, client.xpending_range(DOOR.crops, GROUP, "-", "+", 1, "first")[0]["message_id"])
    heir = RedisQueue(link, consumer="first", idle_s=0.2)
    again = [*heir.take(8, 0), *heir.take(8, 0)]
    assert heir.take(8, 0) == []
    assert [delivery.attempt for delivery in again] == [2, 2]
    every = [(delivery, answer(delivery.crop)) for delivery in (*again, *others)]
    assert heir.settle(every) == 4
    assert (heir.counts(STREAM).open, heir.counts(STREAM).dropped) == (0, 1)


def test_a_stream_that_expired_is_made_again(server: Server, link: Link, crop: MakeCrop) -> None:
    queue = RedisQueue(link, overflow=Overflow.live(expire_s=0.1), idle_s=0.2)
    queue.put([crop(0)])
    queue.put([crop(0, source="yard")])
    time.sleep(0.3)
    assert queue.take(8, 0) == []
    queue.put([crop(1)])
    assert [delivery.crop.key.frame_index for delivery in queue.take(8, 0)] == [1]


def test_a_stream_that_goes_while_a_worker_waits_is_no_fault(server: Server, link: Link, crop: MakeCrop) -> None:
    capture, worker = RedisQueue(link), RedisQueue(link, idle_s=5)
    capture.put([crop(0)])
    assert len(worker.take(8, 0)) == 1
    with raw(server) as client:
        timers = [
            threading.Timer(0.3, lambda: client.delete(DOOR.crops)),
            threading.Timer(0.8, lambda: capture.put([crop(1)])),
        ]
        for timer in timers:
            timer.start()
        assert [delivery.crop.key.frame_index for delivery in worker.take(8, 0)] == [1]
        for timer in timers:
            timer.join()


def test_a_worker_waits_for_sources_that_do_not_exist_yet(server: Server, link: Link, crop: MakeCrop) -> None:
    worker = RedisQueue(link, idle_s=5)
    capture = RedisQueue(link)
    late = threading.Timer(0.2, lambda: capture.put([crop(0)]))
    late.start()
    assert len(worker.take(8, 0)) == 1
    late.join()


def test_another_number_of_shards_is_refused(link: Link, server: Server) -> None:
    RedisQueue(link, shards=4)
    with pytest.raises(ConfigError, match=r"holds 4 shards, the settings say 2.*fer:shards"):
        RedisQueue(link, shards=2)


def test_all_keys_of_a_shard_share_a_hash_tag(link: Link, server: Server, crop: MakeCrop, answer: Answer) -> None:
    queue = RedisQueue(link, shards=3, redelivery=Redelivery(after_s=0.05, deliveries=1), idle_s=0.05)
    queue.put([crop(0, source=f"cam-{number}") for number in range(6)])
    [first, *_] = queue.take(6, 0)
    queue.settle([(first, answer(first.crop))])
    with raw(server) as client:
        names = {key.decode() for key in client.scan_iter(count=1000)}
    tagged = names - {SOURCES, SHARDS}
    for number in range(6):
        source = f"cam-{number}"
        assert f"fer:{{{shard_of(source, 3)}}}:crops:{source}" in tagged
    assert all(name.startswith("fer:{") for name in tagged)


def test_workers_divide_the_shards(link: Link, server: Server, crop: MakeCrop) -> None:
    sources = [f"cam-{number}" for number in range(8)]
    RedisQueue(link, shards=2).put([crop(0, source=source) for source in sources])
    for shard in (0, 1):
        worker = RedisQueue(link, shards=2, serves=[shard], idle_s=0.1)
        seen = {delivery.crop.key.stream_id.removesuffix("@1") for delivery in worker.take(16, 0)}
        assert seen == {source for source in sources if shard_of(source, 2) == shard}


def test_a_push_whose_reply_was_lost_is_not_put_twice(link: Link, server: Server, crop: MakeCrop) -> None:
    queue = RedisQueue(link, overflow=Overflow.live(capacity=2))
    run = link.run

    def twice(script: object, keys: list[str], arguments: list[str | bytes | int]) -> object:
        first = run(script, keys, arguments)  # type: ignore[arg-type]
        assert run(script, keys, arguments) == first  # type: ignore[arg-type]
        return first

    link.run = twice  # type: ignore[method-assign, assignment]
    assert queue.put([crop(frame) for frame in range(3)]) == 1
    assert queue.put([crop(3)]) == 1
    link.run = run  # type: ignore[method-assign]
    assert queue.counts(STREAM) == Counts(put=4, dropped=2)
    assert queue.depth() == 2


def test_only_the_owner_of_the_lease_may_put_and_append(link: Link, server: Server, crop: MakeCrop) -> None:
    old, new = Lease(link, DOOR.lease, ttl_s=0.1), Lease(link, DOOR.lease, ttl_s=5)
    assert old.hold()
    queue, journal = RedisQueue(link, lease=old), RedisJournal(link, lease=old)
    queue.put([crop(0)])
    journal.append([FrameHeader(STREAM, 0, 0.0, 1)])
    time.sleep(0.2)
    assert new.hold()
    with pytest.raises(LeaseLost):
        queue.put([crop(1)])
    with pytest.raises(LeaseLost):
        journal.append([FrameHeader(STREAM, 1, 0.2, 1)])
    assert queue.counts(STREAM) == Counts(put=1)
    assert len(journal.read({"door": START}, 10, 0)) == 1


def test_a_journal_that_a_server_lost_is_known_by_the_positions_it_cannot_have(link: Link, server: Server) -> None:
    journal, mark = RedisJournal(link), FrameHeader(STREAM, 0, 0.0, 0)
    journal.append([mark])
    [entry] = journal.read({"door": START}, 10, 0)
    assert journal.knows("door", entry.position)
    client = raw(server)
    client.delete(DOOR.predictions)
    assert not journal.knows("door", entry.position)
    # As a server writes that begins anew with its clock an hour back.
    milliseconds = int(entry.position.partition("-")[0])
    client.xadd(DOOR.predictions, {"m": encode(mark)}, id=f"{milliseconds - 3_600_000}-0")
    assert journal.read({"door": entry.position}, 10, 0) == []
    assert not journal.knows("door", entry.position)


def test_only_idle_workers_without_loans_are_removed(
    server: Server, link: Link, crop: MakeCrop, answer: Answer
) -> None:
    queue = RedisQueue(link, consumer="busy", idle_s=0.05)
    queue.put([crop(0), crop(1)])
    idle = RedisQueue(link, consumer="idle", idle_s=0.05)
    idle.settle([(delivery, answer(delivery.crop)) for delivery in idle.take(1, 0)])
    queue.take(1, 0)
    with raw(server) as client:
        assert {info["name"] for info in client.xinfo_consumers(DOOR.crops, GROUP)} == {b"busy", b"idle"}
        queue.tidy(idle_s=600)
        assert len(client.xinfo_consumers(DOOR.crops, GROUP)) == 2
        time.sleep(0.05)
        assert queue.tidy(idle_s=0.02) == 1
        assert [info["name"] for info in client.xinfo_consumers(DOOR.crops, GROUP)] == [b"busy"]


def test_workers_are_counted_while_they_ask_even_where_nothing_comes(link: Link) -> None:
    redelivery = Redelivery(after_s=0.5)
    watcher = RedisQueue(link, redelivery=redelivery)
    workers = [RedisQueue(link, redelivery=redelivery, idle_s=0.02) for _ in range(2)]

    def ask_for(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for worker in workers:
                assert worker.take(1, 0) == []

    ask_for(0.1)
    assert watcher.workers() == 0, "there is no source to ask for"
    RedisJournal(link).append([FrameHeader(STREAM, 0, 0.0, 0)])
    ask_for(2)
    assert watcher.workers() == 2
    time.sleep(0.6)
    assert watcher.workers() == 0


def test_a_worker_signs_off(server: Server, link: Link, crop: MakeCrop) -> None:
    RedisQueue(link).put([crop(0)])
    worker = RedisQueue(link, consumer="leaving", idle_s=0.05)
    worker.take(1, 0)
    worker.close()
    with raw(server) as client:
        # It still has a crop on loan: removing it would lose that.
        assert [info["name"] for info in client.xinfo_consumers(DOOR.crops, GROUP)] == [b"leaving"]
        client.xack(DOOR.crops, GROUP, client.xrange(DOOR.crops)[0][0])
        worker.close()
        assert client.xinfo_consumers(DOOR.crops, GROUP) == []


def test_a_source_of_which_all_has_expired_is_struck_off(
    server: Server, link: Link, crop: MakeCrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_stream.broker.source_registry._TIDY_EVERY_S", 0.0)
    queue, journal = RedisQueue(link, idle_s=0.05), RedisJournal(link)
    queue.put([crop(0), crop(0, source="yard")])
    journal.append([FrameHeader("hall@1", 0, 0.0, 0)])

    def listed() -> list[str]:
        return [keys.source for keys in queue.directory.listed([0])]

    def expire(source: str) -> None:
        keys = Keys(source, 1)
        with raw(server) as client:
            client.delete(keys.crops, keys.predictions, keys.counts)

    for source in ("hall", "yard"):
        expire(source)
    queue.directory.tidy([0])
    assert listed() == ["door", "hall", "yard"], "one may just be about to begin"
    journal.append([FrameHeader("hall@1", 1, 0.2, 0)])
    queue.directory.tidy([0])
    assert listed() == ["door", "hall"]
    time.sleep(1.1)
    queue.put([crop(1, source="yard")])
    assert len(RedisQueue(link, idle_s=2).take(8, 0)) == 2, "what comes back is listed again"


def test_a_stream_that_a_worker_makes_goes_again(server: Server, link: Link) -> None:
    RedisJournal(link).append([FrameHeader(STREAM, 0, 0.0, 0)])
    assert RedisQueue(link, idle_s=0.05).take(8, 0) == []
    with raw(server) as client:
        assert 0 < client.pttl(DOOR.crops) <= COUNTS_EXPIRE_MS


def test_counts_are_those_of_the_present_epoch_and_the_one_before(
    server: Server, link: Link, crop: MakeCrop, answer: Answer
) -> None:
    queue = RedisQueue(link, overflow=Overflow.file(), idle_s=0.05)
    for epoch in range(1, 31):
        queue.put([crop(0, epoch=epoch)])
        queue.settle([(delivery, answer(delivery.crop)) for delivery in queue.take(8, 0)])
    with raw(server) as client:
        assert client.hlen(DOOR.counts) == 2 * len(("put", "settled")) + len(("push", "push:dropped", "stream"))
    assert queue.counts("door@28") == Counts()
    assert [queue.counts(f"door@{epoch}") for epoch in (29, 30)] == [Counts(put=1, settled=1)] * 2


def test_counts_are_kept_while_something_of_their_epoch_is_open(
    server: Server, link: Link, crop: MakeCrop, answer: Answer
) -> None:
    queue = RedisQueue(link, overflow=Overflow.file(), idle_s=0.05)
    queue.put([crop(0, epoch=9), crop(1, epoch=9)])
    queue.settle([(delivery, answer(delivery.crop)) for delivery in queue.take(1, 0)])
    for epoch in (10, 11, 12):
        queue.put([crop(0, epoch=epoch)])
    assert queue.counts("door@9") == Counts(put=2, settled=1)
    queue.settle([(delivery, answer(delivery.crop)) for delivery in queue.take(8, 0)])
    assert queue.counts("door@9") == Counts(put=2, settled=2)
    queue.put([crop(0, epoch=13)])
    assert [queue.counts(f"door@{epoch}").put for epoch in (9, 10, 11, 12, 13)] == [0, 0, 0, 1, 1]


def test_at_the_memory_limit_a_camera_sheds_its_oldest_and_workers_go_on(
    server: Server, link: Link, crop: MakeCrop, answer: Answer
) -> None:
    queue = RedisQueue(link, overflow=Overflow.live(capacity=100_000), idle_s=0.2)
    queue.put([crop(frame) for frame in range(100)])
    with raw(server) as client:
        node = home(client)
        used = int(node.info("memory")["used_memory"])
        node.config_set("maxmemory", used + 100_000)
        try:
            dropped = sum(queue.put([crop(frame)]) for frame in range(100, 400))
            assert dropped > 0
            assert queue.counts(STREAM) == Counts(put=400, dropped=dropped)
            node.config_set("maxmemory", 1)
            batch = queue.take(8, 0)
            assert len(batch) == 8
            assert queue.settle([(delivery, answer(delivery.crop)) for delivery in batch]) == 8
            # Nothing fits any more: the stream is shed to the last crop, and new ones are counted as dropped.
            lost = sum(queue.put([crop(frame)]) for frame in range(400, 420))
        finally:
            node.config_set("maxmemory", 0)
    counts = queue.counts(STREAM)
    assert (counts.put, counts.settled, counts.dropped) == (420, 8, dropped + lost)
    assert counts.open == queue.depth() == 0
    assert queue.put([crop(420)]) == 0


def test_at_the_memory_limit_a_file_waits(server: Server, link: Link, crop: MakeCrop) -> None:
    queue = RedisQueue(link, overflow=Overflow.file())
    queue.put([crop(0)])
    with raw(server) as client:
        node = home(client)
        node.config_set("maxmemory", 1)
        relief = threading.Timer(0.2, lambda: node.config_set("maxmemory", 0))
        relief.start()
        assert queue.put([crop(1)]) == 0
        relief.join()
    assert queue.counts(STREAM) == Counts(put=2)


def test_a_server_that_restarts_empty_is_met_again(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    crop: MakeCrop,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
    canary: str,
) -> None:
    port = free_port()
    process = redis_server(tmp_path, port, "--requirepass", canary)
    link = open_link(f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", patience_s=10)
    capture, worker, journal = RedisQueue(link), RedisQueue(link, idle_s=1), RedisJournal(link)
    capture.put([crop(0), crop(1)])
    [on_loan, _] = worker.take(2, 0)
    process.kill()
    process.wait()
    killed_at = time.monotonic()
    restart = threading.Timer(0.4, redis_server, [tmp_path, port, "--requirepass", canary])
    restart.start()
    try:
        capture.put([crop(2), crop(3)])
        print(f"put again {time.monotonic() - killed_at:.2f} s after the kill")
        assert worker.settle([(on_loan, answer(on_loan.crop))]) == 0
        capture.put([crop(4)])
        seen: list[int] = []
        while len(seen) < 3:
            batch = worker.take(8, 0)
            seen += [delivery.crop.key.frame_index for delivery in batch]
            worker.settle([(delivery, answer(delivery.crop)) for delivery in batch])
        assert seen == [2, 3, 4]
        assert [key.frame_index for key in published(journal)] == [2, 3, 4]
        assert capture.counts(STREAM) == Counts(put=3, settled=3)
        assert "is away" in caplog.text
        assert "canary" not in caplog.text
    finally:
        restart.join()


def test_a_server_that_stays_away_is_an_error_without_its_password(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    crop: MakeCrop,
    canary: str,
) -> None:
    port = free_port()
    process = redis_server(tmp_path, port, "--requirepass", canary)
    link = open_link(f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", patience_s=0.3)
    queue = RedisQueue(link)
    process.kill()
    process.wait()
    with pytest.raises(QueueError, match="cannot be reached") as caught:
        queue.put([crop(0)])
    assert f"redis://***@127.0.0.1:{port}" in str(caught.value)
    assert "canary" not in repr(caught.value)


def test_a_slot_that_moves_to_another_node_is_waited_out(
    cluster_url: str, crop: MakeCrop, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisCluster.from_url(cluster_url) as client:
        client.flushall()
        slot, here = client.keyslot(DOOR.crops), client.get_node_from_key(DOOR.crops)
        there = next(node for node in client.get_primaries() if node != here)
        ids = {node.name: node.redis_connection.cluster("MYID").decode() for node in (here, there)}
        link = open_link(cluster_url, cluster=True, patience_s=20)
        queue = RedisQueue(link)
        queue.put([crop(0)])

        def end() -> None:
            for node in (here, there):
                node.redis_connection.cluster("SETSLOT", slot, "STABLE")

        # Half of it: crops and counts lie here still, the lease may lie there.
        there.redis_connection.cluster("SETSLOT", slot, "IMPORTING", ids[here.name])
        here.redis_connection.cluster("SETSLOT", slot, "MIGRATING", ids[there.name])
        over = threading.Timer(1.5, end)
        over.start()
        try:
            queue.put([crop(1)])
            assert not over.is_alive()
        finally:
            over.join()
        assert queue.counts(STREAM) == Counts(put=2)
        assert "is away, trying again" in caplog.text
        link.close()


def test_no_key_and_no_value_holds_the_password(
    server: Server, link: Link, crop: MakeCrop, answer: Answer, canary: str
) -> None:
    queue = RedisQueue(link, idle_s=0.05)
    queue.put([crop(0), crop(1)])
    [first, _] = queue.take(2, 0)
    queue.settle([(first, answer(first.crop))])
    with raw(server) as client:
        for key in client.scan_iter(count=1000):
            dump = client.dump(key)
            assert dump is not None
            assert canary.encode() not in key + dump
            assert b"canary" not in key + dump


def test_a_source_that_shows_nobody_is_listed(link: Link) -> None:
    journal = RedisJournal(link)
    journal.append([FrameHeader(STREAM, 0, 0.0, 0)])
    assert [keys.source for keys in journal.directory.listed([0], fresh=True)] == ["door"]


def test_a_user_with_the_documented_rights_can_do_everything(
    server: Server, link: Link, crop: MakeCrop, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, cluster = server
    rights = ["+@read", "+@write", "+@stream", "+@scripting", "+@connection", "+time"]
    rights += ["+cluster|slots", "+cluster|shards", "+command"] if cluster else []
    with raw(server) as client:
        nodes = client.get_primaries() if isinstance(client, RedisCluster) else []  # type: ignore[no-untyped-call]
        for node in [node.redis_connection for node in nodes] or [client]:
            node.acl_setuser("worker", enabled=True, passwords=["+canary"], commands=rights, keys=["fer:*"])
    place = url.rpartition("@")[2]
    limited = url.replace("unix://", "unix://worker@") + "?password=canary"
    if "@" in url:
        limited = f"redis://worker:canary@{place}"
    narrow = open_link(limited, cluster=cluster, patience_s=1)
    lease = Lease(narrow, DOOR.lease)
    assert lease.hold()
    redelivery = Redelivery(after_s=0.05, deliveries=1)
    queue = RedisQueue(narrow, lease=lease, redelivery=redelivery, overflow=Overflow.live(capacity=3), idle_s=0.05)
    journal = RedisJournal(narrow, lease=lease)
    assert queue.put([crop(frame) for frame in range(4)]) == 1
    first, *_ = queue.take(3, 0)
    queue.settle([(first, answer(first.crop))])
    assert RedisQueue(narrow).workers() == 1
    deadline = time.monotonic() + 5
    while queue.counts(STREAM).open and time.monotonic() < deadline:
        queue.take(1, 0)
    assert queue.counts(STREAM) == Counts(put=4, settled=1, dropped=1, dead=2)
    journal.append([FrameHeader(STREAM, 0, 0.0, 1)])
    entries = journal.read({"door": START}, 10, 0)
    journal.trim("door", entries[-1].position)
    assert queue.oldest(["door"]) == {}
    queue.close()
    narrow.call(lambda client: client.delete(DOOR.predictions, DOOR.counts))
    monkeypatch.setattr("fer_stream.broker.source_registry._TIDY_EVERY_S", 0.0)
    for _ in range(2):
        queue.directory.tidy([0])
    assert queue.directory.listed([0]) == []
    lease.release()
    narrow.close()
