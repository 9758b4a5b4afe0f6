"""The nets: gray faces in, one or two heads out. Keras 3 without any one backend."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import keras
from keras import layers

from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD
from fer_stream.config.training import NetworkSettings, TrainSettings
from fer_stream.records import CROP_SIZE_PX, FERPLUS, LABELS

HEADS = {FER2013_HEAD: len(LABELS), FERPLUS_HEAD: len(FERPLUS)}
"""The outputs, as logits in float32: FER-2013's labels, and the eight emotions of FER+."""

# Mean and standard deviation of FER-2013 Training, in shares of the range.
_MEAN, _STD = 0.5075, 0.255

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def heads_of(settings: TrainSettings) -> tuple[str, ...]:
    """The heads that a training with these settings teaches."""
    return (FER2013_HEAD, FERPLUS_HEAD) if settings.ferplus_weight else (FER2013_HEAD,)


def build(
    settings: NetworkSettings,
    *,
    heads: Sequence[str] = tuple(HEADS),
    weight_decay: float = 0.0,
    precision: str = "float32",
) -> keras.Model:
    """A net with fresh weights: float32 (n, 48, 48, 1), values 0..255 → {name of head: logits float32 (n, k)}.

    `weight_decay` is added to the loss of kernels as half its square, so that it takes part in the momentum.
    """
    make = _Layers(weight_decay, _POLICIES[precision])
    faces = layers.Input((CROP_SIZE_PX, CROP_SIZE_PX, 1), name="faces")
    x = layers.Rescaling(1 / (255 * _STD), offset=-_MEAN / _STD, dtype=make.dtype, name="scale")(faces)
    x = {"vgg": _vgg, "resnet": _resnet, "tutorial": _tutorial}[settings.kind](make, x, settings)
    logits = {
        head: layers.Dense(HEADS[head], kernel_regularizer=make.decay(), dtype="float32", name=head)(x)
        for head in heads
    }
    return keras.Model(faces, logits, name=settings.kind)


def heads_in(net: keras.Model) -> list[str]:
    """Which of `HEADS` a net has, in their order."""
    names = {layer.name for layer in net.layers}
    return [head for head in HEADS if head in names]


def compute_in(net: keras.Model, precision: str) -> keras.Model:
    """Let a net compute in `float32` or `bfloat16`, but for its heads; its weights stay float32. The same net."""
    for layer in net.layers:
        if layer.name not in HEADS:
            layer.dtype_policy = _POLICIES[precision]
    return net


def multiply_adds(net: keras.Model) -> int:
    """Multiply-adds for one face, of convolutions and dense layers."""
    return sum(_multiply_adds(layer) for layer in net.layers)


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.Conv2D):
        _, height, width, _ = layer.output.shape
        return int(height * width * prod(layer.kernel.shape))
    return int(prod(layer.kernel.shape)) if isinstance(layer, layers.Dense) else 0


class _Layers:
    """The layers that all nets are made of."""

    def __init__(self, weight_decay: float, dtype: str) -> None:
        self.dtype = dtype
        self._weight_decay = weight_decay

    def decay(self) -> keras.Regularizer | None:
        return keras.regularizers.L2(self._weight_decay / 2) if self._weight_decay else None

    def conv(self, x: keras.KerasTensor, width: int, *, size: int = 3, stride: int = 1) -> keras.KerasTensor:
        """Convolution and batch norm."""
        x = layers.Conv2D(
            width, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal",
            kernel_regularizer=self.decay(), dtype=self.dtype,
        )(x)  # fmt: skip
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x)

    def dense(self, x: keras.KerasTensor, width: int) -> keras.KerasTensor:
        """Dense layer, batch norm and ReLU."""
        x = layers.Dense(width, use_bias=False, kernel_regularizer=self.decay(), dtype=self.dtype)(x)
        return self.relu(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x))

    def relu(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.ReLU(dtype=self.dtype)(x)

    def halve(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.MaxPooling2D(2, dtype=self.dtype)(x)

    def drop(self, x: keras.KerasTensor, share: float) -> keras.KerasTensor:
        return layers.Dropout(share, dtype=self.dtype)(x)

    def mean(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.GlobalAveragePooling2D(dtype=self.dtype)(x)


def _vgg(make: _Layers, x: keras.KerasTensor, settings: NetworkSettings) -> keras.KerasTensor:
    for width in settings.widths:
        x = make.relu(make.conv(x, width))
        x = make.halve(make.relu(make.conv(x, width)))
    return make.drop(make.mean(x), settings.dropout)


def _resnet(make: _Layers, x: keras.KerasTensor, settings: NetworkSettings) -> keras.KerasTensor:
    x = make.relu(make.conv(x, settings.widths[0], stride=2))
    for stage, width in enumerate(settings.widths):
        x = _residual(make, x, width, stride=1 if stage == 0 else 2)
    return make.drop(make.mean(x), settings.dropout)


def _residual(make: _Layers, x: keras.KerasTensor, width: int, *, stride: int) -> keras.KerasTensor:
    same = stride == 1 and x.shape[-1] == width
    past = x if same else make.conv(x, width, size=1, stride=stride)
    through = make.conv(make.relu(make.conv(x, width, stride=stride)), width)
    return make.relu(layers.Add(dtype=make.dtype)([past, through]))


def _tutorial(make: _Layers, x: keras.KerasTensor, settings: NetworkSettings) -> keras.KerasTensor:
    for width in (64, 128, 512, 512):
        x = make.drop(make.halve(make.relu(make.conv(x, width))), settings.dropout / 2)
    x = layers.Flatten(dtype=make.dtype)(x)
    for width in (512, 256):
        x = make.drop(make.dense(x, width), settings.dropout)
    return x
