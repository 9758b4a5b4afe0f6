"""Access control. The tests enumerate all routes, so new routes are covered automatically."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from fer_stream.web.security import HEADERS, PUBLIC_PATHS, LoginRateLimiter

if TYPE_CHECKING:
    from tests.web.conftest import Web

TOKEN = "correct-horse-battery-staple"
CSRF_HEADERS = {"X-Requested-With": "pytest"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def every_request(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path of each route, with values for path parameters."""
    for path, methods in flattened(app.routes):
        for method in methods:
            yield method, path.format(name="door", job_id="abc")


def flattened(routes: list[BaseRoute]) -> Iterator[tuple[str, set[str]]]:
    for route in routes:
        if isinstance(route, Route | APIRoute):
            yield route.path, set(route.methods or {"GET"})
        elif isinstance(route, Mount):
            yield f"{route.path}/", {"GET"}
        else:  # an included router of FastAPI
            included = route.effective_candidates()  # type: ignore[attr-defined]
            yield from ((each.path, set(each.methods)) for each in included)


@pytest.fixture
def locked(make_web: Callable[..., Web]) -> Web:
    return make_web(token=TOKEN)


def test_enumeration_has_every_route(web: Web) -> None:
    requests = set(every_request(web.app))
    documented = {
        (method.upper(), path.format(name="door", job_id="abc"))
        for path, methods in web.app.openapi()["paths"].items()
        for method in methods
    }
    assert documented | {("GET", "/"), ("GET", "/api/v1/openapi.json")} <= requests
    assert len(documented) >= 17


def test_only_health_is_available_without_the_token(locked: Web) -> None:
    for method, path in [*every_request(locked.app), ("GET", "/nothing"), ("POST", "/"), ("GET", "/index.html")]:
        for headers in ({}, bearer("wrong" * 5), basic("me", "wrong"), {"Authorization": "Basic ?"}):
            locked.app.middleware_stack = None  # resets the rate limit, which has its own test
            response = locked.client.request(method, path, headers={**CSRF_HEADERS, **headers})
            if path in PUBLIC_PATHS:
                assert response.status_code < 400, (method, path)
                assert response.json() == {"status": "ok"} or method == "HEAD"
            else:
                assert response.status_code == 401, (method, path)
                assert response.headers["www-authenticate"].startswith('Basic realm="fer-stream"')
                assert method == "HEAD" or set(response.json()) == {"type", "title", "status", "detail", "hint"}


def test_token_gives_access_to_every_route(locked: Web) -> None:
    for method, path in every_request(locked.app):
        if path.endswith("/live"):
            continue
        for headers in (bearer(TOKEN), basic("anybody", TOKEN), basic("", TOKEN)):
            response = locked.client.request(method, path, headers={**CSRF_HEADERS, **headers})
            assert response.status_code not in (401, 403, 429, 500), (method, path)
    with locked.client.stream("GET", "/api/v1/live", headers=basic("me", TOKEN)) as response:
        assert response.status_code == 200


def test_non_ascii_header_is_not_a_token(locked: Web) -> None:
    for scheme in ("Basic", "Bearer"):
        response = locked.get("/sources", headers=[(b"Authorization", f"{scheme} ü".encode())])
        assert response.status_code == 401, scheme


def test_wrong_tokens_are_limited_and_logged_without_value(locked: Web, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "surely-not-the-right-one"
    with caplog.at_level(logging.WARNING):
        codes = [locked.get("/sources", headers=bearer(wrong)).status_code for _ in range(12)]
        assert codes == [401] * 10 + [429] * 2
        blocked = locked.get("/sources", headers=bearer(TOKEN))
    assert blocked.status_code == 429
    assert 1 <= int(blocked.headers["retry-after"]) <= 60
    assert locked.client.get("/healthz").status_code == 200
    records = [vars(record) for record in caplog.records if record.name.startswith("fer_stream.web")]
    assert [(record["message"], record["client"]) for record in records] == [("wrong_token", "127.0.0.1")] * 10
    assert wrong not in str(records)
    assert TOKEN not in str(records)


def wrong_token_of(web: Web, client: str) -> int:
    return web.get("/sources", headers={**bearer("surely-not-the-right-one"), "X-Forwarded-For": client}).status_code


def test_forwarded_address_is_ignored_without_trusted_proxies(locked: Web) -> None:
    assert [wrong_token_of(locked, f"192.0.2.{number}") for number in range(12)] == [401] * 10 + [429] * 2


@pytest.mark.parametrize("proxies", [["127.0.0.1"], ["10.0.0.0/8", "127.0.0.0/8"]])
def test_forwarded_address_of_a_trusted_proxy_is_used(make_web: Callable[..., Web], proxies: list[str]) -> None:
    web = make_web(token=TOKEN, trusted_proxies=proxies)
    assert [wrong_token_of(web, f"192.0.2.{number}, 203.0.113.9") for number in range(12)] == [401] * 10 + [429] * 2
    assert wrong_token_of(web, "198.51.100.7") == 401
    right = web.get("/sources", headers={**bearer(TOKEN), "X-Forwarded-For": "198.51.100.7"})
    assert right.status_code == 200


def test_forwarded_address_of_another_proxy_is_ignored(make_web: Callable[..., Web]) -> None:
    web = make_web(token=TOKEN, trusted_proxies=["192.0.2.0/24"])
    assert [wrong_token_of(web, f"192.0.2.{number}") for number in range(12)] == [401] * 10 + [429] * 2


def test_rate_limit_expires_after_a_minute_and_has_bounded_memory() -> None:
    now_s = 0.0
    limiter = LoginRateLimiter(lambda: now_s)
    for _ in range(10):
        limiter.failed("10.0.0.1")
    assert limiter.wait_s("10.0.0.1") == 60
    assert limiter.wait_s("10.0.0.2") == 0
    now_s = 60.5
    assert limiter.wait_s("10.0.0.1") == 0
    limiter.failed("10.0.0.1")
    assert limiter.wait_s("10.0.0.1") == 0
    for number in range(5000):
        limiter.failed(f"host-{number}")
    assert len(limiter._failures) == LoginRateLimiter.max_addresses


def test_localhost_and_ip_addresses_are_allowed_hosts(web: Web) -> None:
    for host in ("127.0.0.1", "localhost", "localhost:8080", "[::1]:80", "192.0.2.7:8080", "LOCALHOST"):
        assert web.get("/sources", headers={"Host": host}).status_code == 200, host


def test_other_host_names_are_refused(web: Web) -> None:
    """DNS rebinding: a website can point its own name at the service to read its data."""
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.nip.io"):
        for path in ("/", "/api/v1/sources"):
            response = web.client.get(path, headers={"Host": host})
            assert response.status_code == 421, host
            assert "web.allowed_hosts" in response.json()["hint"]
        assert web.client.get("/healthz", headers={"Host": host}).status_code == 200


def test_additional_hosts_can_be_allowed(make_web: Callable[..., Web]) -> None:
    web = make_web(allowed_hosts=["Cameras.Example"])
    assert web.get("/sources", headers={"Host": "cameras.example:8080"}).status_code == 200
    assert web.get("/sources", headers={"Host": "other.example"}).status_code == 421


CHANGES = [
    ({}, False),
    ({"Origin": "{self}"}, True),
    ({"Origin": "http://127.0.0.1:1"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "https://evil.example", **CSRF_HEADERS}, False),
    (CSRF_HEADERS, True),
    ({"Authorization": "Bearer x"}, True),
    ({"Authorization": "Basic eDp5"}, False),
    ({"Origin": "{self}", "Sec-Fetch-Site": "same-origin"}, True),
    ({**CSRF_HEADERS, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False),
]


def test_changes_must_come_from_the_page_or_a_program(web: Web) -> None:
    changes = [(method, path) for method, path in every_request(web.app) if method not in ("GET", "HEAD")]
    assert len(changes) >= 4
    for headers, allowed in CHANGES:
        sent = {name: value.format(self=web.address) for name, value in headers.items()}
        for method, path in changes:
            response = web.client.request(method, path, headers=sent)
            assert (response.status_code != 403) == allowed, (method, path, headers, response.text)


def test_requests_of_other_websites_are_refused_but_links_work(web: Web) -> None:
    for site in ("cross-site", "same-site"):
        fetched = web.get("/sources", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
        assert fetched.status_code == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
        assert web.client.get("/", headers=link).status_code == 200


def test_every_response_has_security_headers_and_no_cors(locked: Web) -> None:
    asked = [*every_request(locked.app), ("GET", "/nothing"), ("OPTIONS", "/api/v1/sources")]
    for method, path in asked:
        if path.endswith("/live"):
            continue
        for headers in ({}, bearer(TOKEN)):
            sent = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET", **headers}
            response = locked.client.request(method, path, headers=sent)
            for name, value in HEADERS.items():
                if name != "Cache-Control":
                    assert response.headers[name] == value, (method, path, name)
            assert not [name for name in response.headers if name.startswith("access-control-")]
            assert "server" not in response.headers
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_unexpected_error_reveals_nothing(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[str]:
        raise RuntimeError("rtsp://me:secret@camera broke")

    monkeypatch.setattr(web.store, "sources", broken)
    response = web.get("/sources")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "Internal error."
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    failed = vars(next(record for record in caplog.records if record.message == "request_handler_failed"))
    assert (failed["method"], failed["path"]) == ("GET", "/api/v1/sources")


def test_requests_are_counted_by_route_not_by_path(web: Web) -> None:
    for name in ("one", "two"):
        web.get(f"/sources/{name}")
        web.client.get(f"/{name}")
    assert web.metric("fer_web_requests_total", route="/api/v1/sources/{name}", status="404") == 2
    paths = {sample.labels.get("route") for metric in web.registry.collect() for sample in metric.samples}
    assert not {path for path in paths if path and ("one" in path or "two" in path)}
