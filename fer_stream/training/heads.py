"""Fit of the last layer of a network whose other layers are frozen.

The features of all faces are computed in several passes: the first on unchanged faces, the others on augmented ones.
The loss of a last layer on fixed features is convex, so L-BFGS (SciPy) reaches its minimum; SGD only comes close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize

from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD
from fer_stream.records import F32, F64, LABELS, U8
from fer_stream.training.augment import Augment, Tensor
from fer_stream.training.batches import class_shares
from fer_stream.training.network import heads_in, log_shares
from fer_stream.training.progress import Progress, Step

if TYPE_CHECKING:
    from collections.abc import Collection

    from fer_stream.config.training import AugmentSettings, TrainSettings
    from fer_stream.training.batches import Batches

_MAX_ITERATIONS = 1000
# L-BFGS ends when an iteration reduces the loss by a smaller share, or no derivative of the loss is larger.
_MIN_REDUCTION, _MAX_DERIVATIVE = 1e-7, 1e-5
_MIN_DEVIATION = 1e-6
# Dimensions of a batch of faces without views, uint8 (n, 48, 48).
_WITHOUT_VIEWS = 3


def fit_heads(
    net: keras.Model, batches: Batches, settings: TrainSettings, *, kept: Collection[str], progress: Progress
) -> float:
    """Fit the heads of `net` to convergence, except for those in `kept`; returns the loss of the labels.

    Every pass over `batches` adds features; there are `settings.epochs` passes.
    """
    features, targets = _collect(net, batches, settings, progress)
    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), _MIN_DEVIATION)
    features -= mean
    features /= deviation
    shares = class_shares(batches.faces, settings.targets.votes)
    offsets = np.asarray(settings.targets.logit_adjustment * log_shares(shares), np.float32)
    losses = {}
    for head in heads_in(net):
        if head not in kept:
            added = offsets if head == FER2013_HEAD else np.zeros_like(targets[head][0])
            kernel, bias, losses[head] = _minimum(features, targets[head], added, settings.weight_decay)
            kernel /= deviation[:, np.newaxis]
            net.get_layer(head).set_weights([kernel, bias - mean @ kernel])
    return losses[FER2013_HEAD]


def _collect(
    net: keras.Model, batches: Batches, settings: TrainSettings, progress: Progress
) -> tuple[F32, dict[str, F32]]:
    """Return features, float32 (n, k), and the target of each head, float32 (n, 7) and (n, 8), of all passes."""
    extractor = _FeatureExtractor(net, settings.augment)
    features, labels, votes = [], [], []
    for number in range(settings.epochs):
        batches.reseed(number)
        for step in range(len(batches)):
            images, target = batches[step]
            views = images[..., np.newaxis] if images.ndim == _WITHOUT_VIEWS else images
            if number:
                seed = (settings.seed, number * len(batches) + step)
                features.append(extractor.extract_augmented(views[..., -1:], seed))
            else:
                features.append(extractor.extract(views[..., :1]))
            labels.append(_label_target(target, settings))
            votes.append(target["votes"])
            progress(Step(number, step + 1, len(batches)))
    return np.concatenate(features), {FER2013_HEAD: np.concatenate(labels), FERPLUS_HEAD: np.concatenate(votes)}


def _label_target(target: dict[str, np.ndarray], settings: TrainSettings) -> F32:
    votes, smoothing = settings.targets.votes, settings.label_smoothing
    one_hot = np.eye(len(LABELS), dtype=np.float32)[target["label"]]
    mixed: F32 = (1 - votes) * one_hot + votes * target["seven"]
    return mixed * (1 - smoothing) + smoothing / len(LABELS)


class _FeatureExtractor(keras.Model):  # type: ignore[misc]
    """Computes the input of the heads of a network."""

    def __init__(self, net: keras.Model, settings: AugmentSettings) -> None:
        super().__init__(name="features")
        self._trunk = keras.Model(net.inputs, net.get_layer(FER2013_HEAD).input)
        self._seed = keras.random.SeedGenerator(0)
        self._augment = Augment(settings, self._seed)

    def extract(self, faces: U8) -> F32:
        """Return the features of faces uint8 (n, 48, 48, 1), float32 (n, k)."""
        return np.asarray(self._trunk.predict_on_batch(faces.astype(np.float32)), np.float32)

    def extract_augmented(self, faces: U8, seed: tuple[int, int]) -> F32:
        """Return the features of faces uint8 (n, 48, 48, 1) after augmentation with `seed`, float32 (n, k)."""
        self._seed.state.assign(ops.convert_to_tensor(seed, "uint32"))
        return np.asarray(self.predict_on_batch(faces.astype(np.float32)), np.float32)

    def call(self, faces: Tensor) -> Tensor:
        return self._trunk(self._augment.corrupt(self._augment(faces)), training=False)


def _minimum(features: F32, target: F32, offsets: F32, decay: float) -> tuple[F32, F32, float]:
    """Return kernel float32 (k, c), bias float32 (c,) and loss of the softmax regression with the lowest loss.

    `offsets`, float32 (c,), are added to the logits. Rows of `target` without any share have no weight. The loss
    contains half of `decay` times the sum of squares of the kernel.
    """
    weighted = target.sum(axis=1, keepdims=True)
    rows, inputs, outputs = len(features), features.shape[1], target.shape[1]

    def loss_and_gradient(weights: F64) -> tuple[float, F64]:
        kernel, bias = np.split(weights.astype(np.float32), [inputs * outputs])
        kernel = kernel.reshape(inputs, outputs)
        logits = features @ kernel + bias + offsets
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = (np.exp(logits) * weighted - target) / rows
        gradient = np.concatenate([(features.T @ error + decay * kernel).ravel(), error.sum(axis=0)])
        loss = -np.einsum("ij,ij", target, logits, dtype=np.float64) / rows + decay / 2 * np.sum(kernel**2)
        return float(loss), gradient.astype(np.float64)

    found = minimize(
        loss_and_gradient, np.zeros((inputs + 1) * outputs), jac=True, method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": _MAX_DERIVATIVE, "ftol": _MIN_REDUCTION},
    )  # fmt: skip
    kernel, bias = np.split(found.x.astype(np.float32), [inputs * outputs])
    return kernel.reshape(inputs, outputs), bias, float(found.fun)
