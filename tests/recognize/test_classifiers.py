"""The contract of `EmotionClassifier`, held against every backend, and what the backends owe each other."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_stream.errors import ModelError
from fer_stream.recognize.classifier import EmotionClassifier
from fer_stream.recognize.keras import KerasClassifier, bucket
from fer_stream.recognize.litert import LiteRTClassifier
from fer_stream.records import I64, U8

MODELS = Path(__file__).resolve().parents[2] / "models"
BACKENDS = ("litert", "keras")
METRIC = {"litert": "int8_private_test_single_crop", "keras": "fer2013_private_test_single_crop"}


@pytest.fixture(params=BACKENDS)
def classifier(request: pytest.FixtureRequest, classifiers: dict[str, EmotionClassifier]) -> EmotionClassifier:
    return classifiers[request.param]


def noise(n: int) -> U8:
    return np.random.default_rng(7).integers(0, 256, (n, 48, 48), np.uint8)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 24, 25, 70])
def test_every_face_gets_probabilities(classifier: EmotionClassifier, n: int) -> None:
    probs = classifier.predict(noise(n))
    assert probs.shape == (n, 7)
    assert probs.dtype == np.float32
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_the_same_faces_get_the_same_probabilities(classifier: EmotionClassifier) -> None:
    faces = noise(11)
    np.testing.assert_array_equal(classifier.predict(faces), classifier.predict(faces))


def test_a_face_does_not_depend_on_its_batch(classifier: EmotionClassifier) -> None:
    faces = noise(11)
    alone = np.concatenate([classifier.predict(face[np.newaxis]) for face in faces])
    np.testing.assert_allclose(classifier.predict(faces), alone, atol=1e-5)


def test_a_result_is_not_overwritten_by_the_next(classifier: EmotionClassifier) -> None:
    faces = noise(3)
    first = classifier.predict(faces)
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
def test_anything_but_crops_is_refused(classifier: EmotionClassifier, pixels: U8, received: str) -> None:
    with pytest.raises(ValueError, match=rf"Expected face crops as uint8 \(n, 48, 48\), received {received}"):
        classifier.predict(pixels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_no_model_are_refused(backend: str, tmp_path: Path) -> None:
    content = b"not a model" * 100
    card = json.loads((MODELS / "card.json").read_text(encoding="utf-8"))
    for name in card["files"]:
        (tmp_path / name).write_bytes(content)
        card["files"][name] = hashlib.sha256(content).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match=r"is no (LiteRT|Keras) model"):
        LiteRTClassifier(tmp_path) if backend == "litert" else KerasClassifier(tmp_path, max_batch=8)


def test_litert_loads_no_tensorflow() -> None:
    code = (
        "import sys; from pathlib import Path; from fer_stream.recognize.litert import LiteRTClassifier;"
        f"LiteRTClassifier(Path({str(MODELS)!r}));"
        "print(sorted({'tensorflow', 'keras', 'cv2', 'av', 'redis'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_batches_fall_into_few_buckets() -> None:
    assert [bucket(n, 24) for n in (1, 2, 3, 5, 16, 17, 24)] == [1, 2, 4, 8, 16, 24, 24]


@pytest.fixture(scope="module")
def private_test(fer2013: Path) -> tuple[U8, I64]:
    with np.load(fer2013) as data:
        rows = data["usage"] == 2
        return data["images"][rows], data["labels"][rows]


@pytest.fixture(scope="module")
def answers(private_test: tuple[U8, I64], classifiers: dict[str, EmotionClassifier]) -> dict[str, I64]:
    return {name: classifier.predict(private_test[0]).argmax(axis=1) for name, classifier in classifiers.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_accuracy_is_what_the_card_says(
    backend: str,
    private_test: tuple[U8, I64],
    answers: dict[str, I64],
    classifiers: dict[str, EmotionClassifier],
) -> None:
    accuracy = float((answers[backend] == private_test[1]).mean())
    assert accuracy == pytest.approx(classifiers[backend].spec.metrics[METRIC[backend]], abs=0.003)


def test_both_backends_give_the_same_label(answers: dict[str, I64]) -> None:
    assert (answers["litert"] == answers["keras"]).mean() >= 0.98
