"""Networks with gray faces as input and one or two heads, and their distillation. Runs on any Keras 3 backend."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import layers, ops

from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD
from fer_stream.records import CROP_SIZE_PX, F32, FERPLUS, LABELS
from fer_stream.training.augment import Augment, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fer_stream.config.training import NetworkSettings, TrainSettings

HEADS = {FER2013_HEAD: len(LABELS), FERPLUS_HEAD: len(FERPLUS)}
"""Outputs and their sizes, logits in float32: FER-2013's labels and the eight FER+ emotions."""

# Mean and standard deviation of FER-2013 Training, in shares of the range.
_MEAN, _STD = 0.5075, 0.255

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def heads_of(settings: TrainSettings) -> tuple[str, ...]:
    """Return the heads that are trained with these settings."""
    return (FER2013_HEAD, FERPLUS_HEAD) if settings.ferplus_weight else (FER2013_HEAD,)


def build(
    settings: NetworkSettings,
    *,
    heads: Sequence[str] = tuple(HEADS),
    weight_decay: float = 0.0,
    precision: str = "float32",
) -> keras.Model:
    """Build a network with random weights: float32 (n, 48, 48, 1), values 0..255, to {head: logits float32 (n, k)}.

    `weight_decay` is an L2 loss of half that factor, so that it takes part in the momentum.
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
    """Return which of `HEADS` a network has, in their order."""
    names = {layer.name for layer in net.layers}
    return [head for head in HEADS if head in names]


def compute_in(net: keras.Model, precision: str) -> keras.Model:
    """Set the compute precision, `float32` or `bfloat16`, except for heads and weights; returns `net`."""
    for layer in net.layers:
        if layer.name not in HEADS:
            layer.dtype_policy = _POLICIES[precision]
    return net


def log_shares(class_shares: F32) -> F32:
    """Return the logarithms of class shares, float32 (7,), for the logit adjustment; finite for a share of 0."""
    return np.log(np.maximum(class_shares, _MIN_CLASS_SHARE)).astype(np.float32)


def multiply_adds(net: keras.Model) -> int:
    """Return the multiply-adds per face of convolutions and dense layers."""
    return sum(_multiply_adds(layer) for layer in net.layers)


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.Conv2D):
        _, height, width, _ = layer.output.shape
        return int(height * width * prod(layer.kernel.shape))
    return int(prod(layer.kernel.shape)) if isinstance(layer, layers.Dense) else 0


class _Layers:
    """Factory of the layers of all networks."""

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


_WITHOUT_CHANNELS = 3
_MIN_CLASS_SHARE = 1e-6
"""Minimum frequency of a class, because its logarithm is needed."""


class DistillationModel(keras.Model):  # type: ignore[misc]
    """Training step of a network with augmentation, teachers and the loss of all heads.

    Fit it on uint8 (n, 48, 48) or (n, 48, 48, c) and the targets of `make_targets`. Teachers see the first of the c
    views of a face, the network the last. `class_shares`, float32 (7,), is the mean target for the logit adjustment;
    uniform by default.
    """

    def __init__(
        self,
        net: keras.Model,
        teachers: Sequence[keras.Model],
        settings: TrainSettings,
        class_shares: F32 | None = None,
    ) -> None:
        super().__init__(name="learner")
        self.net = net
        self.teachers = list(teachers)
        for teacher in self.teachers:
            teacher.trainable = False
        self._settings = settings
        self._seed = keras.random.SeedGenerator(settings.seed)
        self._augment = Augment(settings.augment, self._seed)
        shares = np.full(len(LABELS), 1 / len(LABELS), np.float32) if class_shares is None else class_shares
        self._log_shares = log_shares(shares)

    def reseed(self, epoch: int) -> None:
        """Seed all random generators for this epoch, so that a resumed run equals an uninterrupted one."""
        generators = [
            self._seed,
            *(layer.seed_generator for layer in self.net.layers if hasattr(layer, "seed_generator")),
        ]
        for number, generator in enumerate(generators):
            generator.state.assign(ops.convert_to_tensor([self._settings.seed + number, epoch << 16], "uint32"))

    def call(self, faces: Tensor, training: bool = False) -> dict[str, Tensor]:
        """Return the logits of all heads for uint8 (n, 48, 48) or (n, 48, 48, c); in training also of teachers."""
        faces = ops.cast(faces, "float32")
        faces = ops.expand_dims(faces, -1) if len(faces.shape) == _WITHOUT_CHANNELS else faces
        if not training:
            return dict(self.net(faces[..., -1:], training=False))
        share = self._augment.mixup_share()
        faces = _mix(self._augment(faces), share)
        logits = dict(self.net(self._augment.corrupt(faces[..., -1:]), training=True))
        logits |= self._teacher_probs(faces[..., :1])
        return logits | {"share": ops.broadcast_to(share, (ops.shape(faces)[0],))}

    def _teacher_probs(self, faces: Tensor) -> dict[str, Tensor]:
        """Return the mean probabilities of the teachers for faces and their mirror images, per head.

        Both views together are 0.6 points more accurate than one (`vgg-s-robust-1` on PublicTest).
        """
        views = (faces, ops.flip(faces, axis=2))
        answers = [dict(teacher(view, training=False)) for teacher in self.teachers for view in views]
        taught = {}
        for head in heads_in(self.net):
            by = self._settings.teachers.logit_adjustment if head == FER2013_HEAD else 0.0
            if probs := [ops.softmax(self._adjust_logits(answer[head], by)) for answer in answers if head in answer]:
                taught[f"taught_{head}"] = ops.mean(ops.stack(probs), axis=0)
        return taught

    def compute_loss(
        self,
        x: Tensor = None,  # noqa: ARG002 - the signature is Keras'
        y: Mapping[str, Tensor] | None = None,
        y_pred: Mapping[str, Tensor] | None = None,
        sample_weight: Tensor = None,  # noqa: ARG002
        training: bool = True,  # noqa: ARG002
    ) -> Tensor:
        """Return the mean loss of a batch, with weight decay."""
        assert y is not None
        assert y_pred is not None
        settings, share = self._settings, y_pred["share"]
        of_votes = settings.targets.votes
        labels = (1 - of_votes) * ops.one_hot(y["label"], len(LABELS)) + of_votes * y["seven"]
        if not self.teachers:
            labels = labels * (1 - settings.label_smoothing) + settings.label_smoothing / len(LABELS)
        loss = self._cross_entropy(FER2013_HEAD, _mix(labels, share), y_pred)
        if FERPLUS_HEAD in y_pred:
            votes = _mix(y["votes"], share)
            loss += settings.ferplus_weight * self._cross_entropy(FERPLUS_HEAD, votes, y_pred)
        return ops.mean(loss) + sum(self.net.losses)

    def _cross_entropy(self, head: str, target: Tensor, logits: Mapping[str, Tensor]) -> Tensor:
        """Return the cross entropy per face, float32 (n,); teachers have their weight in the target."""
        taught = logits.get(f"taught_{head}")
        if taught is not None:
            weight = self._settings.teachers.weight
            target = (1 - weight) * target + weight * taught
        adjustment = self._settings.targets.logit_adjustment if head == FER2013_HEAD else 0.0
        return -ops.sum(target * ops.log_softmax(self._adjust_logits(logits[head], adjustment)), axis=1)

    def _adjust_logits(self, logits: Tensor, by: float) -> Tensor:
        """Add `by` times the logarithm of the class shares to logits float32 (n, 7)."""
        return logits + by * ops.convert_to_tensor(self._log_shares) if by else logits


def _mix(batch: Tensor, share: Tensor) -> Tensor:
    """Mix each row with its counterpart in the reversed batch; batches are shuffled."""
    shape = (-1,) + (1,) * (len(batch.shape) - 1) if len(share.shape) else ()
    share = ops.reshape(share, shape) if shape else share
    return share * batch + (1 - share) * ops.flip(batch, axis=0)
