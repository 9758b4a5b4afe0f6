"""Interface and registry of the outputs of `fer-stream run`.

The command line reads it, so this module imports nothing outside the standard library.

To add an output, write a module with a function `create(path, context, **settings)` that returns an `Output`, then
add an entry to `OUTPUTS`, a field of the same name to `OutputSettings` and an option `--no-…` to the command `run`.
To add an export, write a module with a function that converts an `ExportedTimeline` to text, then
add an entry to `EXPORTS` and its name to `OutputSettings.export`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from fer_stream.capture.source import FrameSource
    from fer_stream.config.settings import OutputSettings
    from fer_stream.outputs.downsample import ProbabilitySeries
    from fer_stream.outputs.export import ExportedTimeline
    from fer_stream.records import U8, FileSummary, Gap, LabelledFrame, Segment, SourceInfo


class Output(Protocol):
    """One output file of one source, written while the source is processed, with constant memory.

    It is written under a hidden name beside `path` and renamed when all outputs of the source are complete. Methods
    raise `OutputError`s that contain the path and a remedy.
    """

    path: Path

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Add the next frames, in order and with final labels. Can be repeated after `DiskFull`."""
        ...

    def finish(self, summary: FileSummary) -> None:
        """Complete the hidden file. Can be repeated after `DiskFull`."""
        ...

    def size(self) -> int:
        """Return the number of bytes of the hidden file."""
        ...

    def commit(self, path: Path | None = None) -> Path | None:
        """Rename the complete file to `path`, replacing it, or to its own path; return its path, None without one."""
        ...

    def discard(self) -> None:
        """Remove the hidden file. Does nothing after `commit`."""
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

    def lost_rows(self, source: str) -> int:
        """Return the number of rows of `source` that could not be written since the start."""
        ...


Kind = Literal["video", "image"]


@dataclass(frozen=True, slots=True)
class OutputEntry:
    """An output that settings can disable."""

    factory: str
    """`module:function`, imported when the output is created."""
    suffixes: tuple[tuple[Kind, str], ...]
    """Kinds of sources that have this output, and the suffix of its file: NAME.suffix."""
    settings: tuple[str, ...] = ()
    """Fields of `OutputSettings` that are passed to the factory."""
    optional: bool = True
    """Whether settings can disable it: an export, or one with a field in `OutputSettings` and an option `--no-…`."""
    is_data: bool = False
    """Whether it is small and for programs, so that on a full disk larger outputs make room for it."""

    def suffix(self, kind: Kind) -> str | None:
        """Return the suffix of the file for a kind of source, or None if it has no such output."""
        return dict(self.suffixes).get(kind)

    def create(self, path: Path, context: OutputContext, settings: OutputSettings) -> Output:
        """Create the output at `path`. Raises an `OutputError` if that is not possible."""
        module, _, function = self.factory.partition(":")
        create = getattr(import_module(module), function)
        output: Output = create(path, context, **{field: getattr(settings, field) for field in self.settings})
        return output


@dataclass(frozen=True, slots=True)
class ExportEntry:
    """A format of annotation or subtitle programs that a timeline can be exported to."""

    factory: str
    """`module:function`, which converts an `ExportedTimeline` to text."""
    suffix: str
    """Suffix of the file: NAME.suffix."""

    def render(self, timeline: ExportedTimeline) -> str:
        """Return the content of the file."""
        module, _, function = self.factory.partition(":")
        text: str = getattr(import_module(module), function)(timeline)
        return text


EXPORTS = {
    "eaf": ExportEntry("fer_stream.outputs.elan:render", "eaf"),
    "textgrid": ExportEntry("fer_stream.outputs.praat:render", "TextGrid"),
    "vtt": ExportEntry("fer_stream.outputs.subtitles:render_vtt", "vtt"),
    "srt": ExportEntry("fer_stream.outputs.subtitles:render_srt", "srt"),
    "boris": ExportEntry("fer_stream.outputs.boris:render", "boris.tsv"),
}
"""Formats of exports by name."""

# Ordered by size, largest first. A still image has no time axis, so it has neither report nor plot.
OUTPUTS = {
    "video": OutputEntry(
        "fer_stream.outputs.video:create",
        (("video", "annotated.mp4"), ("image", "annotated.png")),
        settings=("redact", "redact_persons"),
    ),
    "report": OutputEntry(
        "fer_stream.outputs.report:create",
        (("video", "report.html"),),
        settings=("thumbnails",),
    ),
    "plot": OutputEntry("fer_stream.outputs.plot:create", (("video", "timeline.png"),)),
    "table": OutputEntry(
        "fer_stream.outputs.table:create",
        (("video", "frames.csv"), ("image", "frames.csv")),
        is_data=True,
    ),
    **{
        name: OutputEntry("fer_stream.outputs.export:create", (("video", entry.suffix),), is_data=True)
        for name, entry in EXPORTS.items()
    },
    "timeline": OutputEntry(
        "fer_stream.outputs.timeline_json:create",
        (("video", "timeline.json"), ("image", "timeline.json")),
        optional=False,
        is_data=True,
    ),
}
"""Outputs by name."""


def result_paths(stem: Path, exports: Collection[str] = ()) -> list[Path]:
    """Return the paths `<stem>.<suffix>` of all results of a source of any kind; of exports, only those named.

    Other programs write files with the suffixes of exports as well, such as subtitles.
    """
    entries = (entry for name, entry in OUTPUTS.items() if name not in EXPORTS or name in exports)
    suffixes = dict.fromkeys(suffix for entry in entries for _, suffix in entry.suffixes)
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in suffixes]
