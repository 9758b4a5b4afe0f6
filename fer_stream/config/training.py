"""Settings of `fer-stream train`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fer_stream.config.settings import Fraction, LocalPath, NotNegative, Positive, Settings

Count = Annotated[int, Field(ge=1)]


class DataSettings(Settings):
    """The labelled faces."""

    path: LocalPath
    """Kaggle's fer2013.csv, a folder with train/angry/*.jpg …, or an .npz with images, labels and usage."""
    ferplus: LocalPath | None = None
    """Microsoft's fer2013new.csv, with the rows in the order of fer2013.csv."""
    drop_copies: bool = True
    """Leave out training images that are exact copies of a test image."""


class NetworkSettings(Settings):
    """Network architecture."""

    kind: Literal["vgg", "resnet", "tutorial"] = "vgg"
    """`vgg`: two 3×3 convolutions a width. `resnet`: a residual block a width, after a first stride of 2.
    `tutorial`: the four-convolution net of countless tutorials, a baseline with fixed widths."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=5)] = (32, 64, 128, 256)
    """Channels of each stage; the resolution is halved after each."""
    dropout: Fraction = 0.2
    """Before the heads."""


class AugmentSettings(Settings):
    """Random augmentation of training images."""

    rotation_deg: NotNegative = 15.0
    """Maximum rotation in either direction."""
    scale: Fraction = 0.15
    """Maximum relative change of the size."""
    aspect: Fraction = 0.08
    """Maximum relative change of the aspect ratio."""
    shift: Fraction = 0.12
    """Maximum shift along both axes, as a share of the side."""
    contrast: Fraction = 0.3
    """Maximum relative change of the contrast."""
    brightness: Fraction = 0.2
    """Maximum change of the brightness, as a share of the range."""
    gamma: NotNegative = 0.3
    """Gamma from exp(−gamma) to exp(gamma): low light, and its opposite."""
    erase: Fraction = 0.5
    """A rectangle is erased from this share of the images."""
    erase_px: tuple[Count, Count] = (6, 18)
    """Minimum and maximum side of the rectangle."""
    mixup: NotNegative = 0.0
    """Alpha of the beta distribution by which every second batch mixes pairs of images; 0 disables it."""
    shrink: Fraction = 0.15
    """This share of the images is reduced to 24, 16 or 12 px and enlarged again, as a face far from the camera is.
    Teachers see faces without this and the following degradations."""
    blur: Fraction = 0.15
    """This share of the images is blurred, at most by a Gaussian of 1.8 px."""
    compress: Fraction = 0.15
    """This share of the images is compressed as JPEG does it, at a quality from 10 to 80."""
    noise: Fraction = 0.2
    """This share of the images has noise of up to 25 gray levels' deviation."""
    video: Fraction = 0.0
    """This share of the images is taken from an H.264 video at a constant rate factor from 28 to 36, in which the
    faces have sides from 28 to 144 px."""


class TargetSettings(Settings):
    """Target of the head of the seven labels."""

    votes: Fraction = 0.0
    """Share of the FER+ votes in the target; the remainder is FER-2013's label. Faces without votes use the label
    only. At 0.5 predictions agree much more often with raters, and slightly less often with labels."""
    logit_adjustment: NotNegative = 0.0
    """During training, this times the logarithm of the class shares of the target is added to the logits (Menon et
    al., "Long-tail learning via logit adjustment", 2021). At 1 rare classes are predicted as if all were equally
    frequent."""


class TeacherSettings(Settings):
    """Distillation: the network learns the outputs of teachers for the same augmented batch and its mirror image."""

    runs: tuple[LocalPath, ...] = ()
    """The folders of finished runs, or .keras files."""
    weight: Fraction = 0.8
    """Share of the teachers in the target; the remainder is the label."""
    logit_adjustment: NotNegative = 0.0
    """The `targets.logit_adjustment` that the teachers were trained with. It is added to their logits, so that
    their outputs match the labels."""


class TrainSettings(Settings):
    """All settings of `fer-stream train`."""

    data: DataSettings
    network: NetworkSettings = NetworkSettings()
    start_from: LocalPath | None = None
    """A finished run, or a .keras file, of the same network, whose weights are the first ones; then take a low
    learning_rate. A net of kind `vgg` may have fewer channels than it, and gets the strongest ones. By default
    weights are drawn at random."""
    freeze: Literal["nothing", "trunk"] = "nothing"
    """`trunk` fits only the head of the seven labels, to convergence; all other layers keep the weights of
    `start_from`. A FER+ head that `start_from` does not have is fitted as well. `epochs` is then the number of passes
    over the faces, of which the first is without augmentation. Rates, momentum and batch statistics do not apply,
    and there are no teachers and no mixup."""
    start_share: Fraction = 0.0
    """The share of those first weights in the ones that are kept, whose other part is what was learned. Such a mean
    keeps most of both (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022)."""
    augment: AugmentSettings = AugmentSettings()
    targets: TargetSettings = TargetSettings()
    teachers: TeacherSettings = TeacherSettings()
    epochs: Count = 60
    batch_size: Annotated[int, Field(ge=2)] = 256
    learning_rate: Positive = 0.1
    """The highest one, of SGD with Nesterov momentum: reached after `warmup_epochs`, then a cosine to 0."""
    warmup_epochs: NotNegative = 3.0
    weight_decay: NotNegative = 5e-4
    """Of convolutions and dense layers; norms and biases have none. With `freeze: trunk` of the last layer, for
    features scaled to a variance of 1."""
    clip_norm: Positive = 5.0
    """The norm of all gradients together is held below this."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """The weights that are kept are an exponential moving average over steps, with this momentum."""
    label_smoothing: Fraction = 0.1
    """Without teachers: the share of a label that is spread over all."""
    ferplus_weight: NotNegative = 1.0
    """Weight of the FER+ votes in the loss. They add about two points of accuracy and predict the agreement of
    raters. With 0 the network has no FER+ head."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` times a few steps of both and takes the faster one; a resumed run keeps its precision. bfloat16 is
    faster on a GPU and on CPUs with AMX, and slower on CPUs without it. Applies to teachers as well."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Runs with equal seed, settings and versions are equal."""

    @model_validator(mode="after")
    def _check_start_share(self) -> Self:
        if self.start_share and not self.start_from:
            raise ValueError("start_share needs start_from")
        return self

    @model_validator(mode="after")
    def _check_freeze(self) -> Self:
        if self.freeze == "nothing":
            return self
        if not self.start_from:
            raise ValueError("freeze: trunk needs start_from")
        if self.teachers.runs or self.augment.mixup:
            raise ValueError("freeze: trunk fits the last layer without teachers.runs and augment.mixup; remove them")
        return self

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.freeze == "nothing" and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} must be less than epochs {self.epochs}")
        return self
