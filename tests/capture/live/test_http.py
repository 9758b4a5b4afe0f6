"""MJPEG and HLS over HTTP, as cameras and relays serve them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from fer_stream.capture.camera import LiveSource
from fer_stream.capture.camera_url import camera_address
from fer_stream.capture.connection import Connection
from fer_stream.config import CameraSettings
from fer_stream.metrics import Metrics

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader

JPEG_FPS = 10
SEGMENT_S = 1.0
SEGMENTS = 12


def jpeg(photo: NDArray[np.uint8]) -> bytes:
    """The top left corner of an RGB photograph as JPEG."""
    done, coded = cv2.imencode(".jpg", photo[:180, :320, ::-1])
    assert done
    return coded.tobytes()


def odd_jpeg(whole: bytes) -> bytes:
    """`whole` with three by three samples of light to one of colour."""
    sampling = whole.index(b"\xff\xc0") + 11
    return whole[:sampling] + b"\x33" + whole[sampling + 1 :]


class HttpCamera(ThreadingHTTPServer):
    """/mjpeg plays for ever, /short ends after 5 pictures, /noise sends no JPEG, and /odd every second time one that
    FFmpeg does not know; /live.m3u8 is a live playlist."""

    daemon_threads = True

    def __init__(self, segments: Path, photo: NDArray[np.uint8]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jpeg = jpeg(photo)
        self.segments = segments
        self.started_s = time.monotonic()

    def url(self, path: str, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.server_port}{path}"

    def playlist(self) -> bytes:
        """The three newest segments of a stream that began three segments before the server did."""
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
        elif self.path in ("/mjpeg", "/short", "/noise", "/odd", "/locked"):
            self._play()
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

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
        if self.path == "/odd":
            bodies.append(odd_jpeg(self.server.jpeg))
        for body in islice(cycle(bodies), 5 if self.path == "/short" else 10_000):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + body + b"\r\n")
            except OSError:
                return  # the viewer left
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


def test_mjpeg_keeps_the_time_of_arrival(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/mjpeg"))
    reader.wait_for_frames(15)
    frames = reader.frames
    # FFmpeg would have made up 25 pictures a second.
    steps_s = np.diff([frame.time_s for frame in frames]) / np.diff([frame.index for frame in frames])
    assert np.median(steps_s) == pytest.approx(1 / JPEG_FPS, abs=0.02)
    assert frames[0].image.shape == (180, 320, 3)
    assert reader.source.info.codec == "mjpeg"
    assert reader.count("fer_pts_discontinuities_total") == 0


def test_colours_are_bgr(http_camera: HttpCamera, photo: NDArray[np.uint8]) -> None:
    source = LiveSource(http_camera.url("/mjpeg"), name="door", metrics=Metrics(CollectorRegistry()))
    image = next(source.frames()).image
    source.close()
    assert np.abs(image.mean(axis=(0, 1)) - photo[:180, :320, ::-1].mean(axis=(0, 1))).max() < 3


def test_mjpeg_that_breaks_off_is_read_again(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/short"))
    reader.wait(lambda: len(reader.gaps) >= 2)
    assert {gap.reason for gap in reader.gaps} == {"network"}


def test_a_password_works_and_is_not_shown(http_camera: HttpCamera, read: Callable[..., Reader], canary: str) -> None:
    read(http_camera.url("/locked", f"user:{canary}@")).wait_for_frames(1)
    read(http_camera.url("/locked", "user:wrong@")).wait_for_reason("unauthorized")
    read(http_camera.url("/attic", f"user:{canary}@")).wait_for_reason("not_found")


def test_data_without_a_picture_is_an_outage(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/noise"), no_frame_timeout_s=0.5)
    reader.wait_for_reason("decode")
    reader.close()
    assert reader.source.decode_errors.packets >= 1
    assert reader.source.decode_errors.reason == "Invalid data found when processing input"
    assert reader.source.decode_errors.packets == reader.count(
        "fer_frames_dropped_total", stage="decode", reason="damaged"
    )


def test_a_picture_that_cannot_be_decoded_costs_no_connection(
    http_camera: HttpCamera, read: Callable[..., Reader]
) -> None:
    reader = read(http_camera.url("/odd"))
    reader.wait_for_frames(10)
    reader.close()
    assert not reader.gaps
    assert reader.source.decode_errors.packets >= 5
    assert reader.source.decode_errors.reason == "Not yet implemented in FFmpeg, patches welcome"


def test_the_bursts_of_hls_are_spread(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/live.m3u8"), stall_timeout_s=3)
    reader.wait_for_frames(45)
    frames = reader.frames
    # A segment arrives as a whole: without pacing the newest picture of each would push out its fourteen others.
    assert frames[-1].index + 1 - len(frames) < 10
    steps_s = np.diff([frame.time_s for frame in frames]) / np.diff([frame.index for frame in frames])
    assert np.median(steps_s) == pytest.approx(1 / 15, abs=0.001)
    assert not reader.gaps


class _Broken:
    """A listener with a fault of its own."""

    def opened(self, *_: object) -> None:
        raise RuntimeError("a fault of ours")

    picture = damaged = opened


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_ends_the_connection_and_says_so(http_camera: HttpCamera) -> None:
    settings, left = CameraSettings(), threading.Event()
    address = camera_address(http_camera.url("/mjpeg"), settings)
    connection = Connection(address, settings, _Broken(), name="door", now=time.monotonic, on_exit=left.set)
    connection.start()
    assert connection.over.wait(10)
    assert left.is_set()
    assert connection.outage.reason == "internal"
