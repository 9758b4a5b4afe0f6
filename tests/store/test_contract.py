"""The contract of the result store, held by every backend."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import redis

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.records import Gap, LabelledFrame, Segment, unix_time
from fer_stream.store.protocol import (
    PREVIEW_S,
    START,
    CameraState,
    Checkpoint,
    Preview,
    ResultStore,
    Retention,
    position_of,
)
from fer_stream.store.redis import RedisStore
from fer_stream.store.schemas import frame_to_json
from tests.support.memory_store import MemoryStore

MakeFrame = Callable[..., LabelledFrame]
MakeSegment = Callable[..., Segment]
MakeGap = Callable[..., Gap]
MakeStore = Callable[..., ResultStore]

CHECKPOINT = Checkpoint("1767225600000-3", b"\x00\xff state", {"door/2026-01-01.frames.csv": 4711})


@pytest.fixture(params=["memory", "valkey", "redis"])
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """Makes an empty store with the retention that a test wants."""
    links: list[RedisClient] = []
    stores: list[RedisStore] = []

    def make(retention: Retention | None = None) -> ResultStore:
        if request.param == "memory":
            return MemoryStore(retention)
        url = request.getfixturevalue(f"{request.param}_url")
        with redis.Redis.from_url(url) as client:
            client.flushall()
        links.append(open_client(url, retry_timeout_s=5))
        stores.append(RedisStore(links[-1], retention=retention))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
    for link in links:
        link.close()


@pytest.fixture
def store(make_store: MakeStore) -> ResultStore:
    return make_store()


def all_results(store: ResultStore, source: str = "door") -> list[LabelledFrame]:
    return store.results(source, START, 100_000, 0)


def indices(frames: Sequence[LabelledFrame]) -> list[int]:
    return [frame.index for frame in frames]


def test_an_empty_store_knows_nothing(store: ResultStore) -> None:
    assert store.sources() == []
    assert store.latest("door") is None
    assert all_results(store) == []
    assert store.checkpoint("door") is None
    assert store.state("door") is None
    assert store.segments("door", 0, math.inf) == []
    assert store.gaps("door", 0, math.inf) == []
    assert store.forget("door", 0, math.inf) == 0


def test_results_come_back_in_order_and_the_last_is_the_latest(store: ResultStore, frame: MakeFrame) -> None:
    sent = [frame(0), frame(1, faces=0), frame(4, faces=3)]
    assert store.publish("door", sent[:2]) == 2
    assert store.publish("door", sent[2:]) == 1
    assert [frame_to_json(got) for got in all_results(store)] == [frame_to_json(one) for one in sent]
    latest = store.latest("door")
    assert latest is not None
    assert frame_to_json(latest) == frame_to_json(sent[2])
    assert store.sources() == ["door"]


def test_nothing_to_publish_is_nothing(store: ResultStore) -> None:
    assert store.publish("door", []) == 0
    assert all_results(store) == []


def test_sources_do_not_mix(store: ResultStore, frame: MakeFrame) -> None:
    store.publish("yard", [frame(0, source="yard")])
    store.publish("door", [frame(1)])
    assert store.sources() == ["door", "yard"]
    assert indices(all_results(store, "yard")) == [0]
    assert indices(all_results(store, "door")) == [1]


def test_publishing_twice_adds_nothing_twice(store: ResultStore, frame: MakeFrame) -> None:
    frames = [frame(index) for index in range(5)]
    assert store.publish("door", frames) == 5
    assert store.publish("door", frames) == 0
    assert store.publish("door", [frame(3), frame(4), frame(5)]) == 1
    assert indices(all_results(store)) == [0, 1, 2, 3, 4, 5]
    latest = store.latest("door")
    assert latest is not None
    assert latest.index == 5


def test_a_new_epoch_begins_at_index_0_again_and_an_old_one_is_over(
    store: ResultStore, frame: MakeFrame, epoch: int
) -> None:
    store.publish("door", [frame(7)])
    assert store.publish("door", [frame(0, stream_start_ms=epoch + 1), frame(8)]) == 1
    assert [position_of(one) for one in all_results(store)] == [f"{epoch}-7", f"{epoch + 1}-0"]


def test_a_stream_without_an_epoch_is_refused(store: ResultStore) -> None:
    with pytest.raises(ValueError, match=r"stream with an epoch, .* received clip\.mp4"):
        store.publish("clip", [LabelledFrame("clip.mp4", 0, 0.0, ())])


def test_reading_goes_on_from_a_position(store: ResultStore, frame: MakeFrame) -> None:
    store.publish("door", [frame(index) for index in range(6)])
    first = store.results("door", START, 4, 0)
    assert indices(first) == [0, 1, 2, 3]
    assert indices(store.results("door", position_of(first[-1]), 4, 0)) == [4, 5]
    assert store.results("door", position_of(frame(5)), 4, 0) == []


def test_reading_waits_for_a_first_result(store: ResultStore, frame: MakeFrame) -> None:
    publish = threading.Timer(0.2, lambda: store.publish("door", [frame(0)]))
    publish.start()
    assert indices(store.results("door", START, 4, 10)) == [0]
    publish.join()
    started = time.monotonic()
    assert store.results("door", position_of(frame(0)), 4, 0.3) == []
    assert time.monotonic() - started >= 0.3


def test_the_oldest_results_make_room(make_store: MakeStore, frame: MakeFrame) -> None:
    store = make_store(Retention(results=100))
    for start in range(0, 1000, 50):
        store.publish("door", [frame(index) for index in range(start, start + 50)])
    kept = indices(all_results(store))
    assert kept[-100:] == list(range(900, 1000))
    assert len(kept) <= 300


def test_old_results_go(make_store: MakeStore, frame: MakeFrame, epoch: int) -> None:
    store = make_store(Retention(frames_s=30))
    # The epoch is a minute old and a frame 0.2 s long: the first 150 frames are older than 30 s.
    store.publish("door", [frame(index) for index in range(100)])
    assert all_results(store) == []
    store.publish("door", [frame(index) for index in range(100, 200)])
    kept = indices(all_results(store))
    assert 140 < kept[0] < 165
    assert kept == list(range(kept[0], 200))


def test_a_checkpoint_is_replaced_with_what_came_before_it(
    store: ResultStore, segment: MakeSegment, gap: MakeGap
) -> None:
    store.commit("door", CHECKPOINT, [segment(0, 2), segment(1, 3, track=2)], [gap(4, 5)])
    assert store.checkpoint("door") == CHECKPOINT
    later = Checkpoint("1767225600000-9", b"", {})
    store.commit("door", later, [segment(6, 8)], [])
    assert store.checkpoint("door") == later
    assert store.segments("door", 0, math.inf) == [segment(0, 2), segment(1, 3, track=2), segment(6, 8)]
    assert store.gaps("door", 0, math.inf) == [gap(4, 5)]
    assert store.sources() == ["door"]
    assert store.checkpoint("yard") is None


def test_a_segment_committed_again_is_there_once(store: ResultStore, segment: MakeSegment, gap: MakeGap) -> None:
    for _ in range(2):
        store.commit("door", CHECKPOINT, [segment(0, 2)], [gap(2, 3)])
    assert store.segments("door", 0, math.inf) == [segment(0, 2)]
    assert store.gaps("door", 0, math.inf) == [gap(2, 3)]


def test_segments_and_gaps_are_found_by_wall_time(
    store: ResultStore, segment: MakeSegment, gap: MakeGap, epoch: int
) -> None:
    long, short, last = segment(0, 30, track=2), segment(1, 2), segment(20, 21)
    store.commit("door", CHECKPOINT, [short, last], [gap(1, 2)])
    store.commit("door", CHECKPOINT, [long], [gap(3, 40)])

    def found(from_s: float, to_s: float) -> list[Segment]:
        return store.segments("door", *(unix_time(f"door@{epoch}", time_s) for time_s in (from_s, to_s)))

    assert found(-10, 100) == [long, short, last]
    assert found(5, 10) == [long]
    assert found(2, 20) == [long, short]
    assert found(0, 1) == [long]
    assert found(31, 100) == []
    assert found(-10, 0) == []
    at = unix_time(f"door@{epoch}", 10)
    assert store.gaps("door", at, at + 1) == [gap(3, 40)]


def test_a_moment_is_found(store: ResultStore, segment: MakeSegment, epoch: int) -> None:
    store.commit("door", CHECKPOINT, [segment(5, 5)], [])
    at = unix_time(f"door@{epoch}", 5)
    assert store.segments("door", at, at + 1) == [segment(5, 5)]


def test_old_segments_and_gaps_go(make_store: MakeStore, segment: MakeSegment, gap: MakeGap) -> None:
    store = make_store(Retention(segments_days=30 / 86_400))
    store.commit("door", CHECKPOINT, [segment(0, 10), segment(5, 55)], [gap(0, 10), gap(5, 55)])
    assert store.segments("door", 0, math.inf) == [segment(5, 55)]
    assert store.gaps("door", 0, math.inf) == [gap(5, 55)]
    assert store.checkpoint("door") == CHECKPOINT


def test_the_state_of_a_camera_is_forgotten_when_nobody_repeats_it(make_store: MakeStore) -> None:
    store = make_store(Retention(state_s=0.4))
    down = CameraState(False, 1767225600.25, "unauthorized", "401 Unauthorized", failures=3)
    store.set_state("door", down)
    assert store.state("door") == down
    assert store.sources() == ["door"]
    up = CameraState(True, 1767225601.5, width=1920, height=1080)
    store.set_state("door", up)
    assert store.state("door") == up
    time.sleep(0.6)
    assert store.state("door") is None


def test_the_end_of_the_next_segment_is_found(store: ResultStore, segment: MakeSegment, epoch: int) -> None:
    assert store.next_end("door", 0) is None
    store.commit("door", CHECKPOINT, [segment(0, 30), segment(1, 2), segment(40, 41)], [])
    first, second, third = (unix_time(f"door@{epoch}", time_s) for time_s in (2, 30, 41))
    assert store.next_end("door", 0) == pytest.approx(first, abs=1e-5)
    assert store.next_end("door", first + 0.1) == pytest.approx(second, abs=1e-5)
    assert store.next_end("door", second + 0.1) == pytest.approx(third, abs=1e-5)
    assert store.next_end("door", third + 0.1) is None
    assert store.next_end("yard", 0) is None


def test_who_is_looked_at_is_known(store: ResultStore) -> None:
    assert store.watched([]) == set()
    assert store.watched(["door", "yard"]) == set()
    store.watch("door")
    store.watch("door")
    assert store.watched(["door", "yard"]) == {"door"}
    assert store.watched(["yard"]) == set()
    assert store.sources() == []


def test_the_newest_picture_is_shown_for_a_while(store: ResultStore) -> None:
    assert store.preview("door") is None
    jpeg = bytes(range(256)) * 100
    sent = [Preview("door@1", index, 1280, 720, jpeg) for index in range(2)]
    deadline = time.monotonic() + 10
    while (seen := store.preview("door")) is None:
        assert time.monotonic() < deadline
        store.set_preview("door", sent[0])
    assert seen == sent[0]
    store.set_preview("door", sent[1])
    while store.preview("door") != sent[1]:
        assert time.monotonic() < deadline
    assert store.preview("yard") is None
    time.sleep(PREVIEW_S + 0.1)
    assert store.preview("door") is None


def test_what_is_forgotten_is_gone_and_the_rest_stays(
    store: ResultStore, frame: MakeFrame, segment: MakeSegment, gap: MakeGap, epoch: int
) -> None:
    store.publish("door", [frame(index) for index in range(50)])
    store.publish("yard", [frame(0, source="yard")])
    store.commit("door", CHECKPOINT, [segment(0, 1), segment(1.5, 2.5), segment(3, 9), segment(8, 9)], [gap(2, 3)])
    from_s, to_s = unix_time(f"door@{epoch}", 2), unix_time(f"door@{epoch}", 4)
    assert store.forget("door", from_s, to_s) == 10 + 2
    assert indices(all_results(store)) == [*range(10), *range(20, 50)]
    assert store.segments("door", 0, math.inf) == [segment(0, 1), segment(8, 9)]
    assert store.gaps("door", 0, math.inf) == [gap(2, 3)]
    assert store.checkpoint("door") == CHECKPOINT
    assert len(all_results(store, "yard")) == 1
    latest = store.latest("door")
    assert latest is not None
    assert latest.index == 49
    assert store.forget("door", from_s, to_s) == 0


def test_the_latest_is_forgotten_too_and_nothing_returns(store: ResultStore, frame: MakeFrame) -> None:
    frames = [frame(index) for index in range(1200)]
    store.publish("door", frames)
    assert store.forget("door", -math.inf, math.inf) == 1200
    assert store.latest("door") is None
    assert all_results(store) == []
    assert store.publish("door", frames) == 0
    assert store.publish("door", [frame(1200)]) == 1
    assert indices(all_results(store)) == [1200]


def test_a_source_is_listed_as_long_as_something_of_it_may_be_left(make_store: MakeStore) -> None:
    store = make_store(Retention(frames_s=1, segments_days=1 / 86_400, state_s=0.5))
    store.set_state("yard", CameraState(True, 0))
    deadline = time.monotonic() + 10
    while "yard" in store.sources():
        assert time.monotonic() < deadline
        store.set_state("door", CameraState(True, 0))
        time.sleep(0.1)
    assert store.sources() == ["door"]
