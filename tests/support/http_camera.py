"""Simulated camera over HTTP, and a TLS front for any camera."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.tcp_server import TcpServer

JPEG_FPS = 10
SEGMENT_S = 1.0
SEGMENTS = 12
NONCE = "n0nce"
STREAMS = ("/mjpeg", "/short", "/noise", "/unsupported", "/locked")


def unsupported_jpeg(valid: bytes) -> bytes:
    """Change the chroma subsampling of a JPEG to 3×3, which FFmpeg does not implement."""
    sampling = valid.index(b"\xff\xc0") + 11
    return valid[:sampling] + b"\x33" + valid[sampling + 1 :]


class Request(NamedTuple):
    """One request that a camera received."""

    path: str
    authorization: str | None
    at_s: float


class HttpCamera(ThreadingHTTPServer):
    """Camera over HTTP with one path per behaviour.

    /mjpeg does not end, /short ends after 5 frames, /noise sends data that is not JPEG, /unsupported alternates valid
    frames with ones that FFmpeg cannot decode, /locked needs a password; /live.m3u8 is a live playlist. `pages` maps
    further paths to (content type, body), `redirects` to a location. Paths below /basic/ and /digest/ require
    `login`; `requests` lists what was asked.
    """

    daemon_threads = True

    def __init__(self, segments: Path, jpeg: bytes, login: tuple[str, str] = ("user", "canary-7f3a91")) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jpeg = jpeg
        self.segments = segments
        self.login = login
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[Request] = []
        self.started_s = time.monotonic()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path: str, userinfo: str = "", host: str = "127.0.0.1") -> str:
        return f"http://{userinfo}{host}:{self.server_port}{path}"

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def playlist(self) -> bytes:
        """Return the three newest segments of a stream that started three segments before the server."""
        end = min(SEGMENTS, 3 + int((time.monotonic() - self.started_s) / SEGMENT_S))
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{end - 3}"]
        for number in range(end - 3, end):
            lines += [f"#EXTINF:{SEGMENT_S},", f"{number}.ts"]
        return "\n".join([*lines, ""]).encode()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpCamera

    def do_GET(self) -> None:
        self.server.requests.append(Request(self.path, self.headers["Authorization"], time.monotonic()))
        path = self.path
        if not self._is_authorized():
            return
        if path in self.server.redirects:
            self._respond(302, {"Location": self.server.redirects[path]})
        elif path in self.server.pages:
            kind, body = self.server.pages[path]
            self._respond(200, {"Content-Type": kind}, body)
        elif path.endswith(".m3u8"):
            self._respond(200, {}, self.server.playlist())
        elif path.endswith(".ts"):
            self._respond(200, {}, (self.server.segments / path.rpartition("/")[2]).read_bytes())
        elif path in STREAMS:
            self._play()
        else:
            self._respond(404)

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""

    def _is_authorized(self) -> bool:
        given = self.headers["Authorization"] or ""
        if self.path.startswith("/digest/"):
            challenge, valid = f'Digest realm="camera", nonce="{NONCE}", qop="auth"', self._is_valid_digest(given)
        elif self.path.startswith("/basic/") or self.path == "/locked":
            challenge, valid = 'Basic realm="camera"', given == "Basic dXNlcjpjYW5hcnktN2YzYTkx"
        else:
            return True
        if not valid:
            self._respond(401, {"WWW-Authenticate": challenge})
        return valid

    def _is_valid_digest(self, given: str) -> bool:
        fields = {
            name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', given)
        }
        if "response" not in fields:
            return False
        user, password = self.server.login
        secret = _md5(f"{user}:camera:{password}")
        middle = ":".join(fields[key] for key in ("nonce", "nc", "cnonce", "qop"))
        return bool(fields["response"] == _md5(f"{secret}:{middle}:{_md5(f'GET:{self.path}')}"))

    def _respond(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _play(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        bodies: Iterable[bytes] = [b"\xff\xd8" + b"noise" * 100 if self.path == "/noise" else self.server.jpeg]
        if self.path == "/unsupported":
            bodies = [*bodies, unsupported_jpeg(self.server.jpeg)]
        for body in islice(cycle(bodies), 5 if self.path == "/short" else 10_000):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + body + b"\r\n")
            except OSError:
                return  # the client disconnected
            time.sleep(1 / JPEG_FPS)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class TlsFront(TcpServer):
    """TLS server in front of a camera on 127.0.0.1. `received` is what clients sent, decrypted."""

    def __init__(self, context: ssl.SSLContext, camera_port: int) -> None:
        self.received = b""
        self.handshakes = 0
        self._context = context
        self._camera_port = camera_port
        super().__init__()

    def _serve(self, client: socket.socket) -> None:
        try:
            decrypted = self._context.wrap_socket(client, server_side=True)
            self.handshakes += 1
            camera = socket.create_connection(("127.0.0.1", self._camera_port))
        except OSError:  # the client refused the certificate
            client.close()
            return
        threading.Thread(target=self._relay, args=(camera, decrypted), daemon=True).start()
        self._relay(decrypted, camera, record=True)

    def _relay(self, source: socket.socket, target: socket.socket, *, record: bool = False) -> None:
        try:
            while data := source.recv(65536):
                if record:
                    self.received += data
                target.sendall(data)
        except OSError:
            pass
        finally:
            for connection in (source, target):
                connection.close()
