"""docker-compose.yml is valid for Docker Compose, and its containers are isolated."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fer_stream import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKER_COMPOSE = str(Path(sys.executable).with_name("docker-compose"))


def services(compose: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(compose["services"].items())


def test_docker_compose_refuses_unknown_keys(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(
        (ROOT / "docker-compose.yml").read_text().replace("restart: unless", "restrat: unless")
    )
    command = [DOCKER_COMPOSE, "--file", str(tmp_path / "docker-compose.yml"), "config", "--quiet"]
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def test_containers_are_restricted(compose: dict[str, Any]) -> None:
    for name, service in services(compose):
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
        assert service["healthcheck"]["test"], name
        assert "privileged" not in service, name


def config(folder: Path, **environ: str) -> dict[str, Any]:
    """Return the services of docker-compose.yml without profiles, with variables of the environment."""
    shutil.copy(ROOT / "docker-compose.yml", folder)
    command = [DOCKER_COMPOSE, "config", "--format", "json"]
    completed = subprocess.run(command, cwd=folder, env={**os.environ, **environ}, check=True, capture_output=True)
    return dict(json.loads(completed.stdout)["services"])


def test_images_are_built_here_and_never_pulled_or_pinned_to_a_version(compose: dict[str, Any]) -> None:
    for name, service in services(compose):
        if "build" in service:
            assert service["image"] == f"localhost/fer-stream/{name}:{__version__}"
            assert service["pull_policy"] == "never"
            assert service["build"]["args"]["VERSION"] == __version__
        else:
            assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_registry_version_and_number_of_workers_are_variables(tmp_path: Path) -> None:
    own = {"REGISTRY": "registry.example/team", "VERSION": "9.9.9", "PULL_POLICY": "missing"}
    classify = config(tmp_path, FER_STREAM_CLASSIFY="4", **own)["classify"]
    assert classify["image"] == "registry.example/team/classify:9.9.9"
    assert classify["pull_policy"] == "missing"
    assert classify["deploy"]["replicas"] == 4


def test_monitoring_and_gpu_are_profiles(tmp_path: Path, compose: dict[str, Any]) -> None:
    optional = compose["services"].keys() - config(tmp_path).keys()
    assert optional == {"prometheus", "grafana", "classify-gpu"}


def test_only_web_and_grafana_are_published_and_only_on_localhost(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services(compose) if service.get("ports")}
    assert published.keys() == {"web", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}


def test_documented_second_capture_reads_the_other_partition(tmp_path: Path) -> None:
    (override,) = re.findall(
        r"```yaml\n(services:.*?)```", (ROOT / "docs" / "how-to" / "deployment.md").read_text(), re.DOTALL
    )
    (tmp_path / "docker-compose.override.yml").write_text(override)
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    command = [DOCKER_COMPOSE, "config", "--format", "json"]
    merged = json.loads(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout)
    first, second = merged["services"]["capture"], merged["services"]["capture-1"]
    assert (
        first["environment"].pop("FER_STREAM_PARTITIONS") == second["environment"].pop("FER_STREAM_PARTITIONS") == "2"
    )
    assert second["environment"].pop("FER_STREAM_PARTITION") == "1"
    assert "FER_STREAM_PARTITION" not in first["environment"]
    assert first == second


def test_servers_and_workers_have_no_access_to_other_networks(compose: dict[str, Any]) -> None:
    assert compose["networks"]["backend"]["internal"]
    outside = {name for name, service in services(compose) if service["networks"].keys() - {"backend"}}
    assert outside == {"capture", "web", "grafana"}


def test_queue_stores_no_faces_on_disk(compose: dict[str, Any]) -> None:
    command = compose["services"]["queue"]["command"]
    assert command[command.index("--save") + 1] == ""
    assert command[command.index("--appendonly") + 1] == "no"
    assert "volumes" not in compose["services"]["queue"]
    assert all("noeviction" in compose["services"][name]["command"] for name in ("queue", "store"))


def test_secrets_are_files_and_each_service_has_its_own(compose: dict[str, Any]) -> None:
    assert all(secret["file"].startswith(str(ROOT / "secrets")) for secret in compose["secrets"].values())
    for name, service in services(compose):
        available = {secret["source"] for secret in service.get("secrets", ())}
        if "build" in service:
            assert service["environment"]["FER_STREAM_ROLE"] in available, name
        assert ("camera_password" in available) == (name == "capture")
        text = " ".join((*map(str, service.get("command") or ()), *map(str, service.get("environment", {}).values())))
        assert not re.search(r"password=|://[^/ ]*@", text), name


def test_mounted_files_exist(compose: dict[str, Any]) -> None:
    sources = [config["file"] for config in compose["configs"].values()]
    sources += [
        volume["source"]
        for _, service in services(compose)
        for volume in service.get("volumes", ())
        if volume["type"] == "bind"
    ]
    assert all(Path(source).exists() for source in sources), sources


def test_settings_of_the_containers_are_valid(secret_files: Path) -> None:
    environ = {**os.environ, "FER_STREAM_PASSWORD_FILE": str(secret_files / "web"), "FER_STREAM_ROLE": "web"}
    command = [sys.executable, "-m", "fer_stream.cli", "validate", str(ROOT / "configs" / "compose.yaml")]
    completed = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    web = {"FER_STREAM_WEB_HOST": "0.0.0.0", "FER_STREAM_TOKEN_FILE": str(secret_files / "web_token")}
    subprocess.run(command, env={**environ, **web}, check=True)
    # Listening on all addresses requires a token.
    assert subprocess.run(command, env={**environ, "FER_STREAM_WEB_HOST": "0.0.0.0"}, check=False).returncode == 2
