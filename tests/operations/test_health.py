"""Health checks and the HTTP endpoint that serves them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from fer_stream.errors import ConfigError
from fer_stream.metrics import Metrics
from fer_stream.service.health import Health, serve_endpoint

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


def test_starting_process_is_alive_but_not_ready(health: Health, clock: Clock) -> None:
    clock.now_s += 500
    health.run_checks()
    assert health.alive() == (True, {"alive": True, "role": "classify", "last_heartbeat_s": None})
    ready, document = health.ready()
    assert (ready, document["problems"]) == (False, {"loop": "not started yet"})


def test_hanging_loop_is_not_alive_but_waiting_for_servers_is(health: Health, clock: Clock) -> None:
    health.heartbeat()
    clock.now_s += 65  # timeouts of 30 s for the queue and 30 s for the store
    assert health.alive()[0]
    clock.now_s += 60
    assert health.alive() == (False, {"alive": False, "role": "classify", "last_heartbeat_s": 125.0})
    health.heartbeat()
    assert health.alive()[0]


def test_problems_contain_no_secrets(health: Health) -> None:
    problems: list[str | None] = ["redis://me:canary@host does not answer"]
    health.heartbeat()
    health.add_check("queue", lambda: problems[-1])
    health.add_check("store", lambda: None)
    assert health.ready()[1]["problems"] == {"queue": "not checked yet", "store": "not checked yet"}
    health.run_checks()
    assert health.ready() == (
        False,
        {"ready": False, "role": "classify", "problems": {"queue": "redis://***@host does not answer"}},
    )
    problems.append(None)
    health.run_checks()
    assert health.ready() == (True, {"ready": True, "role": "classify", "problems": {}})


def test_check_that_raises_fails_and_does_not_affect_others(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = [ArithmeticError("unexpected"), ArithmeticError("again")]

    def check() -> None:
        if faults:
            raise faults.pop(0)

    health.heartbeat()
    health.add_check("model", check)
    health.add_check("queue", lambda: None)
    for _ in range(2):
        health.run_checks()
        assert health.ready()[1]["problems"] == {"model": "check failed: ArithmeticError"}
    assert caplog.text.count("ArithmeticError: ") == 1, "logged once"
    health.run_checks()
    assert health.ready()[0]


def test_stale_checks_make_a_process_not_ready(health: Health, clock: Clock) -> None:
    health.heartbeat()
    health.run_checks()
    clock.now_s += 14
    assert health.ready()[0]
    clock.now_s += 10
    assert health.ready()[1]["problems"] == {"health": "not checked for 24 s"}


@pytest.fixture(params=["127.0.0.1", "::1", "0.0.0.0"])
def address(request: pytest.FixtureRequest, health: Health) -> Iterator[str]:
    """Return the address of a running endpoint."""
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


def test_metrics_and_health_are_served_over_http(address: str, health: Health, clock: Clock, fetch: Fetch) -> None:
    status, text = fetch(f"{address}/metrics")
    assert (status, "fer_redelivered_total 1.0" in text) == (200, True)
    assert fetch(f"{address}/healthz")[0] == 200
    status, text = fetch(f"{address}/readyz?verbose")
    assert (status, json.loads(text)["problems"]) == (503, {"loop": "not started yet"})
    health.heartbeat()
    assert fetch(f"{address}/readyz")[0] == 200
    clock.now_s += 200
    assert fetch(f"{address}/healthz")[0] == 503
    assert fetch(f"{address}/")[0] == fetch(f"{address}/../etc/passwd")[0] == 404


def test_idle_connections_do_not_block_other_clients(address: str, fetch: Fetch) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    idle = [socket.create_connection((host.strip("[]"), int(port))) for _ in range(20)]
    idle[0].sendall(b"GET /metrics HTTP/1.1\r\nHost:")
    assert fetch(f"{address}/metrics")[0] == 200
    for client in idle:
        client.close()


def test_server_header_reveals_no_versions(address: str) -> None:
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port))) as client:
        client.sendall(b"HEAD /readyz HTTP/1.0\r\n\r\n")
        response = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    assert response.startswith("HTTP/1.0 503")
    assert "Server: fer-stream\r\n" in response
    assert response.endswith("\r\n\r\n")


def test_port_in_use_is_reported(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1 port {port}: Address already in use.*metrics.port"):
            serve_endpoint("127.0.0.1", port, CollectorRegistry(), health)
    with pytest.raises(ConfigError, match=r"Cannot serve metrics on 192\.0\.2\.1 port 9464"):
        serve_endpoint("192.0.2.1", 9464, CollectorRegistry(), health)
