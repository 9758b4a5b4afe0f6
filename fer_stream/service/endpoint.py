"""What a process tells over HTTP: `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from threading import Thread
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fer_stream.errors import ConfigError
from fer_stream.service.health import Health

_log = logging.getLogger(__name__)

Page = Callable[[str], tuple[int, str, bytes]]
"""The header Accept → status, content type and body."""


def serve_endpoint(host: str, port: int, registry: CollectorRegistry, health: Health) -> TCPServer:
    """Answer on `host` and `port` in threads of the background, until the server that is returned is shut down.

    Raises `ConfigError` where that address cannot be had.
    """
    pages: dict[str, Page] = {
        "/metrics": partial(_metrics, registry),
        "/healthz": partial(_told, health.alive),
        "/readyz": partial(_told, health.ready),
    }
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server(family, address, partial(_Handler, pages))
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be served on {host} port {port}: {error.strerror}. Choose another metrics.port or "
            f"metrics.host, or end what listens there"
        ) from None
    Thread(target=server.serve_forever, name="endpoint", daemon=True).start()
    return server


def _metrics(registry: CollectorRegistry, accept: str) -> tuple[int, str, bytes]:
    encode, content_type = choose_encoder(accept)
    return 200, content_type, encode(registry)


def _told(ask: Callable[[], tuple[bool, dict[str, object]]], _: str) -> tuple[int, str, bytes]:
    good, told = ask()
    return 200 if good else 503, "application/json", json.dumps(told).encode() + b"\n"


class _Server(ThreadingMixIn, TCPServer):
    """Not `HTTPServer`, which asks the DNS for our name before it listens."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self, family: socket.AddressFamily, address: object, handler: Callable[..., BaseRequestHandler]
    ) -> None:
        self.address_family = family
        super().__init__(address, handler)  # type: ignore[arg-type]

    def handle_error(self, *_: object) -> None:
        """Whoever asked and went away before the answer is no event either."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("a page cannot be told")


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0
    """Seconds for a request to come in; a half-sent one must not keep a thread."""

    def __init__(self, pages: Mapping[str, Page], *arguments: object) -> None:
        self._pages = pages
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        page = self._pages.get(urlsplit(self.path).path, _unknown)
        status, content_type, body = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def version_string(self) -> str:
        return "fer-stream"

    def log_message(self, *_: object) -> None:
        """A scrape every few seconds is no event."""


def _unknown(_: str) -> tuple[int, str, bytes]:
    return 404, "text/plain; charset=utf-8", b"/metrics, /healthz and /readyz are here\n"
