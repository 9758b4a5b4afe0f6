"""`fer-stream erase`: all data of the range is removed everywhere, and the service continues."""

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
from fer_stream.broker.protocols import JOURNAL_START
from fer_stream.config.live import LiveSettings
from fer_stream.config.servers import ServerSettings
from fer_stream.records import (
    Face,
    FaceCrop,
    FaceKey,
    FrameHeader,
    LabelledFrame,
    Prediction,
    Quality,
    stream_id_of,
    stream_start_ms,
)
from fer_stream.service.erase import erase, stored_sources
from fer_stream.service.process import connect_queue, connect_store, open_queue, open_store
from fer_stream.store.protocol import Checkpoint
from fer_stream.store.redis import RedisStore, lease_key
from fer_stream.timeline.source_timeline import SourceTimeline, Watermark

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
    """Settings with an empty queue and store."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return LiveSettings.model_validate({"queue": {"url": f"{redis_url}/0"}, "store": {"url": f"{redis_url}/1"}})


def test_erase_removes_all_data_while_the_service_runs(service: Callable[..., Service], clips: Path) -> None:
    clip = str(clips / "one_face_smile.mp4")
    sources = {name: {"url": clip, "playback": "realtime", "record": name == "door"} for name in ("door", "hall")}
    live = service(sources=sources)
    live.serve()
    live.wait_for_servers()
    for name in sources:
        live.wait(lambda name=name: live.stream_id(name) and live.segments(name), 120)  # type: ignore[misc]
        live.wait(lambda name=name: live.counts(name).enqueued and not live.counts(name).pending)  # type: ignore[misc]
    live.wait(lambda: len(live.rows("door")) == len(live.rows("hall")) == len(live.results("hall")))
    live.wait(lambda: any((live.files / "door").glob("2*.mp4")))
    before, begin = live.results("door"), stream_start_ms(live.stream_id("door")) / 1000
    files_with_data = [path for path in live.state_dir.rglob("*.aof") if b"door@" in path.read_bytes()]
    assert files_with_data

    times = ("--from", iso(begin + 0.5), "--to", iso(begin + 3600))
    result = run(live.config, "door", *times, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert len(live.results("door")) == len(before)
    result = run(live.config, "door", *times, "--yes")
    assert result.returncode == 0, result.stderr
    print(result.stdout)

    remaining = [frame.index for frame in before if frame.time_s < 0.5]
    assert [frame.index for frame in live.results("door")] == remaining
    assert [row for row in live.rows("door") if row] == live.rows("hall")[: len(remaining)]
    assert live.segments("door") == []
    assert '"segment"' not in "".join(path.read_text() for path in live.files.glob("door/*.jsonl"))
    assert not list((live.files / "door").glob("*.mp4"))
    assert len(live.results("hall")) == len(before)
    live.wait(lambda: not any(path.exists() for path in files_with_data))

    # Without confirmation nothing is erased.
    assert run(live.config, "hall", "--from", iso(begin)).returncode == 1
    assert len(live.results("hall")) == len(before)
    unknown = run(live.config, "dor", "--from", iso(begin))
    assert unknown.returncode == 2
    assert "dor" in unknown.stderr
    assert "door, hall" in unknown.stderr
    assert live.stop() == [0]


def prediction(index: int) -> Prediction:
    key = FaceKey(stream_id_of("door", round(1000 * NEW_YEAR)), 1, index)
    probs = np.array([0, 0, 0, 1, 0, 0, 0], np.float32)
    face = Face(key, index / 5, NEW_YEAR + index / 5, np.zeros(4, np.float32), 0.9, Quality(0.9, "ok"))
    return Prediction(face, probs, "test")


def test_erase_works_on_a_full_store(settings: LiveSettings, redis_url: str) -> None:
    begin_ms = round(1000 * time.time())
    with redis.Redis.from_url(redis_url) as client:
        RedisJournal(connect_queue(settings, Event()))
        store = open_store(connect_store(settings, Event()), settings)
        store.publish("door", [LabelledFrame(stream_id_of("door", begin_ms), 0, 0.0, ())])
        client.config_set("maxmemory", 1)
        try:
            assert stored_sources(settings) == {"door"}
            assert erase(settings, "door", begin_ms / 1000, begin_ms / 1000 + 1, dry_run=False).results == 1
        finally:
            client.config_set("maxmemory", 0)
    assert store.results("door", JOURNAL_START, 1, 0) == []


def test_servers_started_for_an_erasure_use_the_configured_memory_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LiveSettings.model_validate({"state_dir": str(tmp_path), "store": {"max_memory_mb": 16}})
    compact, limits = RedisStore.compact, list[int]()

    def record(store: RedisStore) -> bool:
        link = connect_store(settings, Event())
        limits.append(link.call(lambda client: client.info("memory")["maxmemory"]))
        return compact(store)

    monkeypatch.setattr(RedisStore, "compact", record)
    erase(settings, "door", NEW_YEAR, NEW_YEAR + 1, dry_run=False)
    assert limits == [16 << 20]


def test_pending_predictions_are_erased_and_open_segments_reported(settings: LiveSettings) -> None:
    predictions = [prediction(index) for index in range(50)]
    faces = [one.face for one in predictions]
    stream_id = faces[0].key.stream_id
    timeline = SourceTimeline(lambda: settings.timeline)
    timeline.add([FrameHeader(stream_id, face.key.frame_index, face.time_s, 1) for face in faces])
    timeline.add(predictions)
    timeline.advance(Watermark(stream_id, 9.9))
    assert timeline.drain().segments == []
    open_store(connect_store(settings, Event()), settings).commit(
        "door", Checkpoint(JOURNAL_START, timeline.state(), {}), [], []
    )
    journal = RedisJournal(connect_queue(settings, Event()))
    journal.append([FrameHeader(stream_id, 50, 10.0, 1), prediction(50), prediction(51)])

    erased = erase(settings, "door", NEW_YEAR + 10, NEW_YEAR + 10.1, dry_run=False)
    assert (erased.pending, erased.results, erased.open_since_at) == (1, 0, None)
    assert erased.compacted
    left = [entry.message for entry in journal.read({"door": JOURNAL_START}, 10, 0)]
    assert [getattr(message, "index", None) for message in left] == [50, None]
    erased = erase(settings, "door", NEW_YEAR + 1, NEW_YEAR + 2, dry_run=False)
    assert (erased.complete, erased.open_since_at) == (False, NEW_YEAR)
    assert erase(settings, "door", NEW_YEAR - 2, NEW_YEAR - 1, dry_run=True).complete


def test_unparsable_lines_are_reported(settings: LiveSettings, tmp_path: Path) -> None:
    (tmp_path / "live" / "door").mkdir(parents=True)
    (tmp_path / "live" / "door" / "2026-01-01.segments.jsonl").write_bytes(b"\xff\n{}\n")
    links = {"queue": {"url": secret(settings.queue)}, "store": {"url": secret(settings.store)}}
    config = tmp_path / "live.yaml"
    config.write_text(json.dumps({**links, "recordings": {"dir": str(tmp_path / "live")}}))
    result = run(config, "door", "--from", iso(NEW_YEAR), "--to", iso(NEW_YEAR + 1), "--yes")
    assert result.returncode == 0, result.stderr
    assert "Erased: 0 results" in result.stdout
    assert result.stdout.count("2 lines of the tables cannot be parsed and were left") == 2


def secret(server: ServerSettings) -> str:
    assert server.url is not None
    return server.url.get_secret_value()


def open_since(settings: LiveSettings, from_s: float, to_s: float) -> float | None:
    erased = erase(settings, "door", NEW_YEAR + from_s, NEW_YEAR + to_s, dry_run=False)
    assert erased.complete == (erased.open_since_at is None)
    return erased.open_since_at


def test_queued_face_is_reported_as_open(settings: LiveSettings) -> None:
    queue = open_queue(connect_queue(settings, Event()), settings)
    for index in (50, 55):
        queue.enqueue([FaceCrop(prediction(index).face, np.zeros((48, 48), np.uint8))])
    assert open_since(settings, 9, 9.9) is None
    assert open_since(settings, 9, 10.9) == NEW_YEAR + 10
    [first, second] = queue.receive(2, 0)
    queue.ack([(first, prediction(50))])
    assert open_since(settings, 9, 10.9) is None
    assert open_since(settings, 9, 12) == NEW_YEAR + 11
    queue.ack([(second, prediction(55))])
    assert open_since(settings, 9, 12) is None


def test_expected_face_is_reported_as_open(settings: LiveSettings) -> None:
    timeline = SourceTimeline(lambda: settings.timeline)
    stream_id = prediction(0).face.key.stream_id
    timeline.add([FrameHeader(stream_id, 50, 10.0, 1), FrameHeader(stream_id, 51, 10.2, 0)])
    store = open_store(connect_store(settings, Event()), settings)
    store.commit("door", Checkpoint(JOURNAL_START, timeline.state(), {}), [], [])
    assert open_since(settings, 10, 11) == NEW_YEAR + 10
    assert open_since(settings, 9, 10) is None


def test_uncommitted_face_of_a_running_timeline_is_reported_as_open(settings: LiveSettings) -> None:
    lease = Lease(connect_store(settings, Event()), lease_key(0))
    assert lease.acquire()
    RedisJournal(connect_queue(settings, Event())).append([prediction(50)])
    assert open_since(settings, 9, 11) == NEW_YEAR + 9
    assert open_since(settings, 9, 11) is None, "no prediction is pending any more"
