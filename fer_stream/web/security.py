"""Access control of the web process: host names, tokens, origins, and security headers.

One middleware around the whole application, so that no route can be left unprotected. Only the health routes need no
token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_stream.errors import FerStreamError
from fer_stream.log import get_logger
from fer_stream.web.schemas import Problem, problem_of

if TYPE_CHECKING:
    from fer_stream.config.servers import WebSettings
    from fer_stream.metrics import Metrics

_log = get_logger(__name__)

PUBLIC_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that need no token, so that health probes do not have to be given one."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), display-capture=(), usb=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Default headers of every response; a route can override them."""


class SecurityMiddleware:
    """ASGI middleware: passes allowed requests on and answers all others with a problem.

    Converts exceptions of the application to problems, and counts responses by route and status.
    """

    def __init__(
        self, app: ASGIApp, settings: WebSettings, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._token = settings.token.get_secret_value() if settings.token else None
        self._hosts = {"localhost", settings.host.lower(), *settings.allowed_hosts}
        self._login_limiter = LoginRateLimiter(clock)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        responder = _Responder(send)
        try:
            self._check(scope)
            await self._app(scope, receive, responder.send)
        except Problem as problem:
            await responder.send_problem(problem, scope, receive)
        except FerStreamError as error:
            _log.error("request_failed", method=scope["method"], path=scope["path"], error=str(error))
            await responder.send_problem(problem_of(error), scope, receive)
        except Exception:  # noqa: BLE001 - clients must not see the traceback of an unexpected error
            _log.exception("request_handler_failed", method=scope["method"], path=scope["path"])
            await responder.send_problem(
                Problem(500, "Internal error.", "Check the log of the service."), scope, receive
            )
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.web_requests.labels(route, str(responder.status)).inc()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["path"] in PUBLIC_PATHS:
            return
        self._check_host(headers.get("host", ""))
        self._check_token(headers, scope["client"][0] if scope.get("client") else "")
        _check_site(headers)
        if scope["method"] not in _SAFE_METHODS:
            _check_origin(headers)

    def _check_host(self, host: str) -> None:
        """Refuse unknown host names, which another website could have pointed here (DNS rebinding).

        IP addresses are allowed: they cannot be rebound.
        """
        name = re.sub(r":\d+$", "", host).lower()
        if name not in self._hosts and not _is_ip_address(name):
            raise Problem(
                421,
                "Host not allowed.",
                "Use the IP address of the service, or add the host name to web.allowed_hosts.",
            )

    def _check_token(self, headers: Headers, client: str) -> None:
        if self._token is None:
            return
        token = _token_of(headers.get("authorization", ""))
        wait_s = self._login_limiter.wait_s(client)
        if token and wait_s > 0:
            raise Problem(
                429,
                "Too many wrong tokens from this address.",
                f"Wait {wait_s:.0f} seconds.",
                {"Retry-After": f"{wait_s:.0f}"},
            )
        if token and _equal(token, self._token):
            return
        if token:
            self._login_limiter.failed(client)
            _log.warning("wrong_token", client=client)
        raise Problem(
            401,
            "Wrong token." if token else "A token is required.",
            "Send `Authorization: Bearer TOKEN`, or any user name with the token as password.",
            {"WWW-Authenticate": 'Basic realm="fer-stream", charset="UTF-8", Bearer realm="fer-stream"'},
        )


class LoginRateLimiter:
    """Limit of wrong tokens per client address: 10 per minute. Remembers at most 1,024 addresses."""

    max_failures = 10
    window_s = 60.0
    max_addresses = 1024

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        count, until_s = self._failures.pop(address, (0, 0.0))
        now_s = self._clock()
        self._failures[address] = (count + 1, until_s) if now_s < until_s else (1, now_s + self.window_s)
        while len(self._failures) > self.max_addresses:
            self._failures.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """Return how many seconds the address stays blocked: 0 if it is not, otherwise at least 1."""
        count, until_s = self._failures.get(address, (0, 0.0))
        remaining_s = until_s - self._clock()
        return max(1.0, remaining_s) if count >= self.max_failures and remaining_s > 0 else 0.0


class _Responder:
    """Sends a response with the default headers, and keeps its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def send_problem(self, problem: Problem, scope: Scope, receive: Receive) -> None:
        """Send a problem, unless a response was already started."""
        if not self.status:
            await problem.response()(scope, receive, self.send)


def _token_of(authorization: str) -> str:
    """Return the bearer token or the password of basic authentication; an empty string if there is neither."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # not base64, or not UTF-8
            return ""
    return ""


def _equal(given: str, token: str) -> bool:
    """Compare in constant time. Hashes hide the length as well."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, token))
    return hmac.compare_digest(*digests)


def _is_ip_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _check_site(headers: Headers) -> None:
    """Refuse requests that another website makes through a browser (Fetch Metadata), except for navigation."""
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
    if site not in ("none", "same-origin") and mode != "navigate":
        raise Problem(403, "Request from another website refused.", "Open the page of the service itself.")


def _check_origin(headers: Headers) -> None:
    """Refuse changes that another website could trigger with the credentials of the user (CSRF)."""
    origin = headers.get("origin")
    same_origin = origin is not None and origin.partition("://")[2].lower() == headers.get("host", "").lower()
    # Forms and images cannot send these headers, and scripts of other origins would need a CORS preflight.
    custom_header = "x-requested-with" in headers or headers.get("authorization", "").lower().startswith("bearer ")
    if not same_origin and not (origin is None and custom_header):
        raise Problem(
            403,
            "Cannot verify that this change was requested by the page of the service or by a program.",
            "Send the header `X-Requested-With: fer-stream`, and no Origin other than the address of the service.",
        )
