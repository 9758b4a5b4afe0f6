"""The settings of `fer-stream run` and `analyze`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import ValidationError, model_validator

from fer_stream.config.errors import complaints
from fer_stream.config.settings import (
    DetectorSettings,
    ModelSettings,
    Positive,
    QualitySettings,
    Settings,
    TimelineSettings,
    TrackerSettings,
)
from fer_stream.errors import ConfigError


class OutputSettings(Settings):
    """Which results are written, and how faces look in them."""

    table: bool = True
    """NAME.frames.csv"""
    video: bool = True
    """NAME.annotated.mp4, or .png for a still image"""
    report: bool = True
    """NAME.report.html"""
    plot: bool = True
    """NAME.timeline.png"""
    thumbnails: bool = False
    """Show one face per person in the report. Faces are personal data: off unless asked for."""
    redact: Literal["none", "blur", "black"] = "none"
    """How faces are made unrecognisable in the annotated video."""
    redact_persons: tuple[int, ...] | None = None
    """The persons to redact; by default all."""

    @model_validator(mode="after")
    def _thumbnails_do_not_undo_redaction(self) -> Self:
        if self.thumbnails and self.redact != "none":
            raise ValueError("thumbnails show the faces that redact covers: leave one of them out")
        return self

    @model_validator(mode="after")
    def _people_are_redacted_somehow(self) -> Self:
        if self.redact_persons and self.redact == "none":
            raise ValueError("persons to redact are named, but not how: with redact (--redact) blur or black")
        return self


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

    def with_values(self, values: Mapping[str, object]) -> FileSettings:
        """These settings with others for the dotted keys of `values`, as in `detector.type`; None changes nothing.

        Raises `ConfigError` where a value does not fit.
        """
        document = self.model_dump()
        for key, value in values.items():
            *groups, name = key.split(".")
            target = document
            for group in groups:
                target = target[group]
            target[name] = target[name] if value is None else value
        try:
            return FileSettings.model_validate(document)
        except ValidationError as error:
            raise ConfigError("\n".join(said for _, said in complaints(error, FileSettings))) from None
