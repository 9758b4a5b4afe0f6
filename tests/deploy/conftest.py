"""The containers of docker-compose.yml as plain processes: their very commands, users, secrets and health checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
ADMIN = "admin-of-the-test"
IN_CONTAINER = Path("/etc/fer-stream/live.yaml")
DOCKER_COMPOSE = str(Path(sys.executable).with_name("docker-compose"))


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """docker-compose.yml as Docker Compose itself reads it."""
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
    """What scripts/make_secrets.py makes, and a user more on both servers who may look at everything."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run([sys.executable, ROOT / "scripts" / "make_secrets.py", folder], check=True, capture_output=True)
    for server in ("queue", "store"):
        with (folder / f"{server}.acl").open("a") as file:
            file.write(f"user admin on >{ADMIN} ~* &* +@all\n")
    return folder


class Stack:
    """Servers and workers of the compose file, on ports of this machine."""

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

    # What is started

    def start_servers(self, *options: str) -> None:
        """queue and store, with Debian's Redis in the place of the image's Valkey."""
        for name in ("queue", "store"):
            data = self.folder / name
            data.mkdir()
            binary, *command = self._services[name]["command"]
            assert binary == "valkey-server"
            places = {"/data": str(data), "/tmp": str(data)}
            places |= {f"/run/secrets/{secret}": str(path) for secret, path in self._secret_files.items()}
            self._ports[name] = self._free_port()
            words = [places.get(word, word) for word in command]
            self._start(name, ["redis-server", *words, "--port", str(self._ports[name]), *options], os.environ)
        for name in ("queue", "store"):
            self.wait(lambda name=name: self.answers(name))  # type: ignore[misc]

    def start(self, name: str) -> None:
        """A worker, by the command, environment and secrets of its service, with nothing but its lock to import."""
        self._ports[name] = self._free_port()
        self._start(name, self._command(name, self._services[name]["command"]), self._environ(name))

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in the container of a worker, as `docker compose exec` runs it."""
        return subprocess.run(
            self._command(name, words), env=self._environ(name), capture_output=True, text=True, check=False
        )

    def _command(self, name: str, words: Sequence[str]) -> list[str]:
        lock = ROOT / "docker" / f"requirements-{self._services[name]['build']['target']}.txt"
        own = [str(self.config) if word == str(IN_CONTAINER) else word for word in words]
        return [sys.executable, str(Path(__file__).with_name("container.py")), str(lock), *own]

    def _environ(self, name: str) -> dict[str, str]:
        service = self._services[name]
        given = {
            str(Path("/run/secrets", secret["target"])): str(self._secret_files[secret["source"]])
            for secret in service["secrets"]
        }
        return {
            **os.environ,
            **{key: given.get(value, value) for key, value in service["environment"].items()},
            "FER_STREAM_QUEUE": f"redis://127.0.0.1:{self._ports['queue']}/0",
            "FER_STREAM_STORE": f"redis://127.0.0.1:{self._ports['store']}/0",
            "FER_STREAM_PASSWORD_FILE": given["/run/secrets/redis_password"],
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

    # What is seen of it

    def port(self, name: str) -> int:
        return self._ports[name]

    def answers(self, server: str) -> bool:
        try:
            return bool(self.admin(server).ping())
        except redis.ConnectionError:
            return False

    def admin(self, server: str) -> redis.Redis:
        return redis.Redis(port=self._ports[server], username="admin", password=ADMIN, decode_responses=True)

    def healthy(self, name: str) -> bool:
        """What the health check of the service says."""
        kind, *words = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [word.replace(":9464", f":{self._ports[name]}") for word in words]
        return subprocess.run([sys.executable, *words[1:]], check=False, capture_output=True).returncode == 0

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def denied(self) -> list[str]:
        """What the users of queue and store were refused, but for redis-py's telling its own name and version."""
        return [
            f"{server}: {entry['username']} {entry['reason']} {entry['object']}"
            for server in ("queue", "store")
            for entry in self.admin(server).acl_log()
            if not str(entry["object"]).startswith("client")
        ]

    def said(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def wait(self, condition: Callable[[], Any], within_s: float = 60) -> None:
        """Wait until `condition` holds; fail as soon as a process exits."""

        def holds() -> bool:
            exited = {name: code for name, process in self._started.items() if (code := process.poll()) is not None}
            assert not exited, f"{exited} exited:\n{self.said()}"
            return bool(condition())

        wait_until(holds, within_s, describe=lambda: f"denied commands: {self.denied()}\n{self.said()}")

    def stop(self, *names: str) -> dict[str, int]:
        """SIGTERM; their exit codes."""
        for name in names:
            self._started[name].terminate()
        return {name: self._started.pop(name).wait(15) for name in names}

    def end(self) -> None:
        for process in self._started.values():
            process.kill()
            process.wait()


@pytest.fixture
def stack(
    compose: dict[str, Any], secret_files: Path, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[Stack]:
    """The containers, none of which is started yet."""
    made = Stack(compose, secret_files, tmp_path, free_port)
    yield made
    made.end()
