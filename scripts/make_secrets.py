"""Generate the passwords of the containers, one file each, and the ACL files of queue and store.

    python3 scripts/make_secrets.py [FOLDER]       default: ./secrets, as used by docker-compose.yml

Existing files are kept; delete one to generate it again. Needs only Python.
"""

from __future__ import annotations

import argparse
import secrets
from hashlib import sha256
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent

GENERATED = ("capture", "classify", "timeline", "jobs", "web", "web_token", "grafana_admin")
# To be filled in by the user: percent-encoded, as part of camera URLs.
EMPTY = ("camera_password",)


def make(folder: Path) -> None:
    """Create missing files in `folder`, which only its owner can access."""
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
    """Write a world-readable file: the container runs as another user. The folder keeps other users out."""
    path.write_text(text)
    path.chmod(0o644)


def main() -> None:
    """Create the secrets and print their location."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "secrets")
    folder = parser.parse_args().folder
    make(folder)
    print(f"Created secrets in {folder}. Write the password of the cameras to {folder / 'camera_password'}.")


if __name__ == "__main__":
    main()
