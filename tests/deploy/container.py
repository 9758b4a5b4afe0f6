"""Run fer-stream as in its image: `python container.py LOCK ARGUMENT...`.

Only fer-stream and the packages of the lock can be imported or found by importlib.metadata.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder, packages_distributions
from pathlib import Path


def canonical(name: str) -> str:
    """Return the normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class MissingModules(MetaPathFinder):
    """Finder that refuses to import modules, before any other finder."""

    def __init__(self, modules: set[str]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        if name.partition(".")[0] in self._modules:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)


def main() -> None:
    lock, arguments = Path(sys.argv[1]), sys.argv[2:]
    names = re.findall(r"^(\S+)==", lock.read_text(), re.MULTILINE)
    # The development environment contains opencv-python in place of opencv-python-headless.
    present = {canonical(name).removesuffix("-headless") for name in names} | {"fer-stream"}
    distributions = packages_distributions().items()
    absent = {module for module, names in distributions if not {canonical(name) for name in names} & present}
    find_all = MetadataPathFinder.find_distributions

    def find_distributions(*context: DistributionFinder.Context) -> Iterable[Distribution]:
        return (found for found in find_all(*context) if canonical(found.name) in present)

    importlib.metadata.MetadataPathFinder.find_distributions = staticmethod(find_distributions)  # type: ignore[method-assign, assignment]
    sys.meta_path.insert(0, MissingModules(absent))
    from fer_stream.cli import main as fer_stream

    fer_stream(arguments)


if __name__ == "__main__":
    main()
