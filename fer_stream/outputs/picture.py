"""NAME.timeline.png: every person's emotions on one sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from fer_stream.outputs.atomic_file import HiddenFile
from fer_stream.outputs.downsample import Trace
from fer_stream.records import FileSummary, LabelledFrame


class TimelinePictureWriter:
    """Draws when all is known: only then matplotlib is loaded, and no row of the table waits for it."""

    def __init__(self, path: Path, trace: Trace, *, force: bool = False) -> None:
        self.path = path
        self._trace = trace
        self._output = HiddenFile(path, force=force)

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Take note of the probabilities."""
        self._trace.add(frames)

    def finish(self, summary: FileSummary) -> None:
        """Draw the sheet and put it in place."""
        from fer_stream.outputs.plot import timeline_figure

        png = io.BytesIO()
        timeline_figure(summary, self._trace).savefig(png, format="png")
        self._output.put([png.getvalue()])

    def discard(self) -> None:
        """Leave nothing behind."""
        self._output.discard()
