"""Who may ask for what: hosts, tokens, origins, and the headers of every answer.

One layer around the whole application, so that no route can be forgotten. Health alone is open, and says no more
than that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_stream.config import WebSettings
from fer_stream.errors import FerStreamError
from fer_stream.metrics import Metrics
from fer_stream.web.problems import Problem, problem_of

_log = logging.getLogger(__name__)

OPEN = frozenset({"/healthz", "/readyz"})
"""Paths that need no token, so that whatever watches the process need not know it."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

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
"""Of every answer that does not say otherwise itself."""


class Guard:
    """ASGI middleware: lets through what is allowed, and answers the rest with a problem."""

    def __init__(
        self, app: ASGIApp, settings: WebSettings, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._token = settings.token.get_secret_value() if settings.token else None
        self._hosts = {"localhost", settings.host.lower(), *settings.allowed_hosts}
        self._attempts = Attempts(clock)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            self._check(scope)
            await self._app(scope, receive, answer.send)
        except Problem as problem:
            await answer.refuse(problem, scope, receive)
        except FerStreamError as error:
            _log.error("%s: %s", scope["path"], error)
            await answer.refuse(problem_of(error), scope, receive)
        except Exception:  # noqa: BLE001 - a fault that nobody foresaw must not show its stack to strangers
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await answer.refuse(
                Problem(500, "This should not have happened.", "Look at the log of the service."), scope, receive
            )
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.web_requests.labels(route, str(answer.status)).inc()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["path"] in OPEN:
            return
        self._check_host(headers.get("host", ""))
        self._check_token(headers, scope["client"][0] if scope.get("client") else "")
        _check_site(headers)
        if scope["method"] not in _SAFE:
            _check_origin(headers)

    def _check_host(self, host: str) -> None:
        """Refuse names that are not ours: a website could have its own name lead here. An address cannot lie so."""
        name = re.sub(r":\d+$", "", host).lower()
        if name not in self._hosts and not _is_address(name):
            raise Problem(
                421,
                "This service is not known under the name by which it was called.",
                "Call it by its address, or add the name to web.allowed_hosts.",
            )

    def _check_token(self, headers: Headers, client: str) -> None:
        if self._token is None:
            return
        shown = _shown_token(headers.get("authorization", ""))
        wait_s = self._attempts.wait_s(client)
        if shown and wait_s > 0:
            raise Problem(
                429,
                "Too many wrong tokens came from this address.",
                f"Wait {wait_s:.0f} seconds.",
                {"Retry-After": f"{wait_s:.0f}"},
            )
        if shown and _same(shown, self._token):
            return
        if shown:
            self._attempts.failed(client)
            _log.warning("a wrong token came from %s", client)
        raise Problem(
            401,
            "This needs the token of the service." if not shown else "This is not the token of the service.",
            "Send `Authorization: Bearer TOKEN`, or any user name with the token as password.",
            {"WWW-Authenticate": 'Basic realm="fer-stream", charset="UTF-8", Bearer realm="fer-stream"'},
        )


class Attempts:
    """Counts wrong tokens by address: ten a minute, and no more addresses than fit into little memory."""

    most = 10
    window_s = 60.0
    addresses = 1024

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def failed(self, address: str) -> None:
        """Take note of a wrong token."""
        count, until_s = self._failures.pop(address, (0, 0.0))
        now_s = self._clock()
        self._failures[address] = (count + 1, until_s) if now_s < until_s else (1, now_s + self.window_s)
        while len(self._failures) > self.addresses:
            self._failures.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """For how long nothing is taken from this address; at least 1 if at all."""
        count, until_s = self._failures.get(address, (0, 0.0))
        left_s = until_s - self._clock()
        return max(1.0, left_s) if count >= self.most and left_s > 0 else 0.0


class _Answer:
    """What goes back: with our headers, and known by its status."""

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

    async def refuse(self, problem: Problem, scope: Scope, receive: Receive) -> None:
        """Answer with a problem, if the answer has not begun."""
        if not self.status:
            await problem.response()(scope, receive, self.send)


def _shown_token(authorization: str) -> str:
    """The token of a bearer, or the password of any user; empty where there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, no UTF-8, no ASCII
            return ""
    return ""


def _same(shown: str, token: str) -> bool:
    """Compare in a time that tells nothing, not even of the length."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (shown, token))
    return hmac.compare_digest(*digests)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _check_site(headers: Headers) -> None:
    """Refuse what another website has a browser fetch; a link that leads here is fine."""
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
    if site not in ("none", "same-origin") and mode != "navigate":
        raise Problem(403, "Another website asks for this.", "Open the page of the service itself.")


def _check_origin(headers: Headers) -> None:
    """Refuse a change that another website may have a browser ask for, with the user's own credentials."""
    origin = headers.get("origin")
    ours = origin is not None and origin.partition("://")[2].lower() == headers.get("host", "").lower()
    # No form and no image can send these headers, and a script of another site would need our leave.
    deliberate = "x-requested-with" in headers or headers.get("authorization", "").lower().startswith("bearer ")
    if not ours and not (origin is None and deliberate):
        raise Problem(
            403,
            "Nothing says that this change was asked for by our own page or by a program.",
            "Send the header `X-Requested-With: fer-stream`, and no Origin other than the address of the service.",
        )
