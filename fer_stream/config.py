"""YAML → typed settings.

Every number that a user may want to turn stands here once, with its unit in its name and the reason for its
default beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """The base of every group of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DetectorSettings(Settings):
    """How faces are found."""

    kind: Literal["auto", "yunet", "blazeface"] = "auto"
    """`auto` is YuNet where its weights are at hand, else BlazeFace."""
    weights: Path | None = None
    """A local weights file; by default the cache that `fer-stream models pull` fills."""
    long_side_px: Annotated[int, Field(ge=64, le=4096)] = 320
    """The picture is shrunk to this long side before YuNet looks (320 px finds 800 of 819 reference faces)."""
    min_confidence: Fraction = 0.6
    """Detections below this are not faces."""


class TrackerSettings(Settings):
    """How faces are followed."""

    lost_s: NotNegative = 1.0
    """For so long a face that is not found keeps its place."""
    relink_s: NotNegative = 4.0
    """For so long after that a face that returns to the same place is the same person, if only one fits."""


class QualitySettings(Settings):
    """Which faces are worth a label. A face that fails gets `unknown`."""

    min_face_px: NotNegative = 24.0
    """Smaller faces (shorter side of the box) are `small`."""
    min_sharpness: NotNegative = 0.02
    """Blurrier crops are `blurred`; see `fer_stream.faces.quality.sharpness`."""
    max_turn: Fraction = 0.6
    """Faces turned further are `turned`: 0 looks into the camera, 1 is a profile."""
    min_visible: Fraction = 0.75
    """Faces of which less lies inside the picture are `cut_off`."""


class ModelSettings(Settings):
    """Which classifier runs, and where."""

    backend: Literal["auto", "litert", "keras"] = "auto"
    """`auto` is Keras where TensorFlow sees a GPU, else LiteRT int8 on the CPU."""
    path: Path | None = None
    """A folder with a model and its card.json; by default the model that comes with fer-stream."""
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 32
    """So many faces are classified at once at the most."""


class TimelineSettings(Settings):
    """How probabilities become labels that do not flicker."""

    smoothing_s: Positive = 0.2
    """Time constant of the smoothing kernel; holds for any frame rate."""
    hysteresis: Fraction = 0.1
    """A new emotion must lead the present one by so much smoothed probability."""
    min_prob: Fraction = 0.35
    """Below this smoothed probability the best emotion is not told: `unknown`."""
    min_segment_s: NotNegative = 0.5
    """A label that lasts shorter is not a label of its own."""
    max_gap_s: Positive = 0.5
    """A face that is away for longer ends its segment."""


class OutputSettings(Settings):
    """Which results are written, and how faces look in them."""

    table: bool = True
    """NAME.frames.csv"""
    video: bool = True
    """NAME.annotated.mp4, or .png for a still image"""
    report: bool = True
    """NAME.report.html"""
    picture: bool = True
    """NAME.timeline.png"""
    thumbnails: bool = False
    """Show one face per person in the report. Faces are personal data: off unless asked for."""
    redact: Literal["none", "blur", "black"] = "none"
    """How faces are made unrecognisable in the annotated video."""
    redact_people: tuple[int, ...] | None = None
    """The persons to redact; by default all, found or not sure."""


class FileSettings(Settings):
    """Everything `fer-stream run` and `analyze` can be told."""

    fps: Positive | None = None
    """Frames a second to look at; by default every one."""
    detector: DetectorSettings = DetectorSettings()
    tracker: TrackerSettings = TrackerSettings()
    quality: QualitySettings = QualitySettings()
    model: ModelSettings = ModelSettings()
    timeline: TimelineSettings = TimelineSettings()
    outputs: OutputSettings = OutputSettings()
