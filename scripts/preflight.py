"""Check requirements that pip cannot install: the Python version and system libraries."""

import ctypes
import sys

# Libraries that the opencv-python wheel links against, and their Debian and Ubuntu packages.
LIBRARIES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}


def missing_packages() -> list[str]:
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


def main() -> int:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"fer-stream needs Python 3.11, 3.12 or 3.13; this is {found}. Try: make PYTHON=python3.12 demo")
        return 1
    if sys.platform.startswith("linux") and (packages := missing_packages()):
        print(f"opencv-python needs system libraries. Install them first: sudo apt-get install {' '.join(packages)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
