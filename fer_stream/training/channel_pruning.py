"""A narrower net from a trained one: of each convolution, the channels that tell the next layer most."""

from __future__ import annotations

from statistics import NormalDist

import keras
import numpy as np
from keras import layers

from fer_stream.records import F32
from fer_stream.training.network import heads_in

_NORMAL = np.array(NormalDist().quantiles(200), np.float32)


def narrow(wide: keras.Model, net: keras.Model) -> None:
    """Give `net` the strongest channels of `wide`, and their weights; both are of kind `vgg`.

    A head that `wide` lacks stays as it is. A channel is as strong as the variance that it brings into the next
    layer. Raises `ValueError` where the two differ in more than the channels, or `net` has more of them.
    """
    olds, news = _convolutions(wide), _convolutions(net)
    if not (_plain(wide) and _plain(net) and len(olds) == len(news)):
        raise ValueError("the weights are those of another net")
    if any(new.filters > old.filters for old, new in zip(olds, news, strict=True)):
        raise ValueError("it has fewer channels")
    norms = _norms(wide)
    weights = [*(_weights(*pair) for pair in zip(olds[1:], norms[1:], strict=True)), _weights_of_heads(wide)]
    inputs = np.arange(1)
    for old, norm, read, new, new_norm in zip(olds, norms, weights, news, _norms(net), strict=True):
        kept = np.sort(np.argsort(-_variance(norm) * read)[: new.filters])
        new.set_weights([old.get_weights()[0][:, :, inputs][..., kept]])
        new_norm.set_weights([values[kept] for values in norm.get_weights()])
        inputs = kept
    for head in set(heads_in(wide)) & set(heads_in(net)):
        kernel, bias = wide.get_layer(head).get_weights()
        net.get_layer(head).set_weights([kernel[inputs], bias])


def _variance(norm: layers.BatchNormalization) -> F32:
    """Of each channel behind its norm and ReLU, float32 (n,), where its inputs are normally distributed."""
    scale, shift, _, _ = norm.get_weights()
    after: F32 = np.maximum(shift + scale * _NORMAL[:, np.newaxis], 0).var(axis=0)
    return after


def _weights(conv: layers.Conv2D, norm: layers.BatchNormalization) -> F32:
    """How much a convolution and its norm make of each of its inputs: sums of squares, float32 (n,)."""
    scale, _, _, variance = norm.get_weights()
    squares: F32 = np.square(conv.get_weights()[0] * scale / np.sqrt(variance + norm.epsilon)).sum(axis=(0, 1, 3))
    return squares


def _weights_of_heads(net: keras.Model) -> F32:
    kernels = np.concatenate([net.get_layer(head).get_weights()[0] for head in heads_in(net)], axis=1)
    squares: F32 = np.square(kernels).sum(axis=1)
    return squares


def _plain(net: keras.Model) -> bool:
    branches = any(isinstance(layer, layers.Add) for layer in net.layers)
    return len(_convolutions(net)) == len(_norms(net)) and not branches


def _convolutions(net: keras.Model) -> list[layers.Conv2D]:
    return [layer for layer in net.layers if isinstance(layer, layers.Conv2D)]


def _norms(net: keras.Model) -> list[layers.BatchNormalization]:
    return [layer for layer in net.layers if isinstance(layer, layers.BatchNormalization)]
