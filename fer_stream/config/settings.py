"""What the settings of recordings and of the live service have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fer_stream.config.errors import secret_keys


def _with_secret_files(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Tell the JSON Schema of the KEY_file beside every secret KEY, one of which is needed where KEY is."""
    for key in secret_keys(model):
        schema["properties"][f"{key}_file"] = {"type": "string", "description": f"A file that holds the {key}."}
        if key in schema.get("required", []):
            schema["required"].remove(key)
            schema["anyOf"] = [{"required": [key]}, {"required": [f"{key}_file"]}]


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
LocalPath = Annotated[Path, AfterValidator(_at_home)]
"""A path on this machine; ~ is the user's home."""


# A span of time that frames must fit into is at least so many frames long.
_PATIENCE_FRAMES = 1.5


class Settings(BaseModel):
    """The base of every group of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        json_schema_extra=_with_secret_files,
    )


class DetectorSettings(Settings):
    """How faces are found."""

    type: Literal["auto", "yunet", "blazeface"] = "auto"
    """`auto` is YuNet where its weights are at hand, else BlazeFace."""
    weights: LocalPath | None = None
    """A local weights file; by default the cache that `fer-stream models pull` fills."""
    input_size_px: Annotated[int, Field(ge=64, le=4096)] = 320
    """The picture is scaled to this long side before YuNet looks, a small one up to four times its size (320 px finds
    800 of 819 reference faces)."""
    min_confidence: Fraction = 0.5
    """Detections below this are not faces."""
    interval_s: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """The detector looks so often, and at once where faces come, go or are lost; in between they are followed by the
    motion of their pixels. 0 looks at every frame. At most 0.5 s, because blurred previews rely on it."""


class TrackerSettings(Settings):
    """How faces are followed."""

    new_track_confidence: Fraction = 0.7
    """Detections below this prolong a track but do not begin one (BlazeFace gives lettering up to 0.66)."""
    track_timeout_s: NotNegative = 1.0
    """For so long a face that is not found keeps its place."""
    reassociate_s: NotNegative = 4.0
    """For so long after that a face that returns to the same place is the same person, if only one fits."""

    def at_rate(self, fps: float, look_every_s: float) -> Self:
        """For frames that come `fps` times a second, of which the detector sees one every `look_every_s`.

        A face must live until it is looked for again, which is at the first frame after that time.
        """
        return self.model_copy(
            update={"track_timeout_s": max(self.track_timeout_s, _PATIENCE_FRAMES * (look_every_s + 1 / fps))}
        )


class QualitySettings(Settings):
    """Which faces are worth a label. A face that fails gets `unknown`."""

    min_face_px: NotNegative = 20.0
    """Smaller faces (shorter side of the box) are `small`: at 20 px the model is right in about 60 % of FER-2013."""
    min_sharpness: NotNegative = 0.05
    """Blurrier crops are `blurred`, see `fer_stream.faces.quality.sharpness`: just below, 55 % are right."""
    max_head_rotation: Fraction = 0.45
    """Faces turned further are `turned`: 0 looks into the camera, 1 is a profile. From 0.4 on 56 % are right."""
    min_visible_fraction: Fraction = 0.65
    """Faces of which less lies inside the picture are `cut_off`, see `fer_stream.faces.quality.visible`."""


class ModelSettings(Settings):
    """Which classifier runs, and where."""

    backend: Literal["auto", "litert", "onnx", "openvino", "keras"] = "auto"
    """`auto` is Keras where TensorFlow sees a GPU, else what is fastest on this CPU (docs/backends.md)."""
    size: Literal["standard", "small"] = "standard"
    """Which of the two models that come with fer-stream: `small`, for small devices, has two sevenths of the
    multiply-adds and is right a little less often (models/README.md)."""
    path: LocalPath | None = None
    """A folder with a model and its card.json, instead of one that comes with fer-stream."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """So many faces are classified at once at the most."""
    min_agreement: Fraction = 0.1
    """Faces are `unclear` where the model expects a smaller share of people to name the emotion that it calls. With
    0.1 that is a tenth of FER+, none of which most people call so (docs/training.md); 0 judges all."""
    interval_s: NotNegative = 0.08
    """A person is classified so often; in between, the label comes from the frames before and after. 0 is every face
    of every frame."""


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

    def at_rate(self, fps: float) -> Self:
        """For frames that are looked at `fps` times a second: the next frame must not seem a gap."""
        return self.model_copy(update={"max_gap_s": max(self.max_gap_s, _PATIENCE_FRAMES / fps)})
