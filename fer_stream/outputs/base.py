"""What a writer is: one output file of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from fer_stream.records import FileSummary, Gap, LabelledFrame, Segment


class Output(Protocol):
    """Writes one output as the job runs, so that memory stays flat however long the source is.

    A writer works on a hidden file beside its `path` and puts it in place only when it is whole: what lies at
    `path` is always complete. Errors are `OutputError`s that name the file and the cure.
    """

    path: Path

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Take the next frames, final and in order."""
        ...

    def finish(self, summary: FileSummary) -> None:
        """Complete the output and put it in place. Nothing is written afterwards."""
        ...

    def discard(self) -> None:
        """Give up: leave nothing behind. May follow `finish`, and then does nothing."""
        ...


class RollingOutput(Protocol):
    """Writes the tables of sources that never end, so that they can be continued from a checkpoint."""

    def append_frames(self, source: str, frames: Sequence[LabelledFrame]) -> None:
        """Append final frames, in order. Raises `OutputUnavailable` once when writing is no longer possible."""
        ...

    def append_segments(self, source: str, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """Append closed segments and gaps. Raises `OutputUnavailable` as `append_frames` does."""
        ...

    def offsets(self, source: str) -> dict[str, int]:
        """How far the files of `source` are written, for a checkpoint."""
        ...

    def truncate(self, source: str, offsets: Mapping[str, int]) -> None:
        """Go back to what `offsets` said."""
        ...
