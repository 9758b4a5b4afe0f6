"""Python interface: analyse a file and get timelines as arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.capture.discovery import slugify
from fer_stream.config.settings import FileSettings
from fer_stream.errors import translate_missing_extra
from fer_stream.factory import select_detector
from fer_stream.files import FileProcessor
from fer_stream.records import (
    LABELS,
    EmotionTimeline,
    FileSummary,
    LabelledFace,
    LabelledFrame,
    PersonSummary,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Results of one file, as returned by `analyze`."""

    timelines: tuple[EmotionTimeline, ...]
    """One timeline per person. For n frames with the person, `time_s` is float64 (n,), `probs` float32 (n, 7) in the
    order of `LABELS`, and `segments` are the time ranges with one label."""
    frames: tuple[LabelledFrame, ...]
    """Every analysed frame, in order, including frames without faces. Each of its faces has `xyxy`, float32 (4,) in
    px, and `probs` and `smoothed`, float32 (7,)."""
    summary: FileSummary
    """Metadata of the source, decoding errors, people, model, versions and settings."""

    def to_dataframe(self) -> pd.DataFrame:
        """Convert the frames to the table that `fer-stream run` writes, with the same rounding.

        Returns:
            A DataFrame with the 19 columns of NAME.frames.csv, which the page on output files describes. It has one
            row per frame and face, and one row per frame without faces, in which `person_id` (Int64) and the columns
            of the face are missing.

        Raises:
            MissingExtra: pandas is not installed.
        """
        with translate_missing_extra():
            import pandas as pd

        from fer_stream.outputs.table import COLUMNS, frame_rows

        text = io.StringIO("".join(map(frame_rows, self.frames)))
        return pd.read_csv(text, names=list(COLUMNS), dtype={"person_id": "Int64"})


def analyze(path: str | PathLike[str], settings: FileSettings | None = None) -> Analysis:
    """Analyse a video file or a still image.

    Nothing is written to disk, except the weights of the face detector (230 kB) in the user's cache on first use.
    The results stay in memory, about 0.5 KB per face and frame.

    Args:
        path: Video file or still image.
        settings: Settings; by default those of `fer-stream run`.

    Returns:
        Timelines, frames and summary of the file.

    Raises:
        SourceError: The file cannot be read.
        ModelError: The weights or the model card cannot be loaded.

    Example:
        ```python
        analysis = analyze("talk.mp4")
        for timeline in analysis.timelines:
            print(timeline.person_id, timeline.segments)
        ```
    """
    settings = settings or FileSettings()
    settings = settings.model_copy(update={"detector": select_detector(settings.detector)})
    return analyze_with(FileProcessor(settings), Path(path))


def analyze_with(processor: FileProcessor, path: Path) -> Analysis:
    """Analyse a file as `analyze` does, with models that are loaded already, for many files with equal settings."""
    source = processor.open(path, slugify(path.stem))
    frames: list[LabelledFrame] = []
    summary = processor.process(source, frames.extend)
    return Analysis(tuple(_timelines(source.stream_id, frames, summary.people)), tuple(frames), summary)


def _timelines(
    stream_id: str, frames: Sequence[LabelledFrame], people: Sequence[PersonSummary]
) -> list[EmotionTimeline]:
    appearances: dict[int, list[tuple[LabelledFrame, LabelledFace]]] = {person.person_id: [] for person in people}
    for frame in frames:
        for face in frame.faces:
            appearances[face.person_id].append((frame, face))
    return [_timeline(stream_id, person, appearances[person.person_id]) for person in people]


def _timeline(
    stream_id: str, person: PersonSummary, appearances: Sequence[tuple[LabelledFrame, LabelledFace]]
) -> EmotionTimeline:
    return EmotionTimeline(
        stream_id=stream_id,
        person_id=person.person_id,
        labels=LABELS,
        frame_index=np.array([frame.index for frame, _ in appearances], np.int64),
        time_s=np.array([frame.time_s for frame, _ in appearances], np.float64),
        probs=np.stack([face.probs for _, face in appearances]),
        quality=np.array([face.quality.score for _, face in appearances], np.float32),
        segments=person.segments,
    )
