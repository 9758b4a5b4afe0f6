"""The Dockerfile, linted, and what a linter does not look at."""

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


def test_hadolint_has_nothing_to_say() -> None:
    lint = [str(Path(sys.executable).with_name("hadolint")), "--failure-threshold", "style", str(ROOT / "Dockerfile")]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("role", ROLES)
def test_an_image_installs_its_lock_and_no_more_and_is_not_root(role: str) -> None:
    _, text = STAGES[role]
    assert f"source=docker/requirements-{role}.txt" in text
    assert re.findall(r"pip install (.*)", text) == [
        "--no-deps --only-binary :all: -r /tmp/requirements.txt /tmp/wheels/*.whl"
    ]
    instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert instructions[-1] == "USER 10001:10001"


def test_images_come_from_tagged_bases_and_nothing_comes_from_an_address() -> None:
    for base, _ in STAGES.values():
        assert base in STAGES or re.fullmatch(r"[a-z/]+:[\w.-]*\d[\w.-]*", base), base
    assert not re.search(r"^ADD |curl |wget ", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY ((?!--from).*)", DOCKERFILE, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored
    assert "!docker" in ignored
    assert "*" in ignored


def test_the_services_are_built_from_targets_that_exist(compose: dict[str, Any]) -> None:
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == set(ROLES)
