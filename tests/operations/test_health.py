"""Health as it is worked out, and as it is told over HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from fer_stream.errors import ConfigError
from fer_stream.metrics import Metrics
from fer_stream.service.endpoint import serve_endpoint
from fer_stream.service.health import Health

Fetch = Callable[[str], tuple[int, str]]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health("classify", clock)


def test_a_process_that_starts_is_alive_and_not_ready(health: Health, clock: Clock) -> None:
    clock.now_s += 500
    health.look()
    assert health.alive() == (True, {"alive": True, "role": "classify", "last_beat_s": None})
    ready, told = health.ready()
    assert (ready, told["missing"]) == (False, {"loop": "not begun yet"})


def test_a_loop_that_hangs_is_not_alive_and_one_that_waits_for_a_server_is(health: Health, clock: Clock) -> None:
    health.beat()
    clock.now_s += 65  # 30 s of patience with the queue, and 30 s with the store
    assert health.alive()[0]
    clock.now_s += 60
    assert health.alive() == (False, {"alive": False, "role": "classify", "last_beat_s": 125.0})
    health.beat()
    assert health.alive()[0]


def test_what_is_missing_is_told_without_secrets(health: Health) -> None:
    missing: list[str | None] = ["redis://me:canary@host does not answer"]
    health.beat()
    health.need("queue", lambda: missing[-1])
    health.need("store", lambda: None)
    assert health.ready()[1]["missing"] == {"queue": "not looked at yet", "store": "not looked at yet"}
    health.look()
    assert health.ready() == (
        False,
        {"ready": False, "role": "classify", "missing": {"queue": "redis://***@host does not answer"}},
    )
    missing.append(None)
    health.look()
    assert health.ready() == (True, {"ready": True, "role": "classify", "missing": {}})


def test_a_need_that_cannot_be_asked_is_not_met_and_keeps_no_other_waiting(
    health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    faults: list[Exception] = [ArithmeticError("what nobody thought of"), ArithmeticError("again")]

    def need() -> None:
        if faults:
            raise faults.pop(0)

    health.beat()
    health.need("model", need)
    health.need("queue", lambda: None)
    for _ in range(2):
        health.look()
        assert health.ready()[1]["missing"] == {"model": "cannot be asked: ArithmeticError"}
    assert caplog.text.count("ArithmeticError: ") == 1, "told once"
    health.look()
    assert health.ready()[0]


def test_what_was_seen_long_ago_counts_no_more(health: Health, clock: Clock) -> None:
    health.beat()
    health.look()
    clock.now_s += 14
    assert health.ready()[0]
    clock.now_s += 10
    assert health.ready()[1]["missing"] == {"health": "not looked at for 24 s"}


@pytest.fixture(params=["127.0.0.1", "::1", "0.0.0.0"])
def address(request: pytest.FixtureRequest, health: Health) -> Iterator[str]:
    """Where a process with health answers, and the address to ask."""
    host: str = request.param
    registry = CollectorRegistry()
    Metrics(registry).redelivered.inc()
    try:
        server = serve_endpoint(host, 0, registry, health)
    except ConfigError:
        pytest.skip(f"this machine has no {host}")
    port = server.server_address[1]
    yield f"http://{'[::1]' if host == '::1' else '127.0.0.1'}:{port}"
    server.shutdown()
    server.server_close()


def test_metrics_and_health_are_told_over_http(address: str, health: Health, clock: Clock, fetch: Fetch) -> None:
    status, text = fetch(f"{address}/metrics")
    assert (status, "fer_redelivered_total 1.0" in text) == (200, True)
    assert fetch(f"{address}/healthz")[0] == 200
    status, text = fetch(f"{address}/readyz?verbose")
    assert (status, json.loads(text)["missing"]) == (503, {"loop": "not begun yet"})
    health.beat()
    assert fetch(f"{address}/readyz")[0] == 200
    clock.now_s += 200
    assert fetch(f"{address}/healthz")[0] == 503
    assert fetch(f"{address}/")[0] == fetch(f"{address}/../etc/passwd")[0] == 404


def test_a_visitor_who_says_nothing_keeps_nobody_else_waiting(address: str, fetch: Fetch) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    idle = [socket.create_connection((host.strip("[]"), int(port))) for _ in range(20)]
    idle[0].sendall(b"GET /metrics HTTP/1.1\r\nHost:")
    assert fetch(f"{address}/metrics")[0] == 200
    for visitor in idle:
        visitor.close()


def test_who_asks_learns_nothing_of_what_serves(address: str) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port))) as visitor:
        visitor.sendall(b"HEAD /readyz HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: visitor.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.0 503")
    assert "Server: fer-stream\r\n" in answer
    assert answer.endswith("\r\n\r\n")


def test_a_port_that_is_in_use_is_an_error_that_says_so(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1 port {port}: Address already in use.*metrics.port"):
            serve_endpoint("127.0.0.1", port, CollectorRegistry(), health)
    with pytest.raises(ConfigError, match=r"metrics cannot be served on 192\.0\.2\.1 port 9464"):
        serve_endpoint("192.0.2.1", 9464, CollectorRegistry(), health)
