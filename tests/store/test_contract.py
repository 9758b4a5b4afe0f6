"""Contract of the result store, for all implementations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.records import Gap, LabelledFrame, Segment, unix_time
from fer_stream.store.protocol import (
    PREVIEW_MAX_AGE_S,
    START,
    CameraState,
    Checkpoint,
    Preview,
    ResultStore,
    Retention,
    position_of,
)
from fer_stream.store.redis import SOURCES, RedisStore
from fer_stream.store.schemas import frame_document, stored_gap, stored_segment
from tests.support.memory_store import MemoryStore
from tests.support.waiting import wait_until

MakeFrame = Callable[..., LabelledFrame]
MakeSegment = Callable[..., Segment]
MakeGap = Callable[..., Gap]
MakeStore = Callable[..., ResultStore]

CHECKPOINT = Checkpoint("1767225600000-3", b"\x00\xff state", {"door/2026-01-01.frames.csv": 4711})


class ShiftedTime:
    """Time of the store, which a test can advance."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.urls: list[str] = []

    def wall(self) -> float:
        return time.time() + self.offset_s

    def monotonic(self) -> float:
        return time.monotonic() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Advance the clocks; on a server, reduce the TTL of all keys and the update times of the sources."""
        self.offset_s += seconds
        for url in self.urls:
            with redis.Redis.from_url(url) as client:
                for key in client.scan_iter():
                    if (ttl_ms := client.pttl(key)) >= 0:
                        client.pexpire(key, round(ttl_ms - 1000 * seconds))
                for source in client.zrange(SOURCES, 0, -1):
                    client.zincrby(SOURCES, -seconds, source)


@pytest.fixture
def shifted_time() -> ShiftedTime:
    return ShiftedTime()


@pytest.fixture(params=["memory", "valkey", "redis"])
def make_store(request: pytest.FixtureRequest, shifted_time: ShiftedTime) -> Iterator[MakeStore]:
    """Return a factory of empty stores with a given retention."""
    links: list[RedisClient] = []
    stores: list[RedisStore] = []

    def make(retention: Retention | None = None) -> ResultStore:
        if request.param == "memory":
            return MemoryStore(retention, clock=shifted_time.wall)
        url = request.getfixturevalue(f"{request.param}_url")
        with redis.Redis.from_url(url) as client:
            client.flushall()
        shifted_time.urls.append(url)
        links.append(open_client(url, retry_timeout_s=5))
        stores.append(RedisStore(links[-1], retention=retention, monotonic=shifted_time.monotonic))
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


def test_empty_store_returns_nothing(store: ResultStore) -> None:
    assert store.sources() == []
    assert store.latest("door") is None
    assert all_results(store) == []
    assert store.checkpoint("door") is None
    assert store.state("door") is None
    assert store.segments("door", 0, math.inf) == []
    assert store.gaps("door", 0, math.inf) == []
    assert store.erase("door", 0, math.inf) == 0


def test_results_are_returned_in_order_and_the_last_is_the_latest(store: ResultStore, frame: MakeFrame) -> None:
    sent = [frame(0), frame(1, faces=0), frame(4, faces=3)]
    assert store.publish("door", sent[:2]) == 2
    assert store.publish("door", sent[2:]) == 1
    assert [frame_document(got) for got in all_results(store)] == [frame_document(one) for one in sent]
    documents = [frame_document(one) for one in sent]
    assert store.result_documents("door", START, 10, 0) == documents
    assert store.latest_document("door") == documents[2]
    latest = store.latest("door")
    assert latest is not None
    assert frame_document(latest) == documents[2]
    assert store.sources() == ["door"]


def test_publishing_no_frames_changes_nothing(store: ResultStore) -> None:
    assert store.publish("door", []) == 0
    assert all_results(store) == []


def test_sources_are_separate(store: ResultStore, frame: MakeFrame) -> None:
    store.publish("yard", [frame(0, source="yard")])
    store.publish("door", [frame(1)])
    assert store.sources() == ["door", "yard"]
    assert indices(all_results(store, "yard")) == [0]
    assert indices(all_results(store, "door")) == [1]


def test_frames_published_twice_are_added_once(store: ResultStore, frame: MakeFrame) -> None:
    frames = [frame(index) for index in range(5)]
    assert store.publish("door", frames) == 5
    assert store.publish("door", frames) == 0
    assert store.publish("door", [frame(3), frame(4), frame(5)]) == 1
    assert indices(all_results(store)) == [0, 1, 2, 3, 4, 5]
    latest = store.latest("door")
    assert latest is not None
    assert latest.index == 5


def test_new_session_starts_at_index_0_and_ends_the_previous_one(
    store: ResultStore, frame: MakeFrame, session_ms: int
) -> None:
    store.publish("door", [frame(7)])
    assert store.publish("door", [frame(0, stream_start_ms=session_ms + 1), frame(8)]) == 1
    assert [position_of(one) for one in all_results(store)] == [f"{session_ms}-7", f"{session_ms + 1}-0"]


def test_stream_id_without_session_start_is_rejected(store: ResultStore) -> None:
    with pytest.raises(ValueError, match=r"stream id with a session start, .* received clip\.mp4"):
        store.publish("clip", [LabelledFrame("clip.mp4", 0, 0.0, ())])


def test_reading_continues_after_a_position(store: ResultStore, frame: MakeFrame) -> None:
    store.publish("door", [frame(index) for index in range(6)])
    first = store.results("door", START, 4, 0)
    assert indices(first) == [0, 1, 2, 3]
    assert indices(store.results("door", position_of(first[-1]), 4, 0)) == [4, 5]
    assert store.results("door", position_of(frame(5)), 4, 0) == []


def test_reading_waits_for_the_first_result(store: ResultStore, frame: MakeFrame) -> None:
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(store.results, "door", START, 4, 60)
        store.publish("door", [frame(0)])
        assert indices(found.result(60)) == [0]
    assert store.results("door", position_of(frame(0)), 4, 0.05) == []


def test_oldest_results_are_trimmed(make_store: MakeStore, frame: MakeFrame) -> None:
    store = make_store(Retention(results=100))
    for start in range(0, 1000, 50):
        store.publish("door", [frame(index) for index in range(start, start + 50)])
    kept = indices(all_results(store))
    assert kept[-100:] == list(range(900, 1000))
    assert len(kept) <= 300


def test_old_results_expire(make_store: MakeStore, frame: MakeFrame, session_ms: int) -> None:
    store = make_store(Retention(frames_s=30))
    # The session started a minute ago and a frame lasts 0.2 s: the first 150 frames are older than 30 s.
    store.publish("door", [frame(index) for index in range(100)])
    assert all_results(store) == []
    store.publish("door", [frame(index) for index in range(100, 200)])
    kept = indices(all_results(store))
    assert 140 < kept[0] < 165
    assert kept == list(range(kept[0], 200))


def test_commit_replaces_the_checkpoint_and_adds_segments_and_gaps(
    store: ResultStore, segment: MakeSegment, gap: MakeGap
) -> None:
    store.commit("door", CHECKPOINT, [segment(0, 2), segment(1, 3, person_id=2)], [gap(4, 5)])
    assert store.checkpoint("door") == CHECKPOINT
    assert store.segment_documents("door", 0, math.inf) == [
        stored_segment(segment(0, 2)), stored_segment(segment(1, 3, person_id=2)),
    ]  # fmt: skip
    assert store.gap_documents("door", 0, math.inf) == [stored_gap(gap(4, 5))]
    later = Checkpoint("1767225600000-9", b"", {})
    store.commit("door", later, [segment(6, 8)], [])
    assert store.checkpoint("door") == later
    assert store.segments("door", 0, math.inf) == [segment(0, 2), segment(1, 3, person_id=2), segment(6, 8)]
    assert store.gaps("door", 0, math.inf) == [gap(4, 5)]
    assert store.sources() == ["door"]
    assert store.checkpoint("yard") is None


def test_segment_committed_twice_is_stored_once(store: ResultStore, segment: MakeSegment, gap: MakeGap) -> None:
    for _ in range(2):
        store.commit("door", CHECKPOINT, [segment(0, 2)], [gap(2, 3)])
    assert store.segments("door", 0, math.inf) == [segment(0, 2)]
    assert store.gaps("door", 0, math.inf) == [gap(2, 3)]


def test_segments_and_gaps_are_selected_by_wall_time(
    store: ResultStore, segment: MakeSegment, gap: MakeGap, session_ms: int
) -> None:
    long, short, last = segment(0, 30, person_id=2), segment(1, 2), segment(20, 21)
    store.commit("door", CHECKPOINT, [short, last], [gap(1, 2)])
    store.commit("door", CHECKPOINT, [long], [gap(3, 40)])

    def found(from_s: float, to_s: float) -> list[Segment]:
        return store.segments("door", *(unix_time(f"door@{session_ms}", time_s) for time_s in (from_s, to_s)))

    assert found(-10, 100) == [long, short, last]
    assert found(5, 10) == [long]
    assert found(2, 20) == [long, short]
    assert found(0, 1) == [long]
    assert found(31, 100) == []
    assert found(-10, 0) == []
    at = unix_time(f"door@{session_ms}", 10)
    assert store.gaps("door", at, at + 1) == [gap(3, 40)]


def test_segment_without_duration_is_selected(store: ResultStore, segment: MakeSegment, session_ms: int) -> None:
    store.commit("door", CHECKPOINT, [segment(5, 5)], [])
    at = unix_time(f"door@{session_ms}", 5)
    assert store.segments("door", at, at + 1) == [segment(5, 5)]


def test_old_segments_and_gaps_expire(make_store: MakeStore, segment: MakeSegment, gap: MakeGap) -> None:
    store = make_store(Retention(segments_days=30 / 86_400))
    store.commit("door", CHECKPOINT, [segment(0, 10), segment(5, 55)], [gap(0, 10), gap(5, 55)])
    assert store.segments("door", 0, math.inf) == [segment(5, 55)]
    assert store.gaps("door", 0, math.inf) == [gap(5, 55)]
    assert store.checkpoint("door") == CHECKPOINT


def test_camera_state_expires_if_it_is_not_repeated(make_store: MakeStore, shifted_time: ShiftedTime) -> None:
    store = make_store(Retention(state_s=60))
    down = CameraState(False, 1767225600.25, "unauthorized", "401 Unauthorized", failures=3)
    store.set_state("door", down)
    assert store.state("door") == down
    assert store.sources() == ["door"]
    up = CameraState(True, 1767225601.5, width=1920, height=1080)
    store.set_state("door", up)
    assert store.state("door") == up
    shifted_time.advance(61)
    assert store.state("door") is None


def test_end_of_the_next_segment(store: ResultStore, segment: MakeSegment, session_ms: int) -> None:
    assert store.next_segment_end("door", 0) is None
    store.commit("door", CHECKPOINT, [segment(0, 30), segment(1, 2), segment(40, 41)], [])
    first, second, third = (unix_time(f"door@{session_ms}", time_s) for time_s in (2, 30, 41))
    assert store.next_segment_end("door", 0) == pytest.approx(first, abs=1e-5)
    assert store.next_segment_end("door", first + 0.1) == pytest.approx(second, abs=1e-5)
    assert store.next_segment_end("door", second + 0.1) == pytest.approx(third, abs=1e-5)
    assert store.next_segment_end("door", third + 0.1) is None
    assert store.next_segment_end("yard", 0) is None


def test_preview_requests_are_returned_per_source(store: ResultStore) -> None:
    assert store.preview_requests([]) == set()
    assert store.preview_requests(["door", "yard"]) == set()
    store.request_previews("door")
    store.request_previews("door")
    assert store.preview_requests(["door", "yard"]) == {"door"}
    assert store.preview_requests(["yard"]) == set()
    assert store.sources() == []


def test_newest_preview_is_available_until_it_is_too_old(store: ResultStore, shifted_time: ShiftedTime) -> None:
    assert store.preview("door") is None
    jpeg = bytes(range(256)) * 100
    sent = [Preview("door@1", index, 1280, 720, jpeg) for index in range(2)]

    def received(preview: Preview) -> bool:
        # A listener receives only what is sent after it has subscribed.
        store.set_preview("door", preview)
        return store.preview("door") == preview

    for preview in sent:
        wait_until(lambda preview=preview: received(preview))  # type: ignore[misc]
    assert store.preview("yard") is None

    def expired() -> bool:
        # A preview that was sent repeatedly can be received after the clock was advanced.
        shifted_time.advance(PREVIEW_MAX_AGE_S + 1)
        return store.preview("door") is None

    wait_until(expired)


def test_erase_deletes_results_and_segments_of_the_range_only(
    store: ResultStore, frame: MakeFrame, segment: MakeSegment, gap: MakeGap, session_ms: int
) -> None:
    store.publish("door", [frame(index) for index in range(50)])
    store.publish("yard", [frame(0, source="yard")])
    store.commit("door", CHECKPOINT, [segment(0, 1), segment(1.5, 2.5), segment(3, 9), segment(8, 9)], [gap(2, 3)])
    from_s, to_s = unix_time(f"door@{session_ms}", 2), unix_time(f"door@{session_ms}", 4)
    assert store.erase("door", from_s, to_s) == 10 + 2
    assert indices(all_results(store)) == [*range(10), *range(20, 50)]
    assert store.segments("door", 0, math.inf) == [segment(0, 1), segment(8, 9)]
    assert store.gaps("door", 0, math.inf) == [gap(2, 3)]
    assert store.checkpoint("door") == CHECKPOINT
    assert len(all_results(store, "yard")) == 1
    latest = store.latest("door")
    assert latest is not None
    assert latest.index == 49
    assert store.erase("door", from_s, to_s) == 0


def test_erased_results_are_not_added_again(store: ResultStore, frame: MakeFrame) -> None:
    frames = [frame(index) for index in range(1200)]
    store.publish("door", frames)
    assert store.erase("door", -math.inf, math.inf) == 1200
    assert store.latest("door") is None
    assert all_results(store) == []
    assert store.publish("door", frames) == 0
    assert store.publish("door", [frame(1200)]) == 1
    assert indices(all_results(store)) == [1200]


def test_source_is_listed_until_all_of_its_data_expired(make_store: MakeStore, shifted_time: ShiftedTime) -> None:
    store = make_store(Retention(frames_s=60, segments_days=60 / 86_400, state_s=30))
    store.set_state("yard", CameraState(True, 0))
    shifted_time.advance(50)
    store.set_state("door", CameraState(True, 0))
    assert store.sources() == ["door", "yard"]
    shifted_time.advance(50)
    store.set_state("door", CameraState(True, 0))
    assert store.sources() == ["door"]
