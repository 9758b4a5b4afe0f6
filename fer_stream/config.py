"""YAML → typed settings.

Every number that a user may want to turn stands here once, with its unit in its name and the reason for its
default beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_stream.errors import ConfigError

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
    """The picture is scaled to this long side before YuNet looks, a small one up to four times its size (320 px finds
    800 of 819 reference faces)."""
    min_confidence: Fraction = 0.5
    """Detections below this are not faces."""


class TrackerSettings(Settings):
    """How faces are followed."""

    new_track_confidence: Fraction = 0.7
    """Detections below this prolong a track but do not begin one (BlazeFace gives lettering up to 0.66)."""
    lost_s: NotNegative = 1.0
    """For so long a face that is not found keeps its place."""
    relink_s: NotNegative = 4.0
    """For so long after that a face that returns to the same place is the same person, if only one fits."""


class QualitySettings(Settings):
    """Which faces are worth a label. A face that fails gets `unknown`."""

    min_face_px: NotNegative = 20.0
    """Smaller faces (shorter side of the box) are `small`: at 20 px the model is right in about 60 % of FER-2013."""
    min_sharpness: NotNegative = 0.05
    """Blurrier crops are `blurred`, see `fer_stream.faces.quality.sharpness`: just below, 55 % are right."""
    max_turn: Fraction = 0.45
    """Faces turned further are `turned`: 0 looks into the camera, 1 is a profile. From 0.4 on 56 % are right."""
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


class LiveSettings(Settings):
    """How a camera is read, and how patiently it is waited for."""

    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries the pictures: over TCP none is lost on the way."""
    fps: Positive | None = None
    """Pictures a second to look at; by default every one."""
    long_side_px: Annotated[int, Field(ge=64)] | None = None
    """Pictures are shrunk to this long side; by default they keep their size."""
    open_timeout_s: Positive = 5.0
    """Connecting has two steps, a first answer and a first look at the stream; each may take so long."""
    stall_s: Positive = 5.0
    """A camera that sends nothing for so long is stalled. Set it above the segment length of HLS."""
    no_picture_s: Positive = 30.0
    """So long may data come without a picture: above the time between two key frames."""
    retry_first_s: Positive = 0.5
    """The wait before a lost camera is tried again; doubles with every failure."""
    retry_max_s: Positive = 30.0
    """The longest of these waits."""
    retry_refused_s: Positive = 60.0
    """The wait after a wrong password or an unknown path: trying again faster locks accounts."""


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
        """These settings with others for the dotted keys of `values`, as in `detector.kind`; None changes nothing.

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
            faults = (f"{_key(fault)}: {_complaint(fault)}" for fault in error.errors(include_url=False))
            raise ConfigError("\n".join(faults)) from error


def load_settings(path: Path) -> FileSettings:
    """Read settings from a YAML file.

    Raises `ConfigError` with file, line and key, what was expected there and, for an unknown key, the nearest name.
    """
    return parse_settings(_read(path), name=str(path))


def parse_settings(text: str, *, name: str) -> FileSettings:
    """Settings from the text of a YAML file that is called `name` in errors."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name} is not YAML: {_one_line(error)}") from error
    if node is None:
        return FileSettings()
    if repeated := list(_repeated_keys(node)):
        raise ConfigError("\n".join(f"{name}:{fault}" for fault in repeated))
    try:
        return FileSettings.model_validate(values)
    except ValidationError as error:
        faults = [_fault(name, node, fault) for fault in error.errors(include_url=False)]
        raise ConfigError("\n".join(faults)) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: check the path given to --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text: {_one_line(error)}.") from error


def _fault(name: str, root: yaml.Node, fault: Mapping[str, Any]) -> str:
    """One fault that pydantic found, as a sentence with file and line."""
    where = f"{name}:{_line(root, fault['loc'])}: {_key(fault) or 'the file'}"
    if fault["type"] == "extra_forbidden":
        known = _keys_beside(fault["loc"])
        nearest = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known here are {', '.join(known)}."
        return f"{where} is no setting; {hint}"
    return f"{where}: {_complaint(fault)}"


def _key(fault: Mapping[str, Any]) -> str:
    return ".".join(map(str, fault["loc"]))


def _complaint(fault: Mapping[str, Any]) -> str:
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{message}, received {fault['input']!r}."


def _repeated_keys(node: yaml.Node) -> Iterator[str]:
    """YAML itself would take the last one without a word."""
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if first.setdefault(key.value, line) != line:
            yield f"{line}: {key.value} stands here twice, first in line {first[key.value]}."
        yield from _repeated_keys(value)


def _line(root: yaml.Node, loc: Sequence[int | str]) -> int:
    """The line, from 1, of the deepest node on the way to `loc`."""
    node = root
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == str(step)), node)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
    return int(node.start_mark.line) + 1


def _keys_beside(loc: Sequence[int | str]) -> list[str]:
    """The valid keys of the group in which the last step of `loc` stands."""
    group: type[BaseModel] = FileSettings
    for step in loc[:-1]:
        inner = group.model_fields[str(step)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            group = inner
    return list(group.model_fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
