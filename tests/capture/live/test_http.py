"""MJPEG and HLS over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from fer_stream.capture.camera import CameraSource
from fer_stream.capture.connection import Connection, parse_camera_url
from fer_stream.config.live import CameraSettings
from fer_stream.metrics import Metrics

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader

JPEG_FPS = 10
SEGMENT_S = 1.0
SEGMENTS = 12


def jpeg(photo: NDArray[np.uint8]) -> bytes:
    """Encode the top left corner of an RGB photograph as JPEG."""
    ok, encoded = cv2.imencode(".jpg", photo[:180, :320, ::-1])
    assert ok
    return encoded.tobytes()


def unsupported_jpeg(valid: bytes) -> bytes:
    """Change the chroma subsampling of a JPEG to 3×3, which FFmpeg does not implement."""
    sampling = valid.index(b"\xff\xc0") + 11
    return valid[:sampling] + b"\x33" + valid[sampling + 1 :]


class HttpCamera(ThreadingHTTPServer):
    """Camera over HTTP with one path per behaviour.

    /mjpeg does not end, /short ends after 5 frames, /noise sends data that is not JPEG, /unsupported alternates valid
    frames with ones that FFmpeg cannot decode, /locked needs a password; /live.m3u8 is a live playlist.
    """

    daemon_threads = True

    def __init__(self, segments: Path, photo: NDArray[np.uint8]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jpeg = jpeg(photo)
        self.segments = segments
        self.started_s = time.monotonic()

    def url(self, path: str, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.server_port}{path}"

    def playlist(self) -> bytes:
        """Return the three newest segments of a stream that started three segments before the server."""
        end = min(SEGMENTS, 3 + int((time.monotonic() - self.started_s) / SEGMENT_S))
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{end - 3}"]
        for number in range(end - 3, end):
            lines += [f"#EXTINF:{SEGMENT_S},", f"{number}.ts"]
        return "\n".join([*lines, ""]).encode()


class _Handler(BaseHTTPRequestHandler):
    server: HttpCamera

    def do_GET(self) -> None:
        if self.path.endswith(".m3u8"):
            self._send(self.server.playlist())
        elif self.path.endswith(".ts"):
            self._send((self.server.segments / self.path[1:]).read_bytes())
        elif self.path == "/locked" and self.headers["Authorization"] != "Basic dXNlcjpjYW5hcnktN2YzYTkx":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path in ("/mjpeg", "/short", "/noise", "/unsupported", "/locked"):
            self._play()
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _play(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        bodies = [b"\xff\xd8" + b"noise" * 100 if self.path == "/noise" else self.server.jpeg]
        if self.path == "/unsupported":
            bodies.append(unsupported_jpeg(self.server.jpeg))
        for body in islice(cycle(bodies), 5 if self.path == "/short" else 10_000):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + body + b"\r\n")
            except OSError:
                return  # the client disconnected
            time.sleep(1 / JPEG_FPS)


@pytest.fixture
def http_camera(tmp_path: Path, encode: Callable[..., None], photo: NDArray[np.uint8]) -> Iterator[HttpCamera]:
    encode(
        tmp_path / "all.m3u8", 320, 180, int(SEGMENTS * SEGMENT_S * 15),
        hls_time=str(SEGMENT_S), hls_list_size="0", hls_segment_filename=str(tmp_path / "%d.ts"),
    )  # fmt: skip
    server = HttpCamera(tmp_path, photo)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


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
    assert {gap.reason for gap in reader.gaps} == {"network"}


def test_password_is_sent_and_not_shown(http_camera: HttpCamera, read: Callable[..., Reader], canary: str) -> None:
    read(http_camera.url("/locked", f"user:{canary}@")).wait_for_frames(1)
    read(http_camera.url("/locked", "user:wrong@")).wait_for_reason("unauthorized")
    read(http_camera.url("/absent", f"user:{canary}@")).wait_for_reason("not_found")


def test_data_without_a_frame_is_an_outage(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/noise"), no_frame_timeout_s=0.5)
    reader.wait_for_reason("decode")
    reader.close()
    assert reader.source.decode_errors.packets >= 1
    assert reader.source.decode_errors.reason == "Invalid data found when processing input"
    assert reader.source.decode_errors.packets == reader.count(
        "fer_frames_dropped_total", stage="decode", reason="corrupt"
    )


def test_undecodable_frames_do_not_end_the_connection(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/unsupported"))
    reader.wait_for_frames(10)
    reader.close()
    assert not reader.gaps
    assert reader.source.decode_errors.packets >= 5
    assert reader.source.decode_errors.reason == "Not yet implemented in FFmpeg, patches welcome"


def test_hls_segments_are_spread_over_time(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/live.m3u8"), stall_timeout_s=3)
    reader.wait_for_frames(45)
    frames = reader.frames
    # A segment arrives as a whole: without pacing its last frame would replace the 14 others.
    assert frames[-1].index + 1 - len(frames) < 10
    steps_s = np.diff([frame.time_s for frame in frames]) / np.diff([frame.index for frame in frames])
    assert np.median(steps_s) == pytest.approx(1 / 15, abs=0.001)
    assert not reader.gaps


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
