"""NAME.frames.csv: one row per frame and face. docs/reference/formats.md describes the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream.errors import OutputError
from fer_stream.outputs.atomic_file import FileOutput
from fer_stream.records import LABELS, FileSummary, LabelledFrame

if TYPE_CHECKING:
    from fer_stream.outputs.registry import OutputContext

COLUMNS = (
    "frame_index", "time_s", "person_id", "x1", "y1", "x2", "y2", "confidence", "quality", "quality_reason",
    *LABELS, "label", "unknown_reason",
)  # fmt: skip
"""Columns of NAME.frames.csv, in order."""

# No field can contain a comma or a quote, so no quoting is needed. Formatting takes half of the time of csv.writer.
_HEADER = ",".join(COLUMNS) + "\n"
_FACE_ROW = "%d,%.6f,%d,%.2f,%.2f,%.2f,%.2f,%.4f,%.4f,%s," + "%.4f," * len(LABELS) + "%s,%s\n"
_EMPTY_ROW = "%d,%.6f" + "," * (len(COLUMNS) - 2) + "\n"


class FrameTable(FileOutput):
    """NAME.frames.csv: one row per frame and face, and one for a frame without faces."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        super().__init__(path, force=force)
        with self._output.translate_errors():
            self._file = self._output.partial.open("wb", buffering=0)
        try:
            self._append(_HEADER)
        except OutputError:
            self.discard()
            raise

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Append the rows of `frames`. If that fails, none of them is in the table, and it can be called again."""
        self._append("".join(map(frame_rows, frames)))

    def finish(self, summary: FileSummary) -> None:  # noqa: ARG002 - the table contains frames only
        """Complete the table."""
        self._file.close()
        self._output.complete()

    def discard(self) -> None:
        """Remove the incomplete table."""
        self._file.close()
        super().discard()

    def _append(self, rows: str) -> None:
        with self._output.translate_errors():
            start = self._file.tell()
            try:
                unwritten = memoryview(rows.encode("ascii"))
                while unwritten:
                    unwritten = unwritten[self._file.write(unwritten) :]
            except OSError:
                self._file.seek(start)
                self._file.truncate()
                raise


def create(path: Path, context: OutputContext) -> FrameTable:
    """Create the table of a file."""
    return FrameTable(path, force=context.force)


def frame_rows(frame: LabelledFrame) -> str:
    """Return the rows of one frame with the columns `COLUMNS`, each with a line end."""
    if not frame.faces:
        return _EMPTY_ROW % (frame.index, frame.time_s)
    return "".join(
        _FACE_ROW
        % (
            frame.index, frame.time_s, face.person_id, *face.xyxy.tolist(), face.confidence,
            face.quality.score, face.quality.reason, *face.probs.tolist(), face.label,
            face.unknown_reason or "",
        )
        for face in frame.faces
    )  # fmt: skip
