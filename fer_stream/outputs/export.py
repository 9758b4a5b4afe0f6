"""Timelines in the formats of annotation and subtitle programs.

`fer-stream run --export` writes them beside the other results, `fer-stream export` makes them from a finished
timeline.json. A format is a module with a function `render(timeline)` that returns the content of the file, and an
entry in `EXPORTS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_stream.errors import OutputError, SourceNotFound, UnreadableSource
from fer_stream.formatting import format_label
from fer_stream.outputs.atomic_file import AtomicFile, FileOutput
from fer_stream.outputs.registry import EXPORTS
from fer_stream.outputs.timeline_json import TIMELINE_FORMAT, TIMELINE_VERSION, timeline_document

if TYPE_CHECKING:
    from fer_stream.outputs.registry import OutputContext
    from fer_stream.records import FileSummary, LabelledFrame

TIMELINE_SUFFIX = ".timeline.json"


@dataclass(frozen=True, slots=True)
class ExportedSegment:
    """Segment of one person in whole milliseconds; `text` is the label, with the reason if it is `unknown`."""

    person_id: int
    label: str
    text: str
    start_ms: int
    end_ms: int
    mean_prob: float


@dataclass(frozen=True, slots=True)
class ExportedTimeline:
    """Content of a timeline.json as annotation programs need it.

    `name` is that of the result, `media_path` the path of the analysed file, if it is recorded. `segments` maps each
    person to its segments in the order of time; those shorter than 1 ms are left out.
    """

    name: str
    media_path: str | None
    analysed_at: str | None
    duration_ms: int
    fps: float | None
    segments: Mapping[int, Sequence[ExportedSegment]]

    def in_order(self) -> list[ExportedSegment]:
        """Return the segments of all people in the order of their start, then of the person."""
        every = (segment for segments in self.segments.values() for segment in segments)
        return sorted(every, key=lambda segment: (segment.start_ms, segment.person_id))


class Export(FileOutput):
    """A timeline in one of the formats of `EXPORTS`, written while a file is analysed."""

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Do nothing: the file is made from the summary."""

    def finish(self, summary: FileSummary) -> None:
        """Write the file."""
        (export_format,) = (name for name, entry in EXPORTS.items() if self.path.name.endswith(f".{entry.suffix}"))
        self._output.write([render(timeline_document(summary), export_format)])


def create(path: Path, context: OutputContext) -> Export:
    """Create an export of a file. The suffix of `path` determines the format."""
    return Export(path, force=context.force)


def render(document: Mapping[str, Any], export_format: str) -> bytes:
    """Convert the document of a timeline.json to the format `export_format` of `EXPORTS`."""
    # Python reads a file name that is not valid UTF-8 as lone surrogates.
    return EXPORTS[export_format].render(_timeline(document)).encode("utf-8", "replace")


def export_file(timeline: Path, formats: Sequence[str], *, out: Path | None, force: bool) -> Iterator[Path]:
    """Write a finished timeline.json in each of `formats` to the folder `out`, by default its own; yield the paths.

    Raises `SourceError` if it is not a timeline.json that this version reads, and `OutputError` if a file cannot be
    written.
    """
    document = read_timeline(timeline)
    name = timeline.name.removesuffix(TIMELINE_SUFFIX)
    for export_format in formats:
        path = (out or timeline.parent) / f"{name}.{EXPORTS[export_format].suffix}"
        output = AtomicFile(path, force=force)
        try:
            output.write([render(document, export_format)])
            output.commit()
        except OutputError:
            output.discard()
            raise
        yield path


def read_timeline(path: Path) -> dict[str, Any]:
    """Read a timeline.json. Raises `SourceError` if that is not possible."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceNotFound(f"{path} does not exist. Name a file that ends in {TIMELINE_SUFFIX}.") from None
    except OSError as error:
        raise UnreadableSource(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != TIMELINE_FORMAT:
        raise UnreadableSource(f"{path} is not a timeline of fer-stream. Name a file that ends in {TIMELINE_SUFFIX}.")
    if document.get("version") != TIMELINE_VERSION:
        raise UnreadableSource(
            f"{path} has version {document.get('version')} of the format; this version of fer-stream reads "
            f"{TIMELINE_VERSION}. Analyse the file again."
        )
    return document


def _timeline(document: Mapping[str, Any]) -> ExportedTimeline:
    source, analysed = document["source"], document["analysed"]
    segments = {person["person_id"]: list(_segments(person)) for person in document["people"]}
    ends = [segment.end_ms for person in segments.values() for segment in person]
    # Results of earlier versions have no start: they are of whole files.
    duration_s = max(source["duration_s"] or 0, analysed.get("start_s", 0) + analysed["duration_s"])
    return ExportedTimeline(
        name=source["name"],
        media_path=source["path"],
        analysed_at=analysed["at"],
        duration_ms=max([round(1000 * duration_s), *ends]),
        fps=source["fps"],
        segments=segments,
    )


def _segments(person: Mapping[str, Any]) -> Iterator[ExportedSegment]:
    for segment in person["segments"]:
        start_ms, end_ms = round(1000 * segment["start_s"]), round(1000 * segment["end_s"])
        if end_ms > start_ms:
            text = format_label(segment["label"], segment["unknown_reason"])
            yield ExportedSegment(person["person_id"], segment["label"], text, start_ms, end_ms, segment["mean_prob"])
