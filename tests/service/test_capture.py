"""`capture` in a thread, on embedded servers: shared and independent state of its sources."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from fer_stream import factory
from fer_stream.backoff import Backoff
from fer_stream.broker.client import open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.protocols import JOURNAL_START
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.config.live import LiveSettings
from fer_stream.config.settings import DetectorSettings
from fer_stream.faces.detector import FaceDetector
from fer_stream.metrics import Metrics
from fer_stream.records import FrameHeader
from fer_stream.service.capture import capture
from fer_stream.service.health import Health
from fer_stream.service.process import ServiceContext
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Camera

NAME = "clip"


class CaptureRunner:
    """`capture` in a thread of the test."""

    def __init__(self, settings: LiveSettings) -> None:
        self.settings = settings
        self._registry = CollectorRegistry()
        self._queue = open_client(EmbeddedServer(settings.state_dir, "queue").url)
        self._context = ServiceContext(settings, Metrics(self._registry), Health("capture"))
        self._thread = Thread(target=capture, args=(self._context, lambda: self.settings, lambda _: True))
        self._thread.start()

    def reload(self, settings: LiveSettings) -> None:
        self.settings = settings
        self._context.on_signal(signal.SIGHUP)

    def close(self) -> None:
        self._context.on_signal(signal.SIGTERM)
        self._thread.join()
        self._queue.close()

    def metric(self, name: str, source: str) -> float | None:
        return self._registry.get_sample_value(name, {"source": source})

    def frames(self, source: str) -> float:
        return self.metric("fer_frames_total", source) or 0

    def sessions(self) -> set[str]:
        """Return the stream ids of the sessions of the clip that delivered frames."""
        entries = RedisJournal(self._queue).read({NAME: JOURNAL_START}, 10_000, 0)
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

    monkeypatch.setattr("fer_stream.service.capture.Backoff", RecordingBackoff)
    monkeypatch.setattr("fer_stream.service.capture._STEADY_S", 0.0)
    monkeypatch.setattr("fer_stream.service.capture._RETRY_MIN_S", 0.1)
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
    monkeypatch.setattr("fer_stream.service.capture._LEASE_TTL_S", 1.5)
    camera = rtsp_camera((camera_clip,)).start()
    camera.freeze()
    hanging = [f"hangs{number}" for number in range(4)]
    live = captures(settings({NAME: {}, **{name: {"url": camera.url()} for name in hanging}}))
    wait_until(live.sessions)
    wait_until(lambda: all(live.metric("fer_camera_up", name) == 0 for name in hanging))
    live.reload(settings({NAME: {}}))
    wait_until(lambda: all(live.metric("fer_camera_up", name) is None for name in hanging))
    shown = live.frames(NAME)
    wait_until(lambda: live.frames(NAME) > shown)
    assert len(live.sessions()) == 1
