"""Dockerfile: linter and project rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.role_locks import ROLES
from tests.deploy.test_locks import ENTRIES

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = {
    match[2]: (match[1], match[3])
    for match in re.finditer(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
}


def test_hadolint_reports_nothing() -> None:
    lint = [str(Path(sys.executable).with_name("hadolint")), "--failure-threshold", "style", str(ROOT / "Dockerfile")]
    completed = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (0, "")


def instructions(stage: str) -> list[str]:
    text = STAGES[stage][1].replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("role", ROLES)
def test_image_consists_of_its_lock_and_of_fer_stream_in_a_layer_of_its_own(role: str) -> None:
    [install] = [line for line in instructions(f"{role}-packages") if "pip" in line]
    assert f"source=docker/requirements-{role}.txt" in install
    assert "install --no-deps --only-binary :all: --require-hashes -r /tmp/requirements.txt" in install
    base, _ = STAGES[role]
    copied = [line for line in instructions(role) if line.startswith("COPY")]
    project = "project-gpu" if role == "classify-gpu" else "project"
    assert base == "runtime"
    assert copied[0] == f"COPY --from={role}-packages /opt/fer-stream /opt/fer-stream"
    assert copied[-1] == f"COPY --from={project} /opt/fer-stream /opt/fer-stream"


@pytest.mark.parametrize("role", ROLES)
def test_last_step_imports_the_code_of_the_process_without_root(role: str) -> None:
    *_, user, last = instructions(role)
    assert user == "USER 10001:10001"
    [_, _, statement] = json.loads(last.removeprefix("RUN "))
    [entry] = ENTRIES[role]
    assert f"from {entry.module} import {entry.name}" in statement


def test_base_images_are_pinned_and_no_syntax_image_or_file_is_downloaded() -> None:
    assert {base for base, _ in STAGES.values()} - STAGES.keys() == {"${PYTHON}"}
    assert re.search(r"^ARG PYTHON=python:3\.11-[\w.-]+$", DOCKERFILE, re.MULTILINE)
    assert not re.search(r"^# syntax|^ADD |curl |wget |apt-get ", DOCKERFILE, re.MULTILINE)


def test_a_change_of_other_code_does_not_download_the_weights_again() -> None:
    copied = {name for line in instructions("weights") if line.startswith("COPY") for name in line.split()[1:-1]}
    local = {
        f"fer_stream/{module.replace('.', '/')}.py"
        for module in re.findall(r"from fer_stream\.(\w+) import", (ROOT / "fer_stream/model_files.py").read_text())
    }
    assert copied == {"fer_stream/__init__.py", "fer_stream/model_files.py", *local}


def test_copied_files_exist_and_are_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY ((?!--from).*)", DOCKERFILE, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name.partition('/')[0]}" in ignored
    assert "!docker" in ignored
    assert "*" in ignored


def test_services_use_existing_build_targets(compose: dict[str, Any]) -> None:
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == set(ROLES)
