"""MJPEG and HLS over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from fer_stream.capture.camera import CameraSource
from fer_stream.capture.camera_url import parse_camera_url
from fer_stream.capture.connection import Connection
from fer_stream.config.live import CameraSettings
from fer_stream.metrics import Metrics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.capture.live.conftest import Reader
    from tests.support.http_camera import HttpCamera


def test_mjpeg_frames_get_their_arrival_time(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/mjpeg"))
    reader.wait_for_frames(15)
    frames = reader.frames
    # FFmpeg generates PTS at 25 fps for MJPEG.
    steps_s = np.diff([frame.time_s for frame in frames]) / np.diff([frame.index for frame in frames])
    assert np.median(steps_s) > 1.5 / 25
    assert frames[0].image.shape == (180, 320, 3)
    assert reader.source.info.codec == "mjpeg"
    assert reader.count("fer_pts_discontinuities_total") == 0


def test_frames_are_bgr(http_camera: HttpCamera, photo: NDArray[np.uint8]) -> None:
    source = CameraSource(http_camera.url("/mjpeg"), name="door", metrics=Metrics(CollectorRegistry()))
    image = next(source.frames()).image
    source.close()
    assert np.abs(image.mean(axis=(0, 1)) - photo[:180, :320, ::-1].mean(axis=(0, 1))).max() < 3


def test_interrupted_mjpeg_is_reconnected(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/short"))
    reader.wait(lambda: len(reader.gaps) >= 2)
    assert {gap.reason for gap in reader.gaps} == {"ended"}


def test_password_is_sent_and_not_shown(http_camera: HttpCamera, read: Callable[..., Reader], canary: str) -> None:
    read(http_camera.url("/locked", f"user:{canary}@")).wait_for_frames(1)
    read(http_camera.url("/locked", "user:wrong@")).wait_for_reason("unauthorized")
    read(http_camera.url("/absent", f"user:{canary}@")).wait_for_reason("not_found")


def test_data_without_a_frame_is_an_outage(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/noise"), no_frame_timeout_s=0.5)
    reader.wait_for_reason("decode")
    reader.close()
    assert reader.source.decode_errors.packets >= 1
    assert reader.source.decode_errors.reason == "damaged data"
    assert reader.source.decode_errors.packets == reader.count(
        "fer_frames_dropped_total", stage="decode", reason="corrupt"
    )


def test_undecodable_frames_do_not_end_the_connection(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/unsupported"))
    reader.wait_for_frames(10)
    reader.close()
    assert not reader.gaps
    assert reader.source.decode_errors.packets >= 5
    assert reader.source.decode_errors.reason == "a variant of the codec that FFmpeg does not support"


def test_hls_segments_are_spread_over_time(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/live.m3u8"), stall_timeout_s=3)
    reader.wait_for_frames(45)
    frames = reader.frames
    # A segment arrives as a whole: without pacing its last frame would replace the 14 others.
    assert frames[-1].index + 1 - len(frames) < 10
    steps_s = np.diff([frame.time_s for frame in frames]) / np.diff([frame.index for frame in frames])
    assert np.median(steps_s) == pytest.approx(1 / 15, abs=0.001)
    assert not reader.gaps


def test_encrypted_hls_is_named(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    playlist = http_camera.playlist().replace(b"#EXTINF", b'#EXT-X-KEY:METHOD=AES-128,URI="key"\n#EXTINF', 1)
    http_camera.pages |= {
        "/live": ("application/x-mpegURL", playlist),
        "/key": ("application/octet-stream", bytes(16)),
    }
    reader = read(http_camera.url("/live"))
    reader.wait_for_reason("decode")
    assert reader.source.status.text.startswith("encrypted HLS is not supported")


def test_playlist_cannot_read_local_files(
    http_camera: HttpCamera, read: Callable[..., Reader], wide: Path, segments: Path
) -> None:
    target = segments / "0.ts"
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{target}\n#EXTINF:1,\n{target}\n"
    http_camera.pages["/live"] = ("application/x-mpegURL", playlist.encode())
    reader = read(http_camera.url("/live"), stall_timeout_s=0.5)
    reader.wait(lambda: reader.source.status.failures >= 1)
    assert not reader.frames


class _FailingListener:
    """Listener that raises an unexpected error."""

    def on_open(self, *_: object) -> None:
        raise RuntimeError("unexpected")

    on_frame = on_decode_error = on_open

    def decode_timer(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_unexpected_error_ends_the_connection_as_internal(http_camera: HttpCamera) -> None:
    settings, exited = CameraSettings(), threading.Event()
    url = parse_camera_url(http_camera.url("/mjpeg"), settings)
    connection = Connection(url, settings, _FailingListener(), name="door", now=time.monotonic, on_exit=exited.set)
    connection.start()
    assert connection.done.wait(10)
    assert exited.is_set()
    assert connection.disconnect.reason == "internal"
