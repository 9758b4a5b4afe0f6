"""The Python interface: a file in, timelines with arrays out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry

from fer_stream.capture.discovery import slugify
from fer_stream.config.settings import FileSettings
from fer_stream.files import FileProcessor
from fer_stream.metrics import Metrics
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
    """What was seen in one file.

    `timelines` holds one `EmotionTimeline` per person, `frames` every frame with its faces (frames without a face
    included), `summary` where the result came from and what was damaged.
    """

    timelines: tuple[EmotionTimeline, ...]
    frames: tuple[LabelledFrame, ...]
    summary: FileSummary

    def to_dataframe(self) -> pd.DataFrame:
        """The table that `fer-stream run` writes, to the digit: docs/reference/formats.md describes its columns.

        One row per frame and face, and one for a frame without a face. `person_id` is Int64, missing where there is
        no face.
        """
        import pandas as pd

        from fer_stream.outputs.tables import COLUMNS, rows

        text = io.StringIO("".join(map(rows, self.frames)))
        return pd.read_csv(text, names=list(COLUMNS), dtype={"person_id": "Int64"})


def analyze(path: str | PathLike[str], settings: FileSettings | None = None) -> Analysis:
    """Analyse a video file or a still image; everything stays in memory (about 0.5 KB per face and frame).

    Raises a `FerStreamError`: a `SourceError` where the file cannot be read, a `ModelError` where the models cannot.

        analysis = analyze("talk.mp4")
        for timeline in analysis.timelines:
            print(timeline.person_id, timeline.segments)
    """
    engine = FileProcessor(settings or FileSettings())
    source = engine.open(Path(path), slugify(Path(path).stem))
    frames: list[LabelledFrame] = []
    summary = engine.process(source, frames.extend, metrics=Metrics(CollectorRegistry()))
    return Analysis(tuple(_timelines(source.stream_id, frames, summary.people)), tuple(frames), summary)


def _timelines(
    stream_id: str, frames: Sequence[LabelledFrame], people: Sequence[PersonSummary]
) -> list[EmotionTimeline]:
    seen: dict[int, list[tuple[LabelledFrame, LabelledFace]]] = {person.person_id: [] for person in people}
    for frame in frames:
        for face in frame.faces:
            seen[face.person_id].append((frame, face))
    return [_timeline(stream_id, person, seen[person.person_id]) for person in people]


def _timeline(
    stream_id: str, person: PersonSummary, seen: Sequence[tuple[LabelledFrame, LabelledFace]]
) -> EmotionTimeline:
    return EmotionTimeline(
        stream_id=stream_id,
        person_id=person.person_id,
        labels=LABELS,
        frame_index=np.array([frame.index for frame, _ in seen], np.int64),
        time_s=np.array([frame.time_s for frame, _ in seen], np.float64),
        probs=np.stack([face.probs for _, face in seen]),
        quality=np.array([face.quality.score for _, face in seen], np.float32),
        segments=person.segments,
    )
