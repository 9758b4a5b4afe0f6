"""Settings of recordings, and the groups they share with the live service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fer_stream.config.errors import format_errors, secret_keys
from fer_stream.errors import ConfigError

CHECK_FILES = "check_files"
"""Key of pydantic's validation context. If its value is true, files that settings refer to must exist."""

# A timeout on missing frames is at least this many frame intervals.
_MIN_TIMEOUT_FRAMES = 1.5


def _add_secret_files(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add KEY_file to the JSON Schema beside each secret KEY. If KEY is required, one of the two is."""
    for key in secret_keys(model):
        schema["properties"][f"{key}_file"] = {"type": "string", "description": f"A file that contains the {key}."}
        if key in schema.get("required", []):
            schema["required"].remove(key)
            schema["anyOf"] = [{"required": [key]}, {"required": [f"{key}_file"]}]


def _refuse_empty(value: object) -> object:
    if value == "":  # Path("") is the current folder
        raise ValueError("must not be empty")
    return value


def _expand_user(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


Label = Literal["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
"""One of `fer_stream.records.LABELS`."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
LocalPath = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_expand_user)]
"""A path on this machine; ~ is the user's home."""


class Settings(BaseModel):
    """Base of every group of settings: frozen; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=_add_secret_files,
    )


class DetectorSettings(Settings):
    """Face detection."""

    type: Literal["auto", "yunet", "blazeface"] = "auto"
    """`auto` is YuNet if its weights are available, otherwise BlazeFace."""
    weights: LocalPath | None = None
    """Local weights file. Default: the cache that `fer-stream models pull` fills."""
    input_size_px: Literal["auto"] | Annotated[int, Field(ge=64, le=4096)] = "auto"
    """Long side in px to which frames are scaled for detection; a larger one finds smaller faces and is slower.
    `auto`: still images are examined at a size at which faces from `quality.min_face_px` are found; video at one
    for twice that, from 320 px (frames up to 960 px wide) to 1280 px (from 3200 px). BlazeFace has an input of
    192 px: `auto` uses it for video; still images and explicit larger sizes are examined in tiles."""
    min_confidence: Fraction = 0.5
    """Detections below this are ignored."""
    interval_s: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Interval between detections. Detection also runs on the next frame when a face appears, disappears or is lost.
    Between detections, faces are tracked by template matching. 0 detects in every frame. At most 0.5 s, because
    blurred previews rely on it."""


class TrackerSettings(Settings):
    """Face tracking."""

    new_track_confidence: Fraction = 0.7
    """Minimum confidence of a detection that starts a track. Weaker detections only continue one (BlazeFace gives
    lettering up to 0.66)."""
    track_timeout_s: NotNegative = 1.0
    """Seconds a track is kept without a detection."""
    reassociate_s: NotNegative = 4.0
    """Seconds after `track_timeout_s` in which a face that reappears in the same place gets its number back, if
    exactly one person fits."""

    def at_rate(self, fps: float, detection_interval_s: float) -> Self:
        """Return these settings for `fps` frames per second and one detection per `detection_interval_s`.

        A track must survive until the next detection, which runs on the first frame after the interval.
        """
        shortest = _MIN_TIMEOUT_FRAMES * (detection_interval_s + 1 / fps)
        return self.model_copy(update={"track_timeout_s": max(self.track_timeout_s, shortest)})


class QualitySettings(Settings):
    """Requirements for a label. A face that fails one of them is `unknown`."""

    min_face_px: NotNegative = 20.0
    """Faces with a shorter side below this are `small`. At 20 px about 60 % of FER-2013 is classified correctly."""
    min_sharpness: NotNegative = 0.05
    """Crops below this sharpness are `blurred` (`fer_stream.faces.crop.sharpness`). Just below, 55 % are
    correct."""
    max_head_rotation: Fraction = 0.55
    """Faces turned further are `off_frontal`: 0 is frontal, 1 is a profile."""
    min_visible_fraction: Fraction = 0.65
    """Faces with less of their box inside the frame are `truncated`."""


class ModelSettings(Settings):
    """Emotion classification."""

    backend: Literal["auto", "litert", "onnx", "openvino", "keras"] = "auto"
    """`auto` is Keras if TensorFlow sees a GPU, otherwise the fastest backend on this CPU."""
    size: Literal["standard", "small"] = "standard"
    """Which of the two models shipped with fer-stream. `small` needs 29 % of the multiply-adds and is slightly less
    accurate."""
    path: LocalPath | None = None
    """Folder with another model and its card.json."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Maximum number of faces per batch."""
    min_agreement: Fraction = 0.2
    """Minimum share of human raters predicted to agree with the label, weighted by the rarity of the label. A face
    below it takes the predicted votes of the raters if neutral leads them, and is `unclear` otherwise. 0 labels every
    face."""
    class_bias: dict[Label, Annotated[float, Field(ge=-3, le=3)]] = {}
    """Added to the logits of these labels: `{neutral: 0.5}` for meetings and talks, `{disgust: 0.7}` for posed
    expressions. A label that is chosen more often is also wrong more often (docs/evidence/accuracy.md)."""
    interval_s: NotNegative = 0.08
    """Interval between classifications of a person. In between, the label comes from the neighbouring frames. 0
    classifies every face in every frame."""


class TimelineSettings(Settings):
    """Smoothing of probabilities into stable labels."""

    smoothing_s: Positive = 0.4
    """Time constant of the smoothing kernel, independent of the frame rate. Measured live with 0.4 instead of 0.2: 37
    instead of 56 changes of the provisional label per minute, a median lag of 0.14 s instead of 0.08 s, and final
    labels 0.6 s later (2.7 s)."""
    hysteresis: Fraction = 0.1
    """Lead in smoothed probability that a new label needs over the current one."""
    min_prob: Fraction = 0.35
    """If the best smoothed probability is below this, the label is `unknown`."""
    min_segment_s: NotNegative = 0.5
    """Shorter labels are merged into their neighbours."""
    max_gap_s: Positive = 0.5
    """A segment ends if its face is missing for longer."""

    def at_rate(self, fps: float) -> Self:
        """Return these settings for `fps` frames per second, at which the next frame must not be a gap."""
        return self.model_copy(update={"max_gap_s": max(self.max_gap_s, _MIN_TIMEOUT_FRAMES / fps)})


class OutputSettings(Settings):
    """Which results are written, and how faces appear in them."""

    table: bool = True
    """NAME.frames.csv"""
    video: bool = True
    """NAME.annotated.mp4, or .png for a still image"""
    report: bool = True
    """NAME.report.html"""
    plot: bool = True
    """NAME.timeline.png"""
    export: tuple[Literal["eaf", "textgrid", "vtt", "srt", "boris"], ...] = ()
    """Formats of annotation and subtitle programs to write as well."""
    thumbnails: bool = False
    """Show one face per person in the report. Off by default, because faces are personal data."""
    redact: Literal["none", "blur", "black"] = "none"
    """How faces are made unrecognisable in the annotated video."""
    redact_persons: tuple[int, ...] | None = None
    """Persons to redact. Default: all."""

    @model_validator(mode="after")
    def _check_thumbnails(self) -> Self:
        if self.thumbnails and self.redact != "none":
            raise ValueError("thumbnails show the faces that redact hides: remove one of the two")
        return self

    @model_validator(mode="after")
    def _check_redact_persons(self) -> Self:
        if self.redact_persons and self.redact == "none":
            raise ValueError("redact_persons needs redact (--redact) blur or black")
        return self


class FileSettings(Settings):
    """Settings of `fer-stream run` and `analyze`."""

    fps: Positive | None = None
    """Maximum number of frames analysed per second. Default: all."""
    start_s: NotNegative = 0.0
    """Media time in seconds at which the analysis of a video starts."""
    end_s: Positive | None = None
    """Media time in seconds at which it ends. Default: the end of the video."""
    rotate: Literal[0, 90, 180, 270] = 0
    """Degrees by which pictures are rotated clockwise, in addition to the rotation that the file declares."""
    detector: DetectorSettings = DetectorSettings()
    tracker: TrackerSettings = TrackerSettings()
    quality: QualitySettings = QualitySettings()
    model: ModelSettings = ModelSettings()
    timeline: TimelineSettings = TimelineSettings()
    outputs: OutputSettings = OutputSettings()

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError("end_s (--end) must be after start_s (--start)")
        return self

    def with_values(self, values: Mapping[str, object]) -> FileSettings:
        """Return a copy with the given values of dotted keys such as `detector.type`. None keeps the current value.

        Raises `ConfigError` if a value is not valid.
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
            raise ConfigError("\n".join(text for _, text in format_errors(error, FileSettings))) from None
