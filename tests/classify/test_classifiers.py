"""Contract of `EmotionClassifier` for every backend, and agreement between the backends."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_stream.classify.backends import BACKENDS, ONNX_FILE
from fer_stream.classify.classifier import EmotionClassifier
from fer_stream.classify.keras import padded_size
from fer_stream.config.settings import ModelSettings
from fer_stream.errors import ModelError
from fer_stream.factory import make_classifier
from fer_stream.records import I64, U8

MODELS = Path(__file__).resolve().parents[2] / "models"
FLOAT, INT8 = "fer2013_private_test_single_crop", "int8_private_test_single_crop"
ONNX_INT8 = "onnx_int8_private_test_single_crop"
METRIC = {"litert": INT8, "onnx": ONNX_INT8, "openvino": INT8, "keras": FLOAT}


@pytest.fixture(params=BACKENDS)
def classifier(request: pytest.FixtureRequest, classifiers: dict[str, EmotionClassifier]) -> EmotionClassifier:
    return classifiers[request.param]


def make(backend: str, folder: Path) -> EmotionClassifier:
    return make_classifier(ModelSettings.model_validate({"backend": backend, "path": folder}))


def noise(n: int) -> U8:
    return np.random.default_rng(7).integers(0, 256, (n, 48, 48), np.uint8)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 24, 25, 70])
def test_every_face_has_probabilities(classifier: EmotionClassifier, n: int) -> None:
    probs = classifier.predict(noise(n)).probs
    assert probs.shape == (n, 7)
    assert probs.dtype == np.float32
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_agreement_is_a_fraction(classifier: EmotionClassifier) -> None:
    agreement = classifier.predict(noise(9)).agreement
    assert agreement.shape == (9,)
    assert ((agreement >= 0) & (agreement <= 1)).all()
    assert len(np.unique(agreement)) > 1


def test_predictions_are_deterministic(classifier: EmotionClassifier) -> None:
    faces = noise(11)
    np.testing.assert_array_equal(classifier.predict(faces).probs, classifier.predict(faces).probs)


def test_predictions_do_not_depend_on_the_batch(classifier: EmotionClassifier) -> None:
    faces = noise(11)
    alone = np.concatenate([classifier.predict(face[np.newaxis]).probs for face in faces])
    np.testing.assert_allclose(classifier.predict(faces).probs, alone, atol=1e-5)


def test_a_result_is_not_overwritten_by_the_next_call(classifier: EmotionClassifier) -> None:
    faces = noise(3)
    first = classifier.predict(faces).probs
    kept = first.copy()
    classifier.predict(255 - faces)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("pixels", "received"),
    [
        (np.zeros((2, 48, 48), np.float32), r"float32 \(2, 48, 48\)"),
        (np.zeros((48, 48), np.uint8), r"uint8 \(48, 48\)"),
        (np.zeros((2, 64, 48), np.uint8), r"uint8 \(2, 64, 48\)"),
        (np.zeros((2, 48, 48, 1), np.uint8), r"uint8 \(2, 48, 48, 1\)"),
    ],
)
def test_input_other_than_crops_is_rejected(classifier: EmotionClassifier, pixels: U8, received: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected face crops as uint8 \(n, 48, 48\), received {received}"):
        classifier.predict(pixels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_not_a_model_are_rejected(backend: str, tmp_path: Path) -> None:
    content = b"not a model" * 100
    card = json.loads((MODELS / "card.json").read_text(encoding="utf-8"))
    for name in {*card["files"], ONNX_FILE}:
        (tmp_path / name).write_bytes(content)
        card["files"][name] = hashlib.sha256(content).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match=r"is not a valid (LiteRT model|Keras model|ONNX model|model for OpenVINO)"):
        make(backend, tmp_path)


def test_a_folder_without_an_onnx_file_is_an_error(tmp_path: Path) -> None:
    card = json.loads((MODELS / "card.json").read_text(encoding="utf-8"))
    card["files"].pop("emotion.onnx", None)
    card["files"].pop("emotion.int8.onnx", None)
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"contains no emotion\.int8\.onnx or emotion\.onnx .*`fer-stream models export`"
    ):
        make("onnx", tmp_path)


def test_missing_openvino_is_an_error_with_the_install_command() -> None:
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from fer_stream.factory import make_classifier; from fer_stream.config.settings import ModelSettings\n"
        "from fer_stream.errors import ConfigError\n"
        "try: make_classifier(ModelSettings(backend='openvino'))\n"
        "except ConfigError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'fer-stream[openvino]'" in result.stdout


def test_openvino_sends_no_telemetry(tmp_path: Path) -> None:
    code = "import sys, fer_stream.classify.openvino; print(*sys.modules)"
    # OpenVINO disables telemetry if environment variables indicate CI.
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = result.stdout.split()
    assert "openvino" in loaded
    assert not [name for name in loaded if name.startswith("openvino_telemetry.")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("adapter", "others"),
    [
        ("litert.LiteRTClassifier", {"onnxruntime", "openvino"}),
        ("onnx.OnnxClassifier", {"ai_edge_litert", "openvino"}),
        ("openvino.OpenVinoClassifier", {"ai_edge_litert", "onnxruntime"}),
    ],
)
def test_a_cpu_backend_does_not_load_other_backends(adapter: str, others: set[str]) -> None:
    module, _, name = adapter.partition(".")
    code = (
        f"import sys; from pathlib import Path; from fer_stream.classify.{module} import {name};"
        f"{name}(Path({str(MODELS)!r})); print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert not loaded & {"tensorflow", "keras", "cv2", "av", "redis", *others}


def test_batches_are_padded_to_few_sizes() -> None:
    assert [padded_size(n, 24) for n in (1, 2, 3, 5, 16, 17, 24)] == [1, 2, 4, 8, 16, 24, 24]


@pytest.fixture(scope="module")
def private_test(fer2013: Path) -> tuple[U8, I64]:
    with np.load(fer2013) as data:
        rows = data["usage"] == 2
        return data["images"][rows], data["labels"][rows]


@pytest.fixture(scope="module")
def predicted(private_test: tuple[U8, I64], classifiers: dict[str, EmotionClassifier]) -> dict[str, I64]:
    return {
        name: classifier.predict(private_test[0]).probs.argmax(axis=1) for name, classifier in classifiers.items()
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_accuracy_is_that_of_the_model_card(
    backend: str,
    private_test: tuple[U8, I64],
    predicted: dict[str, I64],
    classifiers: dict[str, EmotionClassifier],
) -> None:
    accuracy = float((predicted[backend] == private_test[1]).mean())
    assert accuracy == pytest.approx(classifiers[backend].spec.metrics[METRIC[backend]], abs=0.003)


@pytest.mark.parametrize("backend", ["litert", "onnx"])
def test_accuracy_of_the_small_model_is_that_of_its_card(backend: str, private_test: tuple[U8, I64]) -> None:
    small = make_classifier(ModelSettings.model_validate({"backend": backend, "size": "small"}), threads=2)
    accuracy = float((small.predict(private_test[0]).probs.argmax(axis=1) == private_test[1]).mean())
    assert accuracy == pytest.approx(small.spec.metrics[METRIC[backend]], abs=0.003)


def test_dark_faces_are_recognised(private_test: tuple[U8, I64], classifiers: dict[str, EmotionClassifier]) -> None:
    images, labels = private_test[0][:800], private_test[1][:800]
    bright, dark = (classifiers["openvino"].predict(faces).probs.argmax(axis=1) for faces in (images, images // 10))
    assert (dark == labels).mean() > (bright == labels).mean() - 0.08


@pytest.mark.parametrize("min_agreement", [0.2, 0.35])
def test_faces_with_low_agreement_are_less_accurate(
    min_agreement: float, private_test: tuple[U8, I64], classifiers: dict[str, EmotionClassifier]
) -> None:
    output = classifiers["openvino"].predict(private_test[0])
    agreement, correct = output.agreement, output.probs.argmax(axis=1) == private_test[1]
    assert (
        correct[agreement >= min_agreement].mean()
        > correct.mean() + 0.01
        > correct[agreement < min_agreement].mean() + 0.2
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_agrees_with_keras(backend: str, predicted: dict[str, I64]) -> None:
    assert (predicted[backend] == predicted["keras"]).mean() >= 0.98
