"""`fer-stream erase`: nothing of that time is left in any place, and the service goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import pytest
import redis

from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.lease import Lease
from fer_stream.broker.protocols import START
from fer_stream.config import LiveSettings, ServerSettings
from fer_stream.records import (
    FaceCrop,
    FaceKey,
    FrameHeader,
    LabelledFrame,
    Prediction,
    Quality,
    stream_start_ms,
    stream_id_of,
)
from fer_stream.service.connections import open_queue, open_queue_link, open_store, open_store_link
from fer_stream.service.erase import forget, known_sources
from fer_stream.store.protocol import Checkpoint
from fer_stream.store.redis import RedisStore, lease_key
from fer_stream.timeline.source_timeline import Horizon, SourceTimeline

if TYPE_CHECKING:
    from tests.service.conftest import Service

NEW_YEAR = 1767225600.0


def run(config: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fer_stream.cli", "erase", source, "--config", str(config), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


@pytest.fixture
def settings(redis_url: str) -> LiveSettings:
    """Queue and store, empty."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return LiveSettings.model_validate({"queue": {"url": f"{redis_url}/0"}, "store": {"url": f"{redis_url}/1"}})


def test_nothing_is_left_and_the_service_goes_on(service: Callable[..., Service], clips: Path) -> None:
    clip = str(clips / "one_face_smile.mp4")
    sources = {name: {"url": clip, "playback": "realtime", "record": name == "door"} for name in ("door", "hall")}
    live = service(sources=sources)
    live.serve()
    live.wait_for_servers()
    for name in sources:
        live.wait(lambda name=name: live.stream_id(name) and live.segments(name), 120)  # type: ignore[misc]
        live.wait(lambda name=name: live.counts(name).put and not live.counts(name).open)  # type: ignore[misc]
    live.wait(lambda: len(live.rows("door")) == len(live.rows("hall")) == len(live.results("hall")))
    live.wait(lambda: any((live.files / "door").glob("2*.mp4")))
    seen, begin = live.results("door"), stream_start_ms(live.stream_id("door")) / 1000
    kept_on_disk = [path for path in live.state_dir.rglob("*.aof") if b"door@" in path.read_bytes()]
    assert kept_on_disk

    times = ("--from", iso(begin + 0.5), "--to", iso(begin + 3600))
    told = run(live.config, "door", *times, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert len(live.results("door")) == len(seen)
    told = run(live.config, "door", *times, "--yes")
    assert told.returncode == 0, told.stderr
    print(told.stdout)

    left = [frame.index for frame in seen if frame.time_s < 0.5]
    assert [frame.index for frame in live.results("door")] == left
    assert [row for row in live.rows("door") if row] == live.rows("hall")[: len(left)]
    assert live.segments("door") == []
    assert '"segment"' not in "".join(path.read_text() for path in live.files.glob("door/*.jsonl"))
    assert not list((live.files / "door").glob("*.mp4"))
    assert len(live.results("hall")) == len(seen)
    live.wait(lambda: not any(path.exists() for path in kept_on_disk))

    # Without an answer to the question nothing is erased.
    assert run(live.config, "hall", "--from", iso(begin)).returncode == 1
    assert len(live.results("hall")) == len(seen)
    unknown = run(live.config, "dor", "--from", iso(begin))
    assert (unknown.returncode, unknown.stderr) == (2, "fer-stream: Nothing is kept of dor; there are door, hall.\n")
    assert live.stop() == [0]


def prediction(index: int) -> Prediction:
    key = FaceKey(stream_id_of("door", round(1000 * NEW_YEAR)), 1, index)
    probs = np.array([0, 0, 0, 1, 0, 0, 0], np.float32)
    return Prediction(
        key, index / 5, NEW_YEAR + index / 5, np.zeros(4, np.float32), 0.9, Quality(0.9, "ok"), probs, "test"
    )


def test_a_full_store_can_be_made_to_forget(settings: LiveSettings, redis_url: str) -> None:
    begin_ms = round(1000 * time.time())
    with redis.Redis.from_url(redis_url) as client:
        RedisJournal(open_queue_link(settings, Event()))
        store = open_store(open_store_link(settings, Event()), settings)
        store.publish("door", [LabelledFrame(stream_id_of("door", begin_ms), 0, 0.0, ())])
        client.config_set("maxmemory", 1)
        try:
            assert known_sources(settings) == {"door"}
            assert forget(settings, "door", begin_ms / 1000, begin_ms / 1000 + 1, dry_run=False).results == 1
        finally:
            client.config_set("maxmemory", 0)
    assert store.results("door", START, 1, 0) == []


def test_servers_that_are_started_to_forget_have_the_memory_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LiveSettings.model_validate({"state_dir": str(tmp_path), "store": {"max_memory_mb": 16}})
    compact, given = RedisStore.compact, list[int]()

    def look(store: RedisStore) -> bool:
        link = open_store_link(settings, Event())
        given.append(link.call(lambda client: client.info("memory")["maxmemory"]))
        return compact(store)

    monkeypatch.setattr(RedisStore, "compact", look)
    forget(settings, "door", NEW_YEAR, NEW_YEAR + 1, dry_run=False)
    assert given == [16 << 20]


def test_what_waits_is_erased_and_what_is_open_is_told(settings: LiveSettings) -> None:
    faces = [prediction(index) for index in range(50)]
    stream_id = faces[0].key.stream_id
    timeline = SourceTimeline(lambda: settings.timeline)
    timeline.add([FrameHeader(stream_id, face.key.frame_index, face.time_s, 1) for face in faces])
    timeline.add(faces)
    timeline.settle(Horizon(stream_id, 9.9))
    assert timeline.news().segments == []
    open_store(open_store_link(settings, Event()), settings).commit(
        "door", Checkpoint(START, timeline.state(), {}), [], []
    )
    journal = RedisJournal(open_queue_link(settings, Event()))
    journal.append([FrameHeader(stream_id, 50, 10.0, 1), prediction(50), prediction(51)])

    erased = forget(settings, "door", NEW_YEAR + 10, NEW_YEAR + 10.1, dry_run=False)
    assert (erased.waiting, erased.results, erased.open_since_at) == (1, 0, None)
    assert erased.compacted
    left = [entry.message for entry in journal.read({"door": START}, 10, 0)]
    assert [getattr(message, "index", None) for message in left] == [50, None]
    erased = forget(settings, "door", NEW_YEAR + 1, NEW_YEAR + 2, dry_run=False)
    assert (erased.complete, erased.open_since_at) == (False, NEW_YEAR)
    assert forget(settings, "door", NEW_YEAR - 2, NEW_YEAR - 1, dry_run=True).complete


def test_lines_that_cannot_be_read_are_told(settings: LiveSettings, tmp_path: Path) -> None:
    (tmp_path / "live" / "door").mkdir(parents=True)
    (tmp_path / "live" / "door" / "2026-01-01.segments.jsonl").write_bytes(b"\xff\n{}\n")
    links = {"queue": {"url": secret(settings.queue)}, "store": {"url": secret(settings.store)}}
    config = tmp_path / "live.yaml"
    config.write_text(json.dumps({**links, "recordings": {"dir": str(tmp_path / "live")}}))
    said = run(config, "door", "--from", iso(NEW_YEAR), "--to", iso(NEW_YEAR + 1), "--yes")
    assert said.returncode == 0, said.stderr
    assert "Erased: 0 results" in said.stdout
    assert said.stdout.count("2 lines of the tables cannot be read, of whatever time, and stay") == 2


def secret(server: ServerSettings) -> str:
    assert server.url is not None
    return server.url.get_secret_value()


def open_since(settings: LiveSettings, from_s: float, to_s: float) -> float | None:
    erased = forget(settings, "door", NEW_YEAR + from_s, NEW_YEAR + to_s, dry_run=False)
    assert erased.complete == (erased.open_since_at is None)
    return erased.open_since_at


def test_a_face_that_is_on_the_queue_is_told(settings: LiveSettings) -> None:
    queue = open_queue(open_queue_link(settings, Event()), settings)
    for index in (50, 55):
        face = prediction(index)
        pixels = np.zeros((48, 48), np.uint8)
        queue.put(
            [FaceCrop(face.key, face.time_s, face.captured_at, face.xyxy, face.confidence, face.quality, pixels)]
        )
    assert open_since(settings, 9, 9.9) is None
    assert open_since(settings, 9, 10.9) == NEW_YEAR + 10
    [first, second] = queue.take(2, 0)
    queue.settle([(first, prediction(50))])
    assert open_since(settings, 9, 10.9) is None
    assert open_since(settings, 9, 12) == NEW_YEAR + 11
    queue.settle([(second, prediction(55))])
    assert open_since(settings, 9, 12) is None


def test_a_face_that_the_timeline_waits_for_is_told(settings: LiveSettings) -> None:
    timeline = SourceTimeline(lambda: settings.timeline)
    stream_id = prediction(0).key.stream_id
    timeline.add([FrameHeader(stream_id, 50, 10.0, 1), FrameHeader(stream_id, 51, 10.2, 0)])
    store = open_store(open_store_link(settings, Event()), settings)
    store.commit("door", Checkpoint(START, timeline.state(), {}), [], [])
    assert open_since(settings, 10, 11) == NEW_YEAR + 10
    assert open_since(settings, 9, 10) is None


def test_a_face_that_a_timeline_may_have_read_since_its_last_commit_is_told(settings: LiveSettings) -> None:
    lease = Lease(open_store_link(settings, Event()), lease_key(0))
    assert lease.hold()
    RedisJournal(open_queue_link(settings, Event())).append([prediction(50)])
    assert open_since(settings, 9, 11) == NEW_YEAR + 9
    assert open_since(settings, 9, 11) is None, "nothing waits any more"
