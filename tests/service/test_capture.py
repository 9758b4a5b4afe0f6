"""`capture` in a thread, on embedded servers: shared and independent state of its sources."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from fer_stream import factory
from fer_stream.backoff import Backoff
from fer_stream.broker.client import open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import JOURNAL_START
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.capture.source import Clocks
from fer_stream.config.live import LiveSettings
from fer_stream.config.settings import DetectorSettings
from fer_stream.faces.detector import FaceDetector
from fer_stream.metrics import Metrics
from fer_stream.records import FrameHeader, stream_start_ms
from fer_stream.service.capture import capture
from fer_stream.service.health import Health
from fer_stream.service.process import ServiceContext
from fer_stream.store.redis import RedisStore
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Camera

NAME = "clip"


class CaptureRunner:
    """`capture` in a thread of the test."""

    def __init__(self, settings: LiveSettings) -> None:
        self.settings = settings
        self.clock_step_s = 0.0
        self._registry = CollectorRegistry()
        self._queue = open_client(EmbeddedServer(settings.state_dir, "queue").url)
        self._store_client = open_client(EmbeddedServer(settings.state_dir, "store").url)
        self.store = RedisStore(self._store_client)
        self._context = ServiceContext(settings, Metrics(self._registry), Health("capture"))
        clocks = Clocks(wall=lambda: time.time() + self.clock_step_s)
        arguments = (self._context, lambda: self.settings, lambda _: True)
        self._thread = Thread(target=capture, args=arguments, kwargs={"clocks": clocks})
        self._thread.start()

    def reload(self, settings: LiveSettings) -> None:
        self.settings = settings
        self._context.on_signal(signal.SIGHUP)

    def close(self) -> None:
        self._context.on_signal(signal.SIGTERM)
        self._thread.join()
        self._queue.close()
        self._store_client.close()

    def problems(self) -> object:
        """Return why the process is not ready."""
        self._context.health.run_checks()
        return self._context.health.ready()[1]["problems"]

    def metric(self, name: str, source: str | None = None) -> float | None:
        return self._registry.get_sample_value(name, {"source": source} if source else {})

    def reason(self, source: str) -> str | None:
        """Return `up`, why the source is down, or None if its state is unknown."""
        state = self.store.state(source)
        return None if state is None else "up" if state.up else state.reason

    def frames(self, source: str) -> float:
        return self.metric("fer_frames_total", source) or 0

    def sessions(self, source: str = NAME) -> set[str]:
        """Return the stream ids of the sessions of a source that delivered frames."""
        entries = RedisJournal(self._queue).read({source: JOURNAL_START}, 10_000, 0)
        return {entry.message.stream_id for entry in entries if isinstance(entry.message, FrameHeader)}

    def lose_lease(self) -> None:
        self._queue.call(lambda client: client.delete(SourceKeys(NAME, 1).lease))


@pytest.fixture
def settings(clips: Path, yunet_weights: Path) -> Iterator[Callable[[dict[str, Any]], LiveSettings]]:
    """`settings(sources)`: each source is a clip in real time, updated by the given settings."""
    # The path of pytest's temporary directory may be too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="fer-"))
    clip = {
        "url": str(clips / "long_mostly_no_face.mp4"),
        "playback": "realtime",
        "overflow": {"policy": "drop_oldest"},
        "detector": {"type": "yunet", "weights": str(yunet_weights)},
    }

    def make(sources: dict[str, Any]) -> LiveSettings:
        merged = {name: clip | source for name, source in sources.items()}
        return LiveSettings.model_validate({"state_dir": folder, "web": {"port": None}, "sources": merged})

    yield make
    shutil.rmtree(folder)


@pytest.fixture
def captures() -> Iterator[Callable[[LiveSettings], CaptureRunner]]:
    with ExitStack() as stack:

        def start(settings: LiveSettings) -> CaptureRunner:
            for role in ("queue", "store"):
                stack.enter_context(EmbeddedServer(settings.state_dir, role))
            captures = CaptureRunner(settings)
            stack.callback(captures.close)
            return captures

        yield start


def test_sources_with_equal_settings_share_one_detector(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[FaceDetector] = []
    make = factory.make_detector

    def record(settings: DetectorSettings) -> FaceDetector:
        made.append(make(settings))
        return made[-1]

    monkeypatch.setattr(factory, "make_detector", record)
    names = [f"{NAME}{number}" for number in range(12)]
    live = captures(settings({name: {} for name in names}))
    wait_until(lambda: all(map(live.frames, names)))
    assert len(made) == 1


def test_retry_delay_is_reset_after_a_steady_capture(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[float] = []

    class RecordingBackoff(Backoff):
        def failed(self, *, fixed_s: float | None = None) -> float:
            delays.append(super().failed(fixed_s=fixed_s))
            return delays[-1]

    monkeypatch.setattr("fer_stream.service.capture_thread.Backoff", RecordingBackoff)
    monkeypatch.setattr("fer_stream.service.capture_thread._STEADY_S", 0.0)
    monkeypatch.setattr("fer_stream.service.capture_thread._RETRY_MIN_S", 0.1)
    live = captures(settings({NAME: {}}))
    for faults in range(3):
        wait_until(lambda faults=faults: len(live.sessions()) == faults + 1)  # type: ignore[misc]
        live.lose_lease()
    wait_until(lambda: len(live.sessions()) == 4)
    assert delays == [0.1] * 3


def test_removing_stalled_cameras_does_not_affect_others(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fer_stream.service.capture_thread._LEASE_TTL_S", 1.5)
    camera = rtsp_camera((camera_clip,)).start()
    camera.freeze()
    hanging = [f"hangs{number}" for number in range(4)]
    live = captures(settings({NAME: {}, **{name: {"url": camera.url()} for name in hanging}}))
    wait_until(live.sessions)
    wait_until(lambda: all(live.metric("fer_camera_up", name) == 0 for name in hanging))
    wait_until(lambda: {live.reason(name) for name in hanging} == {"timeout"})
    live.reload(settings({NAME: {}}))
    wait_until(lambda: all(live.metric("fer_camera_up", name) is None for name in hanging))
    assert [live.reason(name) for name in hanging] == [None] * len(hanging)
    shown = live.frames(NAME)
    wait_until(lambda: live.frames(NAME) > shown)
    assert len(live.sessions()) == 1


def test_every_faulty_source_has_a_state_and_metrics_and_logs_its_fault_once(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free_port: Callable[[], int],
) -> None:
    monkeypatch.setattr("fer_stream.service.capture_thread._RETRY_MIN_S", 0.05)
    monkeypatch.setattr("fer_stream.service.capture_thread._RETRY_MAX_S", 0.05)
    caplog.set_level("INFO")
    late, text = tmp_path / "late.mp4", tmp_path / "text.mp4"
    text.write_text("not a video")
    configured = settings(
        {
            "late": {"url": str(late)},
            "text": {"url": str(text)},
            "weights": {"detector": {"type": "yunet", "weights": str(tmp_path / "none.onnx")}},
            "scheme": {"url": "rtsp://127.0.0.1/"},
            "absent": {"url": f"rtsp://127.0.0.1:{free_port()}/", "reconnect_min_s": 0.05, "reconnect_max_s": 0.05},
        }
    )
    # Validation rejects this URL. Whatever gets past it must not be silent either.
    sources = configured.sources | {
        "scheme": configured.sources["scheme"].model_copy(update={"url": SecretStr("gopher://cam/1")})
    }
    live = captures(configured.model_copy(update={"sources": sources}))
    expected = {
        "late": "not_found",
        "text": "unreadable",
        "weights": "internal",
        "scheme": "unreadable",
        "absent": "refused",
    }
    wait_until(lambda: {name: live.reason(name) for name in expected} == expected)
    for name in expected:
        state = live.store.state(name)
        assert state is not None
        assert state.text
        assert live.metric("fer_camera_up", name) == 0
        assert live.metric("fer_camera_last_frame_timestamp_seconds", name) == 0
    wait_until(lambda: live.problems() == {})  # sources that are down do not make the process unready
    failures = live.store.state("late").failures  # type: ignore[union-attr]
    wait_until(lambda: live.store.state("late").failures > failures + 3)  # type: ignore[union-attr]
    logged = [record.source for record in caplog.records if record.message == "capture_failed"]  # type: ignore[attr-defined]
    assert sorted(logged) == ["late", "scheme", "text", "weights"]

    shutil.copy(clips / "long_mostly_no_face.mp4", late)
    wait_until(lambda: live.reason("late") == "up")
    assert live.metric("fer_camera_up", "late") == 1
    assert live.metric("fer_camera_last_frame_timestamp_seconds", "late") is None
    assert [record.source for record in caplog.records if record.message == "capture_resumed"] == ["late"]  # type: ignore[attr-defined]


def test_removed_source_has_no_state_and_no_metrics(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    tmp_path: Path,
) -> None:
    live = captures(settings({NAME: {}, "missing": {"url": str(tmp_path / "missing.mp4")}}))
    wait_until(lambda: live.reason(NAME) == "up" and live.reason("missing") == "not_found")
    live.reload(settings({}))
    wait_until(lambda: live.reason(NAME) is None and live.reason("missing") is None)
    wait_until(lambda: live.metric("fer_camera_up", NAME) is live.metric("fer_camera_up", "missing") is None)
    assert live.metric("fer_frames_total", NAME) is None


def test_standby_logs_once_and_takes_over(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempts: list[float] = []

    class RecordingBackoff(Backoff):
        def failed(self, *, fixed_s: float | None = None) -> float:
            attempts.append(super().failed(fixed_s=fixed_s))
            return attempts[-1]

    caplog.set_level("INFO")
    first = captures(settings({NAME: {}}))
    wait_until(first.sessions)
    monkeypatch.setattr("fer_stream.service.capture_thread.Backoff", RecordingBackoff)
    monkeypatch.setattr("fer_stream.service.capture_thread._RETRY_MIN_S", 0.05)
    monkeypatch.setattr("fer_stream.service.capture_thread._RETRY_MAX_S", 0.05)
    standby = captures(settings({NAME: {}}))
    wait_until(lambda: len(attempts) > 5)
    assert [record.message for record in caplog.records].count("capture_waiting") == 1
    wait_until(lambda: standby.problems() == {})
    assert standby.metric("fer_camera_up", NAME) is None, "the process that reads a source exports its metrics"
    first.reload(settings({}))
    wait_until(lambda: standby.metric("fer_camera_up", NAME) == 1)


def test_clock_steps_start_new_sessions_of_cameras(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], CaptureRunner],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    camera = rtsp_camera((camera_clip,)).start()
    live = captures(settings({NAME: {}, "door": {"url": camera.url(), "fps": 5}}))

    def starts() -> list[int]:
        return sorted(map(stream_start_ms, live.sessions("door")))

    wait_until(lambda: len(starts()) == 1 and live.sessions())
    assert live.metric("fer_clock_steps_total") == 0
    live.clock_step_s = 4.0
    live.reload(live.settings)
    wait_until(lambda: live.frames("door") > 10)
    for step_s in (3600.0, 10.0):
        live.clock_step_s += step_s
        sessions = len(starts())
        wait_until(lambda sessions=sessions: len(starts()) == sessions + 1)  # type: ignore[misc]
        assert starts()[-1] / 1000 == pytest.approx(time.time() + live.clock_step_s, abs=60)
    assert (live.metric("fer_clock_steps_total"), len(starts())) == (2, 3)

    # Set back by more than the length of the session: the next one starts after it, ahead of the clock, and a further
    # one follows when the clock has passed that start.
    live.clock_step_s -= 10
    wait_until(lambda: len(starts()) == 4)
    assert starts()[3] == starts()[2] + 1
    wait_until(lambda: len(starts()) == 5)
    assert starts()[4] / 1000 == pytest.approx(time.time() + live.clock_step_s, abs=60)
    assert live.metric("fer_clock_steps_total") == 3
    assert [record.message for record in caplog.records].count("clock_stepped") == 3
    assert len(live.sessions()) == 1, "the times of a file do not depend on the clock"
