"""All outputs of one source: one that fails, such as a video on a full disk, does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.errors import DiskFull, OutputError
from fer_stream.outputs.atomic_file import disk_full
from fer_stream.outputs.registry import OUTPUTS, Kind, Output, OutputContext

if TYPE_CHECKING:
    from fer_stream.config.settings import OutputSettings
    from fer_stream.records import FileSummary, LabelledFrame


class OutputSet:
    """Outputs of one source. `failures` maps the path of each that cannot be written to its error.

    Tables and the timeline contain the data and are small: if the disk is full, other outputs make room for them.
    Without the timeline there are no results.
    """

    def __init__(self) -> None:
        self.failures: dict[Path, OutputError] = {}
        self._open: dict[str, Output] = {}

    def create(
        self, settings: OutputSettings, stem: Path, context: OutputContext, *, omit: Collection[Path] = ()
    ) -> None:
        """Create the outputs that `settings` enable, as `<stem>.<suffix>`, except those whose path is in `omit`.

        Raises an `OutputError` if one cannot be created, unless others fit on the full disk.
        """
        for name, path in enabled_outputs(settings, stem, context.info.kind).items():
            if path in omit:
                continue
            try:
                self._open[name] = OUTPUTS[name].create(path, context, settings)
            except DiskFull as error:
                self.failures[path] = error
                if not OUTPUTS[name].optional:
                    raise
        self._require_open()

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Add the next frames, in order and with final labels. Raises `OutputError` if every output has failed."""
        for name, output in tuple(self._open.items()):
            self._attempt(name, partial(output.write, frames))
        self._require_open()

    def finish(self, summary: FileSummary) -> None:
        """Complete the outputs, the smallest first. Raises `OutputError` if the timeline or every output fails."""
        for name, output in reversed(tuple(self._open.items())):
            self._attempt(name, partial(output.finish, summary))
        self._require_open()

    def commit(self, target: Callable[[Path], Path | None] = lambda _: None) -> tuple[Path, ...]:
        """Give the complete outputs their names and return their paths.

        `target` returns another path for an output, whose file is then replaced. The timeline is last: if it exists,
        so do the others.
        """
        written = []
        for name, output in tuple(self._open.items()):
            try:
                path = output.commit(target(output.path))
            except OutputError as error:
                self._fail(name, error)
            else:
                written += [path] if path else []
        self._require_open()
        return tuple(written)

    def discard(self) -> None:
        """Remove the incomplete files."""
        for output in self._open.values():
            output.discard()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths of the outputs that have not failed."""
        return tuple(output.path for output in self._open.values())

    def _attempt(self, name: str, call: Callable[[], object]) -> None:
        while name in self._open:
            try:
                call()
            except DiskFull as error:
                largest = self._largest_other() if OUTPUTS[name].is_data else None
                if largest is None:
                    self._fail(name, error)
                else:
                    self._fail(largest, disk_full(self._open[largest].path))
            except OutputError as error:
                self._fail(name, error)
            else:
                return

    def _largest_other(self) -> str | None:
        """Return the output that takes most of the disk, except tables and the timeline; None if none takes any."""
        sizes = {name: output.size() for name, output in self._open.items() if not OUTPUTS[name].is_data}
        largest = max(sizes, key=sizes.__getitem__, default=None)
        return largest if largest and sizes[largest] else None

    def _fail(self, name: str, error: OutputError) -> None:
        output = self._open.pop(name)
        self.failures[output.path] = error
        with suppress(OutputError):
            output.discard()
        if not OUTPUTS[name].optional:
            raise error

    def _require_open(self) -> None:
        if not self._open:
            raise next(iter(self.failures.values()))


def enabled_outputs(settings: OutputSettings, stem: Path, kind: Kind) -> dict[str, Path]:
    """Return names and paths of the outputs that `settings` enable for a kind of source, largest first."""
    suffixes = {
        name: entry.suffix(kind)
        for name, entry in OUTPUTS.items()
        if not entry.optional or name in settings.export or getattr(settings, name, False)
    }
    return {name: stem.with_name(f"{stem.name}.{suffix}") for name, suffix in suffixes.items() if suffix}
