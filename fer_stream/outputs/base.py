"""Interfaces of outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fer_stream.capture.source import FrameSource
    from fer_stream.outputs.downsample import ProbabilitySeries
    from fer_stream.records import U8, FileSummary, Gap, LabelledFrame, Segment, SourceInfo


class Output(Protocol):
    """One output file of one source, written while the source is processed, with constant memory.

    It is written under a hidden name beside `path` and renamed when it is complete. Methods raise `OutputError`s that
    contain the path and a remedy.
    """

    path: Path

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Add the next frames, in order and with final labels."""
        ...

    def finish(self, summary: FileSummary) -> None:
        """Complete the output and rename it to `path`. Must be the last call except for `discard`."""
        ...

    def discard(self) -> None:
        """Remove the hidden file. Does nothing after `finish`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OutputContext:
    """Properties of the file that outputs are created for.

    `input_path` is the file, `open_source` opens it again. `series` is shared by all outputs, and `thumbnails` maps
    each person to a face crop, uint8 (48, 48); both are filled during processing. With `force`, existing outputs are
    replaced.
    """

    input_path: Path
    info: SourceInfo
    open_source: Callable[[], FrameSource]
    series: ProbabilitySeries
    thumbnails: Mapping[int, U8]
    force: bool


class RollingOutput(Protocol):
    """Tables of sources that never end, which can be continued from a checkpoint."""

    def append_frames(self, source: str, frames: Sequence[LabelledFrame]) -> None:
        """Append final frames, in order. Raises `OutputUnavailable` once when writing becomes impossible."""
        ...

    def append_segments(self, source: str, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """Append closed segments and gaps. Raises `OutputUnavailable` like `append_frames`."""
        ...

    def offsets(self, source: str) -> dict[str, int]:
        """Return the lengths of the files of `source`, for a checkpoint."""
        ...

    def truncate(self, source: str, offsets: Mapping[str, int]) -> None:
        """Truncate the files of `source` to the lengths returned by `offsets`."""
        ...
