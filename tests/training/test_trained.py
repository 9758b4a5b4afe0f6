"""Nets that go on from others: the shipped model, finished runs, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from fer_stream.config.training import NetworkSettings, TrainSettings
from fer_stream.errors import ModelError
from fer_stream.records import LABELS, U8
from fer_stream.training.fit import predict, train
from fer_stream.training.network import HEADS, build
from fer_stream.training.trained import load_net, load_run, start_from

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "emotion.keras"


@pytest.fixture
def faces() -> U8:
    return np.random.default_rng(5).integers(0, 256, (9, 48, 48), np.uint8)


@pytest.fixture(scope="module")
def first(small: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train(small.model_copy(update={"epochs": 2}), out, lambda _: None)
    return out


def test_a_net_that_starts_from_the_shipped_model_says_the_same(faces: U8) -> None:
    net = build(NetworkSettings())
    start_from(net, SHIPPED)
    logits = predict(net, faces)["fer2013"]
    expected = predict(keras.saving.load_model(SHIPPED, compile=False), faces)["fer2013"]
    assert expected.shape == (9, len(LABELS))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_heads_with_a_softmax_give_logits(first: Path, faces: U8, tmp_path: Path) -> None:
    _, net = load_run(first)
    expected = predict(net, faces)
    for head in HEADS:
        net.get_layer(head).activation = keras.activations.softmax
    net.save(tmp_path / "probabilities.keras")
    said = predict(load_net(tmp_path / "probabilities.keras"), faces)
    np.testing.assert_allclose(said["fer2013"], expected["fer2013"], atol=1e-4)


def test_a_file_and_its_run_say_the_same(first: Path, faces: U8, tmp_path: Path) -> None:
    _, net = load_run(first)
    net.save(tmp_path / "net.keras")
    for said, expected in zip(
        predict(load_net(tmp_path / "net.keras"), faces).values(),
        predict(load_net(first), faces).values(),
        strict=True,
    ):
        np.testing.assert_allclose(said, expected, atol=1e-5)


def test_a_run_goes_on_from_another(small: TrainSettings, first: Path, tmp_path: Path) -> None:
    settings = small.model_copy(update={"epochs": 2, "start_from": first, "learning_rate": 1e-9})
    train(settings, tmp_path / "second", lambda _: None)
    before, after = load_run(first)[1], load_run(tmp_path / "second")[1]
    for old, new in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(new), np.asarray(old), atol=1e-5)


def test_a_share_of_the_start_is_kept(small: TrainSettings, first: Path, tmp_path: Path) -> None:
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


def test_a_share_of_the_start_needs_a_start(small: TrainSettings) -> None:
    with pytest.raises(ValueError, match="start_share needs start_from"):
        TrainSettings.model_validate({**small.model_dump(), "start_share": 0.5})


def test_another_network_is_no_start(first: Path) -> None:
    with pytest.raises(ModelError, match=r"first cannot be the start of this training.*Name the same network"):
        start_from(build(NetworkSettings(widths=(8,))), first)


def test_what_is_no_model_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "broken.keras").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.keras is no model that Keras can read"):
        load_net(tmp_path / "broken.keras")
