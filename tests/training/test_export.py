"""A run as a model folder: every file of it says the same, and the service can load it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from fer_stream.classify.backends import ONNX_FILE
from fer_stream.classify.classifier import EmotionClassifier, preprocess, probabilities
from fer_stream.classify.keras import KerasClassifier
from fer_stream.classify.litert import LiteRTClassifier
from fer_stream.classify.onnx import OnnxClassifier
from fer_stream.classify.openvino import OpenVinoClassifier
from fer_stream.config.training import NetworkSettings, TrainSettings
from fer_stream.errors import OutputExists
from fer_stream.records import F32
from fer_stream.training.dataset import Dataset, load_splits
from fer_stream.training.export import export, write_onnx
from fer_stream.training.fit import predict, train
from fer_stream.training.network import build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def faces(small: TrainSettings) -> Dataset:
    return load_splits(small.data.path)["test"]


@pytest.fixture(scope="module")
def run(small: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "rings"
    train(small.model_copy(update={"epochs": 3}), out, lambda _: None)
    return out


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("model")
    return out, export(run, out, model_id="rings-1", dataset="rings")


def test_all_exported_files_give_the_same_labels(model: tuple[Path, dict[str, Any]], faces: Dataset) -> None:
    folder, _ = model
    by_keras = KerasClassifier(folder, batch_size=32).predict(faces.images)
    keras_probs = by_keras.probs
    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE))
    scores: F32 = session.run(["scores"], {"faces": preprocess(faces.images)})[0]
    assert scores.shape == (len(faces), 15)
    spec = KerasClassifier(folder, batch_size=32).spec
    np.testing.assert_allclose(probabilities(scores[:, :7], spec.temperature), keras_probs, atol=1e-4)
    first, second = np.sort(keras_probs, axis=1)[:, [-1, -2]].T
    clear = first - second > 0.1
    assert clear.mean() > 0.5
    for int8 in (LiteRTClassifier(folder), OnnxClassifier(folder), OpenVinoClassifier(folder)):
        judged = int8.predict(faces.images)
        assert np.abs(judged.probs - keras_probs).max() < 0.1
        assert np.abs(judged.agreement - by_keras.agreement).mean() < 0.03
        assert (judged.probs.argmax(axis=1) == keras_probs.argmax(axis=1))[clear].mean() > 0.98


def test_int8_probabilities_are_finer_than_256_steps(model: tuple[Path, dict[str, Any]], faces: Dataset) -> None:
    assert len(np.unique(LiteRTClassifier(model[0]).predict(faces.images).probs)) > 300


def test_card_records_the_training(model: tuple[Path, dict[str, Any]], small: TrainSettings) -> None:
    folder, card = model
    spec = LiteRTClassifier(folder).spec
    assert spec.model_id == "rings-1"
    assert spec.temperature == card["output"]["temperature"]
    assert card["training"]["network"]["widths"] == list(small.network.widths)
    assert card["parameters"] == build(small.network).count_params()
    assert not {"data", "start_from"} & set(card["training"])
    assert card["training"]["training_images"] == 448
    assert card["training"]["with_ferplus_votes"]
    assert 1 <= card["training"]["kept_epoch"] <= 3
    assert card["dataset"] == spec.dataset == "rings"
    assert "licence" not in card


def test_model_without_votes_has_no_agreement(small: TrainSettings, faces: Dataset, tmp_path: Path) -> None:
    train(small.model_copy(update={"epochs": 2, "ferplus_weight": 0.0}), tmp_path / "run", lambda _: None)
    export(tmp_path / "run", tmp_path / "model", model_id="mute")
    classifiers: list[EmotionClassifier] = [KerasClassifier(tmp_path / "model", batch_size=32)]
    classifiers += [kind(tmp_path / "model") for kind in (LiteRTClassifier, OnnxClassifier, OpenVinoClassifier)]
    expected = classifiers[0].predict(faces.images)
    assert expected.ferplus_probs is None
    for classifier in classifiers[1:]:
        judged = classifier.predict(faces.images)
        assert judged.ferplus_probs is None
        assert (judged.agreement == 1).all()
        assert np.abs(judged.probs - expected.probs).mean() < 0.03


def test_existing_model_is_not_replaced(model: tuple[Path, dict[str, Any]], run: Path) -> None:
    with pytest.raises(OutputExists, match="contains a model"):
        export(run, model[0], model_id="rings-2")


@pytest.mark.parametrize(
    "settings",
    [NetworkSettings(kind="resnet", widths=(4, 8)), NetworkSettings(kind="tutorial")],
    ids=["resnet", "tutorial"],
)
def test_every_network_exports_to_onnx(settings: NetworkSettings, faces: Dataset, tmp_path: Path) -> None:
    net = build(settings)
    write_onnx(net, ["fer2013", "ferplus"], tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    some = faces.images[:9]
    for head, logits in zip(
        ("fer2013", "ferplus"),
        session.run(["fer2013", "ferplus"], {"faces": some[..., None].astype(np.float32)}),
        strict=True,
    ):
        np.testing.assert_allclose(logits, predict(net, some)[head], atol=1e-3)
