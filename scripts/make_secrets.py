"""Makes the passwords of the containers, one file each, and the users of queue and store that go with them.

    python3 scripts/make_secrets.py [FOLDER]       by default ./secrets, where docker-compose.yml looks for them

What is there already stays; delete a file to have it made anew. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import secrets
from hashlib import sha256
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent

GENERATED = ("capture", "classify", "timeline", "jobs", "web", "web_token", "grafana_admin")
# Yours to write: percent-encoded, as it stands in the URL of a camera.
EMPTY = ("camera_password",)


def make(folder: Path) -> None:
    """Make what is missing in `folder`, which only its owner can look into."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (*GENERATED, *EMPTY):
        if not (folder / name).exists():
            _write(folder / name, "" if name in EMPTY else secrets.token_urlsafe(32))
    hashes = {name: sha256((folder / name).read_text().strip().encode()).hexdigest() for name in GENERATED}
    for server in ("queue", "store"):
        lines = (ROOT / "configs" / "redis" / f"{server}.acl").read_text().splitlines(keepends=True)
        users = "".join(line for line in lines if not line.startswith("#"))
        _write(folder / f"{server}.acl", Template(users).substitute(hashes))


def _write(path: Path, text: str) -> None:
    """The folder keeps others out. The file must be readable for the user inside the container, which is not ours."""
    path.write_text(text)
    path.chmod(0o644)


def main() -> None:
    """Make the secrets and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "secrets")
    folder = parser.parse_args().folder
    make(folder)
    print(f"{folder} holds the secrets. Write the cameras' password into {folder / 'camera_password'}.")


if __name__ == "__main__":
    main()
