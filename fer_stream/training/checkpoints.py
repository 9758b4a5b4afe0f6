"""Trained networks: finished runs, the .keras file of a model folder, and pruning of channels.

A run is a folder; `weights.npz` contains the variables of its network in order, as "0", "1", …, and exists when the
run is finished.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from fer_stream.classify.model_card import FER2013_HEAD
from fer_stream.config.training import TrainSettings
from fer_stream.errors import ModelError
from fer_stream.training.network import HEADS, build, heads_in, heads_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_stream.records import F32

SETTINGS, ORIGIN, HISTORY, WEIGHTS = "settings.json", "origin.json", "history.csv", "weights.npz"


def load_run(run: Path) -> tuple[TrainSettings, keras.Model]:
    """Load the settings of a run and its network in float32 with the best weights.

    Raises `ModelError` if the run is not finished.
    """
    try:
        settings = TrainSettings.model_validate_json((run / SETTINGS).read_text(encoding="utf-8"))
        net = build(settings.network, heads=heads_of(settings))
        assign(net.variables, load_values(run / WEIGHTS))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{run} is not a finished training run: {error}. Finish it with fer-stream train."
        ) from error
    return settings, net


def load_net(path: Path) -> keras.Model:
    """Load the network of a run or of a .keras file; its heads return logits.

    Raises `ModelError` if it cannot be read.
    """
    if path.suffix != ".keras":
        return load_run(path)[1]
    try:
        net = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is not a valid Keras model: {error}") from error
    heads = heads_in(net)
    if FER2013_HEAD not in heads:
        raise ModelError(f"{path} has no output {FER2013_HEAD!r}. Expected a run or an emotion.keras of fer-stream.")
    for head in heads:
        net.get_layer(head).activation = keras.activations.linear
    return keras.Model(net.inputs, {head: net.get_layer(head).output for head in heads})


def warm_start(net: keras.Model, path: Path) -> None:
    """Initialise `net` with the weights of another network, layer by layer; heads missing there are unchanged.

    A `vgg` may have fewer channels than the other network, and gets its strongest ones. Raises `ModelError` if the
    networks do not match.
    """
    other = load_net(path)
    try:
        if _shapes(net) == _shapes(other):
            _copy_weights(other, net)
        else:
            prune_channels(other, net)
    except ValueError as error:
        raise ModelError(
            f"{path} cannot be the start of this training: {error}. Name the same network, or a wider vgg."
        ) from error


def _shapes(net: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in _trunk(net)]


def _copy_weights(other: keras.Model, net: keras.Model) -> None:
    assign(_trunk(net), [np.asarray(value) for value in _trunk(other)])
    for head in set(heads_in(other)) & set(heads_in(net)):
        assign(net.get_layer(head).weights, [np.asarray(value) for value in other.get_layer(head).weights])


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Assign values to variables. Raises `ValueError` if shapes differ."""
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError("the weights belong to a different network")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def load_values(path: Path) -> list[np.ndarray]:
    """Read the arrays that `save_values` wrote."""
    with np.load(path) as file:
        return [file[str(number)] for number in range(len(file.files))]


def save_values(path: Path, values: Sequence[np.ndarray]) -> None:
    """Write arrays atomically: an interruption leaves the previous file."""
    part = path.with_name(f".partial-{path.name}")
    named: dict[str, Any] = {str(number): value for number, value in enumerate(values)}
    np.savez(part, **named)
    part.replace(path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the weights of a finished run, as hexadecimal digits."""
    with (path if path.is_file() else path / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _trunk(net: keras.Model) -> list[keras.Variable]:
    return [variable for layer in net.layers if layer.name not in HEADS for variable in layer.weights]


_NORMAL = np.array(NormalDist().quantiles(200), np.float32)


def prune_channels(wide: keras.Model, net: keras.Model) -> None:
    """Copy the strongest channels of `wide` to `net`; both are of kind `vgg`.

    Heads missing in `wide` are unchanged. The strength of a channel is the variance that it contributes to the next
    layer. Raises `ValueError` if the networks differ in more than the channels, or `net` has more of them.
    """
    olds, news = _convolutions(wide), _convolutions(net)
    if not (_is_sequential(wide) and _is_sequential(net) and len(olds) == len(news)):
        raise ValueError("the weights belong to a different network")
    if any(new.filters > old.filters for old, new in zip(olds, news, strict=True)):
        raise ValueError("it has fewer channels")
    norms = _norms(wide)
    weights = [*(_input_weights(*pair) for pair in zip(olds[1:], norms[1:], strict=True)), _head_weights(wide)]
    inputs = np.arange(1)
    for old, norm, read, new, new_norm in zip(olds, norms, weights, news, _norms(net), strict=True):
        kept = np.sort(np.argsort(-_output_variance(norm) * read)[: new.filters])
        new.set_weights([old.get_weights()[0][:, :, inputs][..., kept]])
        new_norm.set_weights([values[kept] for values in norm.get_weights()])
        inputs = kept
    for head in set(heads_in(wide)) & set(heads_in(net)):
        kernel, bias = wide.get_layer(head).get_weights()
        net.get_layer(head).set_weights([kernel[inputs], bias])


def _output_variance(norm: layers.BatchNormalization) -> F32:
    """Return the variance per channel after norm and ReLU, float32 (n,), for normally distributed inputs."""
    scale, shift, _, _ = norm.get_weights()
    after: F32 = np.maximum(shift + scale * _NORMAL[:, np.newaxis], 0).var(axis=0)
    return after


def _input_weights(conv: layers.Conv2D, norm: layers.BatchNormalization) -> F32:
    """Return the sum of squared weights per input channel of a convolution and its norm, float32 (n,)."""
    scale, _, _, variance = norm.get_weights()
    squares: F32 = np.square(conv.get_weights()[0] * scale / np.sqrt(variance + norm.epsilon)).sum(axis=(0, 1, 3))
    return squares


def _head_weights(net: keras.Model) -> F32:
    kernels = np.concatenate([net.get_layer(head).get_weights()[0] for head in heads_in(net)], axis=1)
    squares: F32 = np.square(kernels).sum(axis=1)
    return squares


def _is_sequential(net: keras.Model) -> bool:
    branches = any(isinstance(layer, layers.Add) for layer in net.layers)
    return len(_convolutions(net)) == len(_norms(net)) and not branches


def _convolutions(net: keras.Model) -> list[layers.Conv2D]:
    return [layer for layer in net.layers if isinstance(layer, layers.Conv2D)]


def _norms(net: keras.Model) -> list[layers.BatchNormalization]:
    return [layer for layer in net.layers if isinstance(layer, layers.BatchNormalization)]
