"""Readiness of single processes, as run in containers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.waiting import wait_until

Fetch = Callable[[str], tuple[int, str]]


class Containers:
    """Single processes with shared settings, and two Redis servers that can be suspended."""

    def __init__(self, folder: Path, servers: dict[str, tuple[int, subprocess.Popen[bytes]]], fetch: Fetch) -> None:
        self._servers = servers
        self._config = folder / "live.yaml"
        self._log = folder / "log"
        self._fetch = fetch
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        settings = {name: {"url": f"redis://127.0.0.1:{port}"} for name, (port, _) in servers.items()}
        self._config.write_text(yaml.safe_dump(settings))

    def start(self, role: str, port: int) -> None:
        command = [sys.executable, "-m", "fer_stream.cli", "worker", role, "--config", str(self._config)]
        with self._log.open("ab") as log:
            process = subprocess.Popen([*command, "--metrics-port", str(port)], stdout=log, stderr=log)
        self._processes[port] = process

    def suspend(self, server: str) -> None:
        self._servers[server][1].send_signal(signal.SIGSTOP)

    def resume(self, server: str) -> None:
        self._servers[server][1].send_signal(signal.SIGCONT)

    def page(self, port: int, path: str) -> tuple[int, str]:
        return self._fetch(f"http://127.0.0.1:{port}{path}")

    def problems(self, port: int) -> Any:
        """Return the problems of a process, which must be alive."""
        assert self.page(port, "/healthz")[0] == 200
        status, body = self.page(port, "/readyz")
        problems = json.loads(body)["problems"]
        assert (status == 200) == (problems == {})
        return problems

    def wait(self, condition: Callable[[], Any]) -> None:
        wait_until(condition, 120, describe=lambda: self._log.read_text()[-3000:], ignore=OSError)

    def kill(self, port: int) -> None:
        self._processes[port].kill()
        self._processes.pop(port).wait()

    def end(self) -> None:
        for server in self._servers:
            self.resume(server)
        for port in list(self._processes):
            self.kill(port)


@pytest.fixture
def containers(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    fetch: Fetch,
) -> Iterator[Containers]:
    ports = {name: free_port() for name in ("queue", "store")}
    servers = {name: (port, redis_server(tmp_path, port)) for name, port in ports.items()}
    made = Containers(tmp_path, servers, fetch)
    yield made
    made.end()


def test_readiness_depends_only_on_the_servers_a_process_uses(
    containers: Containers, free_port: Callable[[], int]
) -> None:
    roles = {role: free_port() for role in ("capture", "classify", "timeline")}
    standby = free_port()
    for role, port in roles.items():
        containers.start(role, port)
    containers.wait(lambda: all(containers.problems(port) == {} for port in roles.values()))
    containers.start("timeline", standby)
    containers.wait(lambda: containers.problems(standby) == {})
    exported = [("fer_queue_depth{" in containers.page(port, "/metrics")[1]) for port in (roles["timeline"], standby)]
    assert exported == [True, False]

    containers.suspend("queue")
    containers.wait(lambda: all("queue" in containers.problems(port) for port in roles.values()))
    assert {name for port in (*roles.values(), standby) for name in containers.problems(port)} == {"queue"}
    assert containers.problems(standby) == {}
    assert 'fer_redis_up{server="queue"} 0.0' in containers.page(roles["classify"], "/metrics")[1]
    containers.resume("queue")
    containers.wait(lambda: all(containers.problems(port) == {} for port in roles.values()))

    containers.kill(roles["timeline"])
    containers.wait(lambda: "fer_queue_depth{" in containers.page(standby, "/metrics")[1])
    containers.suspend("store")
    containers.wait(
        lambda: "store" in containers.problems(standby) and "store" in containers.problems(roles["capture"])
    )
    assert containers.problems(roles["classify"]) == {}
