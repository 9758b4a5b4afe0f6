"""The figures of an evaluation, against scikit-learn's and against hand-made cases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from sklearn import metrics

from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.records import F32, FERPLUS, I64, LABELS, U8
from fer_stream.training import report
from fer_stream.training.dataset import VOTES, Dataset
from fer_stream.training.evaluate import (
    CORRUPTIONS,
    Evaluation,
    Speed,
    best_temperature,
    calibration_error,
    evaluate,
    label_majority,
    selective,
    wilson,
)

if TYPE_CHECKING:
    from pathlib import Path


def softmax(logits: F32) -> F32:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def labels() -> I64:
    return np.random.default_rng(2).integers(0, 7, 500)


@pytest.fixture(scope="module")
def logits(labels: I64) -> F32:
    noise = np.random.default_rng(3).normal(0, 1.5, (500, 7))
    return (noise + 2 * np.eye(7)[labels]).astype(np.float32)


@pytest.fixture(scope="module")
def found(labels: I64, logits: F32) -> Evaluation:
    """Of a "model" that knows the faces by a number in their first pixels."""
    images = np.zeros((500, 48, 48), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(500) // 256, np.arange(500) % 256

    def predict(pixels: U8) -> ClassifierOutput:
        probs = softmax(logits)[(pixels[:, 0, 0].astype(int) * 256 + pixels[:, 0, 1]) % 500]
        return ClassifierOutput(
            probs, np.tile(np.eye(8, dtype=np.float32)[VOTES.index("contempt")], (len(pixels), 1))
        )

    votes = np.zeros((500, len(VOTES)), np.float32)
    votes[:200, VOTES.index("contempt")] = 6
    votes[200:300, VOTES.index("fear")] = 10
    votes[300:, VOTES.index("NF")] = 10

    return evaluate(
        predict,
        Dataset(images, labels, votes),
        duplicates=np.arange(500) < 50,
        corruptions=("noise",),
        speed=Speed({"rings": predict}, (1, 2)),
        progress=lambda _: None,
    )


def test_metrics_match_scikit_learn(found: Evaluation, labels: I64, logits: F32) -> None:
    called = logits.argmax(axis=1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, called))
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, called))
    assert found.confusion == metrics.confusion_matrix(labels, called).tolist()
    recall = metrics.recall_score(labels, called, average=None)
    assert list(found.recall.values()) == pytest.approx(recall.tolist())
    assert tuple(found.recall) == LABELS
    assert found.duplicates == 50
    assert found.accuracy_without_duplicates == pytest.approx(metrics.accuracy_score(labels[50:], called[50:]))
    fear = LABELS.index("fear")
    assert found.majority_accuracy == pytest.approx((called[200:300] == fear).mean())
    assert (found.majority_faces, found.ferplus_faces) == (100, 300)
    assert found.ferplus_accuracy == pytest.approx(2 / 3)


def test_interval_is_the_wilson_interval() -> None:
    assert wilson(2611, 3589) == pytest.approx((0.7127, 0.7419), abs=2e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)


def test_calibration_error_of_known_cases() -> None:
    sure = np.tile(np.array([[0.8, *[0.2 / 6] * 6]], np.float32), (100, 1))
    assert calibration_error(sure, np.array([0] * 80 + [1] * 20)) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, np.array([0] * 50 + [1] * 50)) == pytest.approx(0.3, abs=1e-6)


def test_temperature_fit_recovers_the_known_value(logits: F32) -> None:
    rng = np.random.default_rng(9)
    labels = np.array([rng.choice(7, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    assert best_temperature(2 * logits, labels) == pytest.approx(2, rel=0.15)


def test_coverage_curve_drops_low_scores_first() -> None:
    sure = np.linspace(0.9, 0.1, 100).astype(np.float32)
    curve = dict(selective(sure, np.arange(100) < 50))
    assert (curve[1.0], curve[0.5], curve[0.8]) == (0.5, 1.0, 0.625)


def test_majority_is_a_unique_fer2013_emotion() -> None:
    votes = np.zeros((5, 10), np.float32)
    votes[0, VOTES.index("happiness")] = 8
    votes[1, [VOTES.index("anger"), VOTES.index("fear")]] = 5
    votes[2, VOTES.index("contempt")] = 9
    votes[3, VOTES.index("NF")] = 10
    majority, known = label_majority(votes)
    assert known.tolist() == [True, False, False, False, False]
    assert LABELS[majority[0]] == "happy"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_increase_with_severity(name: str) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, (48, 48)), (0, 0), 1.0)
    faces = np.stack([np.clip(noise + np.linspace(40, 220, 48), 0, 255)] * 3).astype(np.uint8)
    before = faces.copy()
    corruption = CORRUPTIONS[name]
    apart = []
    for level in corruption.levels:
        corrupted = corruption.apply(faces, level)
        assert corrupted.shape == faces.shape
        assert corrupted.dtype == np.uint8
        apart.append(float(np.abs(corrupted.astype(float) - faces).mean()))
    np.testing.assert_array_equal(faces, before)
    if name in ("shift", "scale"):
        assert min(apart) > 0
    else:
        assert apart == sorted(apart)


def test_report_has_markdown_json_and_plots(found: Evaluation, tmp_path: Path) -> None:
    text = report.write(found, "rings", tmp_path).read_text(encoding="utf-8")
    assert f"{found.accuracy:.2%}" in text
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert written["accuracy"] == found.accuracy
    assert written["robustness"]["noise"] == [[level, share] for level, share in found.robustness["noise"]]
    assert [batch for batch, _ in written["speed_ms"]["rings"]] == [1, 2]
    assert "| backend | batch 1 | batch 2 |" in text
    assert f"without the 50 that are copies of training images | {found.accuracy_without_duplicates:.2%}" in text
    for name in (report.CONFUSION, report.COVERAGE, report.CURVES):
        assert f"({name})" in text
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_report_without_votes_omits_agreement(found: Evaluation, tmp_path: Path) -> None:
    mute = replace(found, selective_by_agreement=None, accuracy_without_duplicates=None)
    text = report.write(mute, "rings", tmp_path).read_text(encoding="utf-8")
    assert "| share judged | by probability |\n" in text
    assert "copies" not in text


def test_agreement_is_the_predicted_share_of_raters() -> None:
    probs = np.array([[0.6, 0, 0, 0.4, 0, 0, 0], [0, 0, 0, 0.3, 0, 0, 0.7]], np.float32)
    people = np.zeros((2, 8), np.float32)
    people[0, [FERPLUS.index("anger"), FERPLUS.index("contempt")]], people[1, FERPLUS.index("happiness")] = 0.5, 1.0
    anger, contempt = (0.083**-0.5, 0.018**-0.5)
    assert ClassifierOutput(probs, people).agreement.tolist() == pytest.approx([anger / (anger + contempt), 0.0])
    assert ClassifierOutput(probs).agreement.tolist() == [1, 1]
