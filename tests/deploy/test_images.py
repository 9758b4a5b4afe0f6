"""Dockerfile: linter and project rules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.role_locks import ROLES

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


@pytest.mark.parametrize("role", ROLES)
def test_image_installs_exactly_its_lock_and_runs_without_root(role: str) -> None:
    _, text = STAGES[role]
    assert f"source=docker/requirements-{role}.txt" in text
    assert re.findall(r"pip install (.*)", text) == [
        "--no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl"
    ]
    instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert instructions[-1] == "USER 10001:10001"


def test_base_images_are_pinned_and_nothing_is_downloaded() -> None:
    for base, _ in STAGES.values():
        assert base in STAGES or re.fullmatch(r"[a-z/]+:[\w.-]*\d[\w.-]*", base), base
    assert not re.search(r"^ADD |curl |wget ", DOCKERFILE, re.MULTILINE)


def test_copied_files_exist_and_are_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY ((?!--from).*)", DOCKERFILE, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored
    assert "!docker" in ignored
    assert "*" in ignored


def test_services_use_existing_build_targets(compose: dict[str, Any]) -> None:
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == set(ROLES)
