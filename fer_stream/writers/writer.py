"""What a writer is: one output file of one source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fer_stream.records import JobSummary, LabelledFrame


class Writer(Protocol):
    """Writes one output as the job runs, so that memory stays flat however long the source is.

    A writer works on a hidden file beside its `path` and puts it in place only when it is whole: what lies at
    `path` is always complete. Errors are `OutputError`s that name the file and the cure.
    """

    path: Path

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Take the next frames, final and in order."""
        ...

    def finish(self, summary: JobSummary) -> None:
        """Complete the output and put it in place. Nothing is written afterwards."""
        ...

    def discard(self) -> None:
        """Give up: leave nothing behind. May follow `finish`, and then does nothing."""
        ...
