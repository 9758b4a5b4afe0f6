"""Liveness and readiness of a process, and the HTTP endpoint with `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fer_stream.errors import ConfigError
from fer_stream.log import get_logger, redact_secrets

# A loop may wait 30 s for the queue and 30 s for the store in one pass. An unreachable server must not look like a
# hanging loop: restarting the process would not bring the server back.
_HEARTBEAT_TIMEOUT_S = 90.0
_CHECK_INTERVAL_S = 2.0
# A check takes 5 s if a server does not respond, and there are two servers.
_STALE_S = 15.0
_REQUEST_TIMEOUT_S = 5.0

_log = get_logger(__name__)

Check = Callable[[], str | None]
"""Returns a description of a problem, or None."""

Page = Callable[[str], tuple[int, str, bytes]]
"""Maps the `Accept` header to status, content type and body."""


class Health:
    """Liveness and readiness of a process. Thread-safe; reading it is cheap.

    The process is alive unless one of its loops, once started, sent no heartbeat for 90 s. It is ready when a loop
    has started and all checks pass.
    """

    def __init__(self, role: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._role = role
        self._now = monotonic
        self._heartbeats_s: dict[str, float] = {}
        self._checks: dict[str, Check] = {}
        self._problems: dict[str, str | None] = {}
        self._checked_s = monotonic()

    def heartbeat(self, loop: str = "main") -> None:
        """Record that a loop is running."""
        self._heartbeats_s[loop] = self._now()

    def add_check(self, name: str, check: Check) -> None:
        """Make readiness depend on `check`, which runs every 2 s and may take 5 s."""
        self._problems[name] = "not checked yet"
        self._checks[name] = check

    def run_checks(self) -> None:
        """Run all checks. A check that raises fails."""
        for name, check in list(self._checks.items()):
            self._problems[name] = self._run_check(name, check)
        self._checked_s = self._now()

    def _run_check(self, name: str, check: Check) -> str | None:
        try:
            problem = check()
        except Exception as error:  # noqa: BLE001 - the other checks and later runs must not be affected
            problem = f"check failed: {type(error).__name__}"
            if problem != self._problems[name]:
                _log.exception("health_check_failed", check=name)
        return None if problem is None else redact_secrets(problem)

    def watch(self, stop: threading.Event) -> None:
        """Run the checks every 2 s until `stop` is set."""
        while not stop.wait(_CHECK_INTERVAL_S):
            self.run_checks()

    def alive(self) -> tuple[bool, dict[str, object]]:
        """Return whether the process is alive, and a JSON document with details."""
        oldest_s = min(list(self._heartbeats_s.values()), default=None)
        age_s = None if oldest_s is None else self._now() - oldest_s
        alive = age_s is None or age_s < _HEARTBEAT_TIMEOUT_S
        return alive, {"alive": alive, "role": self._role, "last_heartbeat_s": age_s and round(age_s, 1)}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Return whether the process is ready, and a JSON document with the problems.

        It names sources, but contains no addresses and no passwords.
        """
        problems = {name: text for name, text in self._problems.items() if text is not None}
        if not self._heartbeats_s:
            problems["loop"] = "not started yet"
        if (age_s := self._now() - self._checked_s) > _STALE_S:
            problems["health"] = f"not checked for {age_s:.0f} s"
        return not problems, {"ready": not problems, "role": self._role, "problems": problems}


def serve_endpoint(host: str, port: int, registry: CollectorRegistry, health: Health) -> TCPServer:
    """Serve metrics and health on `host` and `port` in background threads until the returned server is shut down.

    Raises `ConfigError` if the address is not available.
    """
    pages: dict[str, Page] = {
        "/metrics": partial(_metrics, registry),
        "/healthz": partial(_health, health.alive),
        "/readyz": partial(_health, health.ready),
    }
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server(family, address, partial(_Handler, pages))
    except OSError as error:
        raise ConfigError(
            f"Cannot serve metrics on {host} port {port}: {error.strerror}. Choose another metrics.port or "
            f"metrics.host, or stop the program that uses the port."
        ) from None
    threading.Thread(target=server.serve_forever, name="endpoint", daemon=True).start()
    return server


def _metrics(registry: CollectorRegistry, accept: str) -> tuple[int, str, bytes]:
    encode, content_type = choose_encoder(accept)
    return 200, content_type, encode(registry)


def _health(get: Callable[[], tuple[bool, dict[str, object]]], _: str) -> tuple[int, str, bytes]:
    ok, document = get()
    return 200 if ok else 503, "application/json", json.dumps(document).encode() + b"\n"


class _Server(ThreadingMixIn, TCPServer):
    """A threading HTTP server. `HTTPServer` resolves its own name by DNS before it listens."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self, family: socket.AddressFamily, address: object, handler: Callable[..., BaseRequestHandler]
    ) -> None:
        self.address_family = family
        super().__init__(address, handler)  # type: ignore[arg-type]

    def handle_error(self, *_: object) -> None:
        """Log unexpected errors, but not clients that disconnect."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("request_handler_failed")


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_TIMEOUT_S
    """Timeout for receiving a request, so that an incomplete one does not block a thread."""

    def __init__(self, pages: Mapping[str, Page], *arguments: object) -> None:
        self._pages = pages
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        page = self._pages.get(urlsplit(self.path).path, _not_found)
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
        """Log nothing: metrics are scraped every few seconds."""


def _not_found(_: str) -> tuple[int, str, bytes]:
    return 404, "text/plain; charset=utf-8", b"Available pages: /metrics, /healthz, /readyz\n"
