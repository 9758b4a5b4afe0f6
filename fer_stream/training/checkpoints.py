"""Nets that learned something before: finished runs, and the .keras file of a model folder.

A run is a folder; `weights.npz` holds the variables of its net in their order, as "0", "1", …, and is there when the
run is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fer_stream.classify.model_card import FER2013_HEAD
from fer_stream.config.training import TrainSettings
from fer_stream.errors import ModelError
from fer_stream.training.channel_pruning import narrow
from fer_stream.training.network import HEADS, build, heads_in, heads_of

SETTINGS, ORIGIN, HISTORY, WEIGHTS = "settings.json", "origin.json", "history.csv", "weights.npz"


def load_run(run: Path) -> tuple[TrainSettings, keras.Model]:
    """The settings of a run, and its net in float32 with its best weights.

    Raises `ModelError` where it is not finished.
    """
    try:
        settings = TrainSettings.model_validate_json((run / SETTINGS).read_text(encoding="utf-8"))
        net = build(settings.network, heads=heads_of(settings))
        assign(net.variables, load_values(run / WEIGHTS))
    except (OSError, ValueError) as error:
        raise ModelError(f"{run} is no finished training run: {error}. Train it with fer-stream train.") from error
    return settings, net


def load_net(path: Path) -> keras.Model:
    """The net of a run, or of a .keras file, whose heads then give logits as those of a run do.

    Raises `ModelError` where it cannot be read.
    """
    if path.suffix != ".keras":
        return load_run(path)[1]
    try:
        net = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is no model that Keras can read: {error}") from error
    heads = heads_in(net)
    if FER2013_HEAD not in heads:
        raise ModelError(f"{path} has no output {FER2013_HEAD!r}. Name a run or an emotion.keras of fer-stream.")
    for head in heads:
        net.get_layer(head).activation = keras.activations.linear
    return keras.Model(net.inputs, {head: net.get_layer(head).output for head in heads})


def start_from(net: keras.Model, path: Path) -> None:
    """Give `net` the weights of another net, layer by layer; a head that the other one lacks stays as it is.

    A plain net may be narrower than the other one, and then has its strongest channels. Raises `ModelError` where it
    fits in neither way.
    """
    other = load_net(path)
    try:
        if _shapes(net) == _shapes(other):
            _copy(other, net)
        else:
            narrow(other, net)
    except ValueError as error:
        raise ModelError(
            f"{path} cannot be the start of this training: {error}. Name the same network, or a wider vgg."
        ) from error


def _shapes(net: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in _trunk(net)]


def _copy(other: keras.Model, net: keras.Model) -> None:
    assign(_trunk(net), [np.asarray(value) for value in _trunk(other)])
    for head in set(heads_in(other)) & set(heads_in(net)):
        assign(net.get_layer(head).weights, [np.asarray(value) for value in other.get_layer(head).weights])


def assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Give variables new values. Raises `ValueError` where their shapes differ."""
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError("the weights are those of another net")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def load_values(path: Path) -> list[np.ndarray]:
    """What `save_values` wrote."""
    with np.load(path) as file:
        return [file[str(number)] for number in range(len(file.files))]


def save_values(path: Path, values: Sequence[np.ndarray]) -> None:
    """Write arrays, whole or not at all: a kill in the midst leaves what was there."""
    part = path.with_name(f".partial-{path.name}")
    named: dict[str, Any] = {str(number): value for number, value in enumerate(values)}
    np.savez(part, **named)
    part.replace(path)


def sha256_of(path: Path) -> str:
    """Of a file, or of the weights of a finished run, in hexadecimal digits."""
    with (path if path.is_file() else path / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _trunk(net: keras.Model) -> list[keras.Variable]:
    return [variable for layer in net.layers if layer.name not in HEADS for variable in layer.weights]
