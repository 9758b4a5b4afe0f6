"""Containers of docker-compose.yml as plain processes, with their commands, users, secrets and health checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
ADMIN_PASSWORD = "admin-of-the-test"
CONFIG_IN_CONTAINER = Path("/etc/fer-stream/live.yaml")
DOCKER_COMPOSE = str(Path(sys.executable).with_name("docker-compose"))


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """docker-compose.yml as parsed by Docker Compose."""
    command = [
        DOCKER_COMPOSE,
        "--file",
        str(ROOT / "docker-compose.yml"),
        "--profile",
        "*",
        "config",
        "--format",
        "json",
    ]
    document: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return document


@pytest.fixture(scope="session")
def secret_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that scripts/make_secrets.py creates, plus an administrator on both servers."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run([sys.executable, ROOT / "scripts" / "make_secrets.py", folder], check=True, capture_output=True)
    for server in ("queue", "store"):
        with (folder / f"{server}.acl").open("a") as file:
            file.write(f"user admin on >{ADMIN_PASSWORD} ~* &* +@all\n")
    return folder


class Stack:
    """Servers and workers of the compose file on local ports."""

    def __init__(self, compose: dict[str, Any], secrets: Path, folder: Path, free_port: Callable[[], int]) -> None:
        self.folder = folder
        self.secrets = secrets
        self.config = folder / "live.yaml"
        self._services = compose["services"]
        files = {name: secret["file"] for name, secret in compose["secrets"].items()}
        self._secret_files = {name: secrets / Path(file).name for name, file in files.items()}
        self._free_port = free_port
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        for name in ("files", "state"):
            (folder / name).mkdir()

    def start_servers(self, *options: str) -> None:
        """Start queue and store with Debian's Redis instead of the Valkey of the image."""
        for name in ("queue", "store"):
            data = self.folder / name
            data.mkdir()
            binary, *command = self._services[name]["command"]
            assert binary == "valkey-server"
            paths = {"/data": str(data), "/tmp": str(data)}
            paths |= {f"/run/secrets/{secret}": str(path) for secret, path in self._secret_files.items()}
            self._ports[name] = self._free_port()
            arguments = [paths.get(word, word) for word in command]
            self._start(name, ["redis-server", *arguments, "--port", str(self._ports[name]), *options], os.environ)
        for name in ("queue", "store"):
            self.wait(lambda name=name: self.responds(name))  # type: ignore[misc]

    def restart_server(self, name: str) -> None:
        """Stop and start queue or store."""
        command = [str(word) for word in self._started[name].args]  # type: ignore[union-attr]
        self.stop(name)
        self._start(name, command, os.environ)
        self.wait(lambda: self.responds(name))

    def start(self, name: str) -> None:
        """Start a worker with command, environment and secrets of its service and only the packages of its lock."""
        self._ports[name] = self._free_port()
        self._start(name, self._command(name, self._services[name]["command"]), self._environ(name))

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container of a worker like `docker compose exec`."""
        return subprocess.run(
            self._command(name, arguments), env=self._environ(name), capture_output=True, text=True, check=False
        )

    def _command(self, name: str, arguments: Sequence[str]) -> list[str]:
        lock = ROOT / "docker" / f"requirements-{self._services[name]['build']['target']}.txt"
        local = [str(self.config) if argument == str(CONFIG_IN_CONTAINER) else argument for argument in arguments]
        return [sys.executable, str(Path(__file__).with_name("container.py")), str(lock), *local]

    def _environ(self, name: str) -> dict[str, str]:
        service = self._services[name]
        secret_paths = {
            str(Path("/run/secrets", secret["target"])): str(self._secret_files[secret["source"]])
            for secret in service["secrets"]
        }
        return {
            **os.environ,
            **{key: secret_paths.get(value, value) for key, value in service["environment"].items()},
            "FER_STREAM_QUEUE": f"redis://127.0.0.1:{self._ports['queue']}/0",
            "FER_STREAM_STORE": f"redis://127.0.0.1:{self._ports['store']}/0",
            "FER_STREAM_PASSWORD_FILE": secret_paths["/run/secrets/redis_password"],
            "FER_STREAM_RECORDINGS": str(self.folder / "files"),
            "FER_STREAM_STATE": str(self.folder / "state"),
            "FER_STREAM_METRICS_PORT": str(self._ports[name]),
            "FER_STREAM_METRICS_HOST": "127.0.0.1",
            "FER_STREAM_WEB_PORT": str(self.web_port),
        }

    def _start(self, name: str, command: list[str], environ: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environ)

    @cached_property
    def web_port(self) -> int:
        return self._free_port()

    def port(self, name: str) -> int:
        return self._ports[name]

    def responds(self, server: str) -> bool:
        """Return whether a server answers a ping."""
        try:
            return bool(self.admin(server).ping())
        except redis.ConnectionError:
            return False

    def admin(self, server: str) -> redis.Redis:
        """Return a client of a server with all permissions."""
        return redis.Redis(port=self._ports[server], username="admin", password=ADMIN_PASSWORD, decode_responses=True)

    def healthy(self, name: str) -> bool:
        """Return whether the process is ready, which the health check of its container asks."""
        try:
            return bool(urlopen(f"http://127.0.0.1:{self._ports[name]}/readyz", timeout=4).status == 200)
        except OSError:
            return False

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def denied(self) -> list[str]:
        """Return the denied commands of both servers, except CLIENT SETINFO of redis-py, which may fail."""
        return [
            f"{server}: {entry['username']} {entry['reason']} {entry['object']}"
            for server in ("queue", "store")
            for entry in self.admin(server).acl_log()
            if not str(entry["object"]).startswith("client")
        ]

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def wait(self, condition: Callable[[], Any], within_s: float = 60) -> None:
        """Wait until `condition` holds; fail as soon as a process exits."""

        def holds() -> bool:
            exited = {name: code for name, process in self._started.items() if (code := process.poll()) is not None}
            assert not exited, f"{exited} exited:\n{self.logs()}"
            return bool(condition())

        wait_until(holds, within_s, describe=lambda: f"denied commands: {self.denied()}\n{self.logs()}")

    def stop(self, *names: str) -> dict[str, int]:
        """Send SIGTERM; return the exit codes."""
        for name in names:
            self._started[name].terminate()
        return {name: self._started.pop(name).wait(15) for name in names}

    def kill(self) -> None:
        for process in self._started.values():
            process.kill()
            process.wait()


@pytest.fixture
def stack(
    compose: dict[str, Any], secret_files: Path, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Stack]:
    """Return the containers; none is started."""
    stack = Stack(compose, secret_files, tmp_path, free_port)
    yield stack
    stack.kill()
