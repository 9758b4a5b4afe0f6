"""Health check of the containers, against the endpoint of a process."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fer_stream.service.health import Health, serve_endpoint

SCRIPT = Path(__file__).resolve().parent.parent.parent / "docker" / "healthcheck.py"


class Process:
    """A process with a clock that the test sets, and the signals that the check sends to process 1."""

    def __init__(self, port: int) -> None:
        self.now_s = 0.0
        self.health = Health("classify", lambda: self.now_s)
        self.port = port
        self.signals: list[tuple[int, int]] = []

    def check(self) -> int:
        return int(runpy.run_path(str(SCRIPT))["main"](f"http://127.0.0.1:{self.port}"))


@pytest.fixture
def process(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    process = Process(free_port())
    monkeypatch.setattr(os, "kill", lambda *arguments: process.signals.append(arguments))
    server = serve_endpoint("127.0.0.1", process.port, CollectorRegistry(), process.health)
    yield process
    server.shutdown()
    server.server_close()


def test_ready_process_is_healthy_and_one_that_starts_is_not(process: Process) -> None:
    assert process.check() == 1
    process.health.heartbeat()
    assert process.check() == 0
    assert process.signals == []


def test_process_without_its_server_is_unhealthy_and_left_running(process: Process) -> None:
    process.health.heartbeat()
    process.health.add_check("queue", lambda: "unreachable")
    process.health.run_checks()
    assert process.check() == 1
    assert process.signals == []


def test_process_whose_main_loop_has_stopped_is_terminated(process: Process) -> None:
    process.health.heartbeat()
    process.now_s = 100.0
    assert process.check() == 1
    assert process.signals == [(1, signal.SIGTERM)]


def test_check_without_a_process_fails(free_port: Callable[[], int]) -> None:
    assert runpy.run_path(str(SCRIPT))["main"](f"http://127.0.0.1:{free_port()}") == 1
