"""Reasons of failed connections, in words that name a cure."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import av.error
import pytest

from fer_stream.capture.disconnect import classify_error
from tests.support.tcp_server import TcpServer

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader
    from tests.support.http_camera import HttpCamera

VIDEO = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:1\r\n"
)
AUDIO = VIDEO.replace("video", "audio").replace("H264/90000", "opus/48000/2")


class ScriptedRtsp(TcpServer):
    """RTSP server that answers requests with `replies` by method, and all others with 200."""

    def __init__(self, sdp: str = VIDEO, **replies: str) -> None:
        self._sdp = sdp
        self._replies = replies
        super().__init__()
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, client.makefile("r", newline="\r\n") as lines:
            request: list[str] = []
            for line in lines:
                if line.strip():
                    request.append(line)
                    continue
                method = request[0].split()[0]
                cseq = next(header for header in request if header.lower().startswith("cseq"))
                client.sendall(self._reply(method, cseq).encode())
                request = []

    def _reply(self, method: str, cseq: str) -> str:
        if method in self._replies:
            return f"RTSP/1.0 {self._replies[method]}\r\n{cseq}\r\n"
        if method == "DESCRIBE":
            head = f"Content-Type: application/sdp\r\nContent-Length: {len(self._sdp)}\r\n\r\n"
            return f"RTSP/1.0 200 OK\r\n{cseq}{head}{self._sdp}"
        return f"RTSP/1.0 200 OK\r\n{cseq}Session: 1\r\n\r\n"


@pytest.fixture
def rtsp() -> Iterator[Callable[..., ScriptedRtsp]]:
    servers: list[ScriptedRtsp] = []

    def make(sdp: str = VIDEO, **replies: str) -> ScriptedRtsp:
        servers.append(ScriptedRtsp(sdp, **replies))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("method", "status", "reason", "text"),
    [
        ("DESCRIBE", "401 Unauthorized", "unauthorized", "requires a login: set username and password"),
        ("DESCRIBE", "403 Forbidden", "unauthorized", "change the rights"),
        ("DESCRIBE", "404 Not Found", "not_found", "check the path"),
        ("DESCRIBE", "400 Bad Request", "network", "check path and scheme"),
        ("SETUP", "453 Not Enough Bandwidth", "network", "its limit of viewers"),
        ("SETUP", "503 Service Unavailable", "network", "starting or overloaded"),
    ],
)
def test_rtsp_errors(
    method: str, status: str, reason: str, text: str, rtsp: Callable[..., ScriptedRtsp], read: Callable[..., Reader]
) -> None:
    reader = read(rtsp(**{method: status}).url)
    reader.wait_for_reason(reason)
    assert text in reader.source.status.text


@pytest.mark.parametrize(("transport", "other"), [("tcp", "udp"), ("udp", "tcp")])
def test_refused_transport_names_the_other(
    transport: str, other: str, rtsp: Callable[..., ScriptedRtsp], read: Callable[..., Reader]
) -> None:
    reader = read(rtsp(SETUP="461 Unsupported Transport").url, transport=transport)
    reader.wait_for_reason("transport")
    text = f"the camera refuses RTSP over {transport.upper()}: set `transport: {other}`"
    assert reader.source.status.text == text


def test_stream_without_video(rtsp: Callable[..., ScriptedRtsp], read: Callable[..., Reader]) -> None:
    reader = read(rtsp(AUDIO).url)
    reader.wait_for_reason("no_video")
    assert "no video track" in reader.source.status.text


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "rtmp", "http", "https"])
def test_unknown_host(scheme: str, read: Callable[..., Reader], canary: str) -> None:
    reader = read(f"{scheme}://camera.invalid/x", username="me", password=canary)
    reader.wait_for_reason("unknown_host")
    assert "use the IP address" in reader.source.status.text


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "rtmp", "http", "https"])
def test_refused_connection(scheme: str, read: Callable[..., Reader], canary: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    reader = read(f"{scheme}://127.0.0.1:{port}/x", username="me", password=canary)
    reader.wait_for_reason("refused")
    assert "check address and port" in reader.source.status.text


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "rtmp", "http", "https"])
def test_silent_server(scheme: str, read: Callable[..., Reader], canary: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x"
        reader = read(url, username="me", password=canary, open_timeout_s=0.3)
        reader.wait_for_reason("timeout")
        assert "check address, port and firewall" in reader.source.status.text


def test_rtsp_on_the_port_of_the_web_page(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/").replace("http:", "rtsp:"))
    reader.wait(lambda: reader.source.status.reason in ("decode", "network"))
    assert "check scheme" in reader.source.status.text


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/html; charset=utf-8", b"<html>Login</html>"), ("application/json", b"{}"), ("text/xml", b"<a/>")],
)
def test_web_page_instead_of_a_stream(
    content_type: str, body: bytes, http_camera: HttpCamera, read: Callable[..., Reader]
) -> None:
    http_camera.pages["/"] = (content_type, body)
    reader = read(http_camera.url("/"))
    reader.wait_for_reason("no_video")
    assert "use the address of a stream or a snapshot" in reader.source.status.text


@pytest.mark.parametrize("path", ["/absent", "/empty", "/garbage"])
def test_other_content(path: str, http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    http_camera.pages |= {"/empty": ("video/mp4", b""), "/garbage": ("video/mp4", b"\0" * 5000)}
    reader = read(http_camera.url(path))
    reader.wait_for_reason("not_found" if path == "/absent" else "decode")
    assert "check" in reader.source.status.text


def test_missing_webcam(read: Callable[..., Reader]) -> None:
    reader = read("/dev/video99")
    reader.wait_for_reason("not_found")
    assert "check its number" in reader.source.status.text


def test_every_error_has_our_words_and_a_cure() -> None:
    kinds = {
        kind for kind in vars(av.error).values() if isinstance(kind, type) and issubclass(kind, av.error.FFmpegError)
    }
    errors: list[OSError | av.error.FFmpegError] = [kind(5, "FFmpeg's words") for kind in kinds]
    errors += [OSError(number, "words") for number in errno.errorcode]
    assert len(errors) > 100
    for error in errors:
        for transport in ("tcp", ""):
            text = classify_error(error, transport=transport).text
            assert "words" not in text
            assert ": " in text or text == "the camera ended the stream"
