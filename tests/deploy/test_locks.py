"""Locks of the images: consistent with constraints.txt, and TensorFlow only where it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.role_locks import ROLES, lock, path, pins


@pytest.mark.parametrize("role", ROLES)
def test_lock_is_current(role: str) -> None:
    assert path(role).read_text() == lock(role), "run `make lock`"


@pytest.mark.parametrize("role", ROLES)
def test_lock_agrees_with_constraints_txt(role: str) -> None:
    locked = dict(line.split("==") for line in path(role).read_text().split())
    assert locked.items() <= pins().items()


@pytest.mark.parametrize("role", ROLES)
def test_only_the_gpu_image_has_tensorflow(role: str) -> None:
    names = {line.partition("==")[0] for line in path(role).read_text().split()}
    assert ({"tensorflow", "keras"} <= names) == (role == "classify-gpu")
    assert any(name.startswith("nvidia-cudnn") for name in names) == (role == "classify-gpu")


def test_packages_outside_the_lock_cannot_be_imported(tmp_path: Path) -> None:
    """The other tests of this folder rely on this restriction to find missing packages."""
    container = Path(__file__).with_name("container.py")
    (tmp_path / "lock").write_text(
        "typer==0\nrich==0\nshellingham==0\nannotated-doc==0\npygments==0\nmarkdown-it-py==0\nmdurl==0\n"
    )
    command = [sys.executable, str(container), str(tmp_path / "lock"), "schema"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert "pydantic is not in the image" in completed.stderr
