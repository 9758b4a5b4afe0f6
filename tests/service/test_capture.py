"""What the sources of one capture process share, and what they must not: `capture` itself, on private servers."""

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

from fer_stream import factory
from fer_stream.broker.client import open_link
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.keys import Keys
from fer_stream.broker.protocols import START
from fer_stream.config import DetectorSettings, LiveSettings
from fer_stream.faces.detector import FaceDetector
from fer_stream.metrics import Metrics
from fer_stream.records import FrameHeader
from fer_stream.service.capture import capture
from fer_stream.service.health import Health
from fer_stream.service.process import Process

if TYPE_CHECKING:
    from tests.conftest import Camera

NAME = "clip"


class Captures:
    """`capture` in a thread of ours."""

    def __init__(self, settings: LiveSettings) -> None:
        self.settings = settings
        self._registry = CollectorRegistry()
        self._queue = open_link(EmbeddedServer(settings.state_dir, "queue").url)
        self._process = Process(settings, Metrics(self._registry), Health("capture"))
        self._thread = Thread(target=capture, args=(self._process, lambda: self.settings, lambda _: True))
        self._thread.start()

    def reload(self, settings: LiveSettings) -> None:
        self.settings = settings
        self._process.told(signal.SIGHUP)

    def close(self) -> None:
        self._process.told(signal.SIGTERM)
        self._thread.join()
        self._queue.close()

    def wait(self, what: Callable[[], Any]) -> None:
        until_s = time.monotonic() + 30
        while not what():
            assert time.monotonic() < until_s, "waited in vain"
            time.sleep(0.02)

    def metric(self, name: str, source: str) -> float | None:
        return self._registry.get_sample_value(name, {"source": source})

    def pictures(self, source: str) -> float:
        return self.metric("fer_frames_total", source) or 0

    def epochs(self) -> set[str]:
        """The epochs of the clip that gave pictures."""
        entries = RedisJournal(self._queue).read({NAME: START}, 10_000, 0)
        return {entry.message.stream_id for entry in entries if isinstance(entry.message, FrameHeader)}

    def lose_lease(self) -> None:
        self._queue.call(lambda client: client.delete(Keys(NAME, 1).lease))


@pytest.fixture
def settings(clips: Path, yunet_weights: Path) -> Iterator[Callable[[dict[str, Any]], LiveSettings]]:
    """`settings(sources)`, where a source is a clip that plays as a camera would but for what is said of it."""
    # Not pytest's own folder, whose path may be too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="fer-"))
    clip = {
        "url": str(clips / "long_mostly_no_face.mp4"),
        "playback": "realtime",
        "overflow": {"policy": "drop_oldest"},
        "detector": {"type": "yunet", "weights": str(yunet_weights)},
    }

    def make(sources: dict[str, Any]) -> LiveSettings:
        every = {name: clip | source for name, source in sources.items()}
        return LiveSettings.model_validate({"state_dir": folder, "web": {"port": None}, "sources": every})

    yield make
    shutil.rmtree(folder)


@pytest.fixture
def captures() -> Iterator[Callable[[LiveSettings], Captures]]:
    with ExitStack() as stack:

        def begin(settings: LiveSettings) -> Captures:
            for role in ("queue", "store"):
                stack.enter_context(EmbeddedServer(settings.state_dir, role))
            captures = Captures(settings)
            stack.callback(captures.close)
            return captures

        yield begin


def test_twelve_sources_that_begin_together_share_one_detector(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], Captures],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[FaceDetector] = []
    make = factory.make_detector

    def noted(settings: DetectorSettings) -> FaceDetector:
        made.append(make(settings))
        return made[-1]

    monkeypatch.setattr(factory, "make_detector", noted)
    names = [f"{NAME}{number}" for number in range(12)]
    live = captures(settings({name: {} for name in names}))
    live.wait(lambda: all(map(live.pictures, names)))
    assert len(made) == 1


def test_a_fault_after_a_capture_that_lasted_costs_no_more_than_the_first(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], Captures],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fer_stream.service.capture._STEADY_S", 0.3)
    monkeypatch.setattr("fer_stream.service.capture._RETRY_S", (0.1, 3600.0))
    live = captures(settings({NAME: {}}))
    for faults in range(3):
        live.wait(lambda faults=faults: len(live.epochs()) == faults + 1)  # type: ignore[misc]
        time.sleep(0.5)
        live.lose_lease()
    live.wait(lambda: len(live.epochs()) == 4)


def test_removing_cameras_that_hang_costs_the_others_nothing(
    settings: Callable[[dict[str, Any]], LiveSettings],
    captures: Callable[[LiveSettings], Captures],
    rtsp_camera: Callable[..., Camera],
    film: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fer_stream.service.capture._LEASE_S", 1.5)
    camera = rtsp_camera((film,)).start()
    camera.freeze()
    hanging = [f"hangs{number}" for number in range(4)]
    live = captures(settings({NAME: {}, **{name: {"url": camera.url()} for name in hanging}}))
    live.wait(live.epochs)
    live.wait(lambda: all(live.metric("fer_camera_up", name) == 0 for name in hanging))
    live.reload(settings({NAME: {}}))
    live.wait(lambda: all(live.metric("fer_camera_up", name) is None for name in hanging))
    shown = live.pictures(NAME)
    live.wait(lambda: live.pictures(NAME) > shown)
    assert len(live.epochs()) == 1
