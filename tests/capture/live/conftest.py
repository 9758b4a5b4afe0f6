"""Simulated cameras, and a reader that collects their messages."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
import skimage.data
import trustme
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest

from fer_stream.capture.camera import CameraSource
from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.config.live import CameraSettings
from fer_stream.metrics import Metrics
from fer_stream.records import Frame, Gap
from tests.support.http_camera import SEGMENT_S, SEGMENTS, HttpCamera, TlsFront
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Camera

CANARY = "canary-7f3a91"
FPS = 15
KEY_EVERY = 5  # a connection has to wait for a key frame, so they are frequent

SHORT_TIMEOUTS = CameraSettings(
    open_timeout_s=2,
    stall_timeout_s=1,
    no_frame_timeout_s=2,
    reconnect_min_s=0.05,
    reconnect_max_s=0.2,
    reconnect_auth_s=30,
)
"""Settings that keep tests fast."""


def pan(
    photo: NDArray[np.uint8],
    path: Path,
    width: int,
    height: int,
    frames: int,
    *,
    aspect: Fraction = Fraction(1),
    **options: str,
) -> None:
    """Encode a pan over a photograph as H.264 without B-frames, with one slice per frame."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = KEY_EVERY
        stream.codec_context.sample_aspect_ratio = aspect
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "sliced-threads=0:scenecut=0"}
        for index in range(frames):
            view = np.ascontiguousarray(photo[index : index + height, index : index + width])
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """Portrait, uint8 (512, 512, 3) RGB."""
    return np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def encode(photo: NDArray[np.uint8]) -> Callable[..., None]:
    """Encodes a clip: `encode(path, width, height, frames, **container_options)`."""
    return partial(pan, photo)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., None]) -> Path:
    """Clip of 320×180 px, raw H.264."""
    path = tmp_path_factory.mktemp("camera") / "wide.h264"
    encode(path, 320, 180, 60)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., None]) -> Path:
    """Clip of 160×120 px, raw H.264."""
    path = tmp_path_factory.mktemp("camera") / "small.h264"
    encode(path, 160, 120, 30)
    return path


@pytest.fixture(scope="session")
def jpeg(photo: NDArray[np.uint8]) -> bytes:
    """The top left corner of the portrait, 320×180 px."""
    ok, encoded = cv2.imencode(".jpg", photo[:180, :320, ::-1])
    assert ok
    return encoded.tobytes()


@pytest.fixture(scope="session")
def segments(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., None]) -> Path:
    """Folder with the segments 0.ts, 1.ts, … of an HLS stream."""
    folder = tmp_path_factory.mktemp("hls")
    encode(
        folder / "all.m3u8", 320, 180, int(SEGMENTS * SEGMENT_S * FPS),
        hls_time=str(SEGMENT_S), hls_list_size="0", hls_segment_filename=str(folder / "%d.ts"),
    )  # fmt: skip
    return folder


@pytest.fixture
def http_camera(segments: Path, jpeg: bytes) -> Iterator[HttpCamera]:
    server = HttpCamera(segments, jpeg, ("user", CANARY))
    yield server
    server.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Certificate authority that no system trusts."""
    return trustme.CA()


@pytest.fixture
def tls_front() -> Iterator[Callable[[trustme.LeafCert, int], TlsFront]]:
    """Puts a TLS server with a certificate in front of a port: `tls_front(certificate, port)`."""
    fronts: list[TlsFront] = []

    def make(certificate: trustme.LeafCert, port: int) -> TlsFront:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        fronts.append(TlsFront(context, port))
        return fronts[-1]

    yield make
    for front in fronts:
        front.close()


@pytest.fixture
def camera(rtsp_camera: Callable[..., Camera], wide: Path) -> Callable[..., Camera]:
    """Creates cameras that are not started: `camera("--pts-zero", clips=(…))`."""

    def make(*faults: str, clips: tuple[Path, ...] = (wide,)) -> Camera:
        return rtsp_camera(clips, *faults)

    return make


def _without_pixels(frame: Frame) -> Frame:
    return replace(frame, pixels=ArrayPixels(np.broadcast_to(frame.image[0, 0, 0], frame.image.shape)))


class Reader:
    """Source whose messages are collected by a thread, without their pixels."""

    def __init__(self, url: str | int, settings: CameraSettings) -> None:
        self.registry = CollectorRegistry()
        self.source = CameraSource(url, name="front-door", metrics=Metrics(self.registry), settings=settings)
        self.messages: list[Frame | Gap] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        for message in self.source.messages():
            self.messages.append(_without_pixels(message) if isinstance(message, Frame) else message)

    @property
    def frames(self) -> list[Frame]:
        return [message for message in self.messages.copy() if isinstance(message, Frame)]

    @property
    def gaps(self) -> list[Gap]:
        return [message for message in self.messages.copy() if isinstance(message, Gap)]

    def wait(self, condition: Callable[[], bool], within_s: float = 15) -> float:
        """Wait until `condition` is true. Return the time in seconds, for reports only."""
        return wait_until(condition, within_s, describe=lambda: self.source.status)

    def wait_for_frames(self, more: int) -> float:
        """Wait for `more` further frames. Return the time in seconds."""
        wanted = len(self.frames) + more
        return self.wait(lambda: len(self.frames) >= wanted)

    def wait_for_reason(self, reason: str) -> float:
        return self.wait(lambda: self.source.status.reason == reason)

    def count(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, {"source": "front-door", **labels})
        assert value is not None, f"missing series {name} {labels}"
        return value

    def close(self) -> None:
        """Close the source and collect the remaining messages."""
        self.source.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def public_text(self) -> str:
        """Return all text that the source exposes, except its logs."""
        parts = [self.source.status, self.source.info, self.source.decode_errors, self.source.stream_id, *self.gaps]
        return "\n".join([*map(repr, parts), generate_latest(self.registry).decode()])


@pytest.fixture
def read(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Reader]]:
    """Reads a source: `read(url, stall_timeout_s=2)`. The canary password must not appear in any text."""
    caplog.set_level(logging.DEBUG)
    readers: list[Reader] = []

    def make(url: str | int, **settings: object) -> Reader:
        readers.append(Reader(url, CameraSettings.model_validate(SHORT_TIMEOUTS.model_dump() | settings)))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()
        assert CANARY not in reader.public_text()
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())


@pytest.fixture
def canary() -> str:
    """Password that must not appear in any text."""
    return CANARY
