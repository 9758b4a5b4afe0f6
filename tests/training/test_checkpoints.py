"""Nets that go on from others: the shipped model, finished runs, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from fer_stream.config.training import NetworkSettings, TrainSettings
from fer_stream.errors import ModelError
from fer_stream.records import LABELS, U8
from fer_stream.training.checkpoints import load_net, load_run, warm_start
from fer_stream.training.dataset import load_splits
from fer_stream.training.fit import accuracy, predict, train
from fer_stream.training.network import HEADS, build

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "emotion.keras"


@pytest.fixture
def faces() -> U8:
    return np.random.default_rng(5).integers(0, 256, (9, 48, 48), np.uint8)


@pytest.fixture(scope="module")
def first(small: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train(small.model_copy(update={"epochs": 2}), out, lambda _: None)
    return out


def test_warm_start_from_the_shipped_model_gives_its_outputs(faces: U8) -> None:
    net = build(NetworkSettings())
    warm_start(net, SHIPPED)
    logits = predict(net, faces)["fer2013"]
    expected = predict(keras.saving.load_model(SHIPPED, compile=False), faces)["fer2013"]
    assert expected.shape == (9, len(LABELS))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_heads_with_softmax_are_converted_to_logits(first: Path, faces: U8, tmp_path: Path) -> None:
    _, net = load_run(first)
    expected = predict(net, faces)
    for head in HEADS:
        net.get_layer(head).activation = keras.activations.softmax
    net.save(tmp_path / "probabilities.keras")
    said = predict(load_net(tmp_path / "probabilities.keras"), faces)
    np.testing.assert_allclose(said["fer2013"], expected["fer2013"], atol=1e-4)


def test_exported_file_and_run_give_the_same_outputs(first: Path, faces: U8, tmp_path: Path) -> None:
    _, net = load_run(first)
    net.save(tmp_path / "net.keras")
    for said, expected in zip(
        predict(load_net(tmp_path / "net.keras"), faces).values(),
        predict(load_net(first), faces).values(),
        strict=True,
    ):
        np.testing.assert_allclose(said, expected, atol=1e-5)


def test_run_can_start_from_another_run(small: TrainSettings, first: Path, tmp_path: Path) -> None:
    settings = small.model_copy(update={"epochs": 2, "start_from": first, "learning_rate": 1e-9})
    train(settings, tmp_path / "second", lambda _: None)
    before, after = load_run(first)[1], load_run(tmp_path / "second")[1]
    for old, new in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(new), np.asarray(old), atol=1e-5)


def test_start_share_averages_weights(small: TrainSettings, first: Path, tmp_path: Path) -> None:
    learned, kept = (
        small.model_copy(update={"epochs": 1, "warmup_epochs": 0.5, "start_from": first, "start_share": share})
        for share in (0.0, 0.25)
    )
    train(learned, tmp_path / "learned", lambda _: None)
    train(kept, tmp_path / "kept", lambda _: None)
    start, end, mean = (
        [np.asarray(value) for value in load_run(run)[1].trainable_variables]
        for run in (first, tmp_path / "learned", tmp_path / "kept")
    )
    assert max(np.abs(after - before).max() for before, after in zip(start, end, strict=True)) > 0.01
    for before, after, between in zip(start, end, mean, strict=True):
        np.testing.assert_allclose(between, 0.25 * before + 0.75 * after, atol=1e-3)


def test_start_share_needs_start_from(small: TrainSettings) -> None:
    with pytest.raises(ValueError, match="start_share needs start_from"):
        TrainSettings.model_validate({**small.model_dump(), "start_share": 0.5})


def test_start_from_a_different_network_is_rejected(first: Path) -> None:
    for network in (NetworkSettings(widths=(17,)), NetworkSettings(widths=(8, 8)), NetworkSettings(kind="resnet")):
        with pytest.raises(ModelError, match=r"first cannot be the start of this training.*Name the same network"):
            warm_start(build(network), first)


def test_narrower_network_starts_with_the_strongest_channels(small: TrainSettings, first: Path) -> None:
    public = load_splits(small.data.path)["val"]
    wide, narrower = load_run(first)[1], build(NetworkSettings(widths=(12,)))
    warm_start(narrower, first)
    assert accuracy(narrower, public) > accuracy(build(NetworkSettings(widths=(12,))), public)
    full, part = (set(_channels(_convolutions(net)[0])) for net in (wide, narrower))
    assert part < full


def test_constant_channels_are_pruned_first(first: Path, faces: U8, tmp_path: Path) -> None:
    """Channels that the next layer does not read can go, and nothing is said otherwise."""
    wide = load_run(first)[1]
    dead = [3, 7, 8, 12]
    for layer in (_convolutions(wide)[1], *map(wide.get_layer, HEADS)):
        kernel, *bias = layer.get_weights()
        kernel[..., dead, :] = 0
        layer.set_weights([kernel, *bias])
    wide.save(tmp_path / "wide.keras")
    narrower = build(NetworkSettings(widths=(12,)))
    warm_start(narrower, tmp_path / "wide.keras")
    for said, expected in zip(predict(narrower, faces).values(), predict(wide, faces).values(), strict=True):
        np.testing.assert_allclose(said, expected, atol=1e-3)


def test_start_from_an_invalid_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "broken.keras").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.keras is not a valid Keras model"):
        load_net(tmp_path / "broken.keras")


def _convolutions(net: keras.Model) -> list[keras.layers.Conv2D]:
    return [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]


def _channels(layer: keras.layers.Conv2D) -> list[bytes]:
    (kernel,) = layer.get_weights()
    return [kernel[..., channel].tobytes() for channel in range(layer.filters)]
