"""The locks of the images: in step with constraints.txt, and without TensorFlow where it is not wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.role_locks import ROLES, lock, path, pins


@pytest.mark.parametrize("role", ROLES)
def test_a_lock_is_what_the_script_writes(role: str) -> None:
    assert path(role).read_text() == lock(role), "run `make lock`"


@pytest.mark.parametrize("role", ROLES)
def test_a_lock_pins_what_constraints_txt_pins(role: str) -> None:
    locked = dict(line.split("==") for line in path(role).read_text().split())
    assert locked.items() <= pins().items()


@pytest.mark.parametrize("role", ROLES)
def test_tensorflow_is_in_the_image_with_the_gpu_alone(role: str) -> None:
    names = {line.partition("==")[0] for line in path(role).read_text().split()}
    assert ({"tensorflow", "keras"} <= names) == (role == "classify-gpu")
    assert any(name.startswith("nvidia-cudnn") for name in names) == (role == "classify-gpu")


def test_what_a_lock_lacks_cannot_be_imported_there(tmp_path: Path) -> None:
    """The other tests of this folder run the services so: it must not be by chance that they find nothing missing."""
    container = Path(__file__).with_name("container.py")
    (tmp_path / "lock").write_text(
        "typer==0\nrich==0\nshellingham==0\nannotated-doc==0\npygments==0\nmarkdown-it-py==0\nmdurl==0\n"
    )
    command = [sys.executable, str(container), str(tmp_path / "lock"), "schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pydantic is not in the image" in done.stderr
