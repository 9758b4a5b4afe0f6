"""Agreement, the fallback for calm faces, and the class bias."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.config.settings import ModelSettings
from fer_stream.factory import make_classifier
from fer_stream.records import F32, FERPLUS, LABELS, U8


def ferplus(*shares: dict[str, float]) -> F32:
    rows = np.zeros((len(shares), len(FERPLUS)), np.float32)
    for row, named in zip(rows, shares, strict=True):
        for name, share in named.items():
            row[FERPLUS.index(name)] = share
    return rows


def confident(*labels: str) -> F32:
    return np.stack([np.where(np.array(LABELS) == label, 0.7, 0.05) for label in labels]).astype(np.float32)


def noise(n: int) -> U8:
    return np.random.default_rng(7).integers(0, 256, (n, 48, 48), np.uint8)


def test_calm_face_takes_the_ferplus_probabilities() -> None:
    output = ClassifierOutput(
        confident("fear", "fear", "fear"),
        ferplus(
            {"neutral": 0.9, "fear": 0.02, "contempt": 0.08},  # calm, and no rater would say fear
            {"neutral": 0.1, "sadness": 0.88, "fear": 0.02},  # no rater would say fear, and few neutral
            {"neutral": 0.5, "fear": 0.5},  # neutral leads, but many would say fear
        ),
    )
    adjusted = output.with_calm(0.2)
    assert adjusted.probs[0].argmax() == LABELS.index("neutral")
    assert adjusted.probs[0, LABELS.index("neutral")] == pytest.approx(0.9 / 0.92)
    assert adjusted.probs.sum(axis=1) == pytest.approx(1)
    np.testing.assert_array_equal(adjusted.probs[1:], output.probs[1:])
    agreement = adjusted.agreement
    assert agreement[0] > 0.2
    assert agreement[1] < 0.2


def test_where_all_faces_are_output_or_nobody_was_asked_nothing_is_adjusted() -> None:
    output = ClassifierOutput(confident("fear"), ferplus({"neutral": 1.0}))
    np.testing.assert_array_equal(output.with_calm(0.0).probs, output.probs)
    alone = ClassifierOutput(confident("fear"))
    assert alone.with_calm(0.9) is alone
    assert len(ClassifierOutput(np.empty((0, 7), np.float32)).with_calm(0.2).probs) == 0


def test_agreement_weights_rare_emotions() -> None:
    shares = ferplus({"disgust": 0.1, "neutral": 0.9}, {"happiness": 0.1, "neutral": 0.9})
    disgust, happy = ClassifierOutput(confident("disgust", "happy"), shares).agreement
    assert disgust > 0.3 > 0.15 > happy


@pytest.mark.parametrize("bias", [0.5, -0.5])
def test_bias_is_added_to_the_logits(bias: float) -> None:
    plain = make_classifier(ModelSettings(backend="litert"))
    biased = make_classifier(ModelSettings(backend="litert", class_bias={"neutral": bias}))
    assert biased.spec == plain.spec
    before, after = (np.log(one.predict(noise(20)).probs) for one in (plain, biased))
    moved = (after - after[:, :1]) - (before - before[:, :1])
    assert plain.spec.temperature is not None
    expected = np.zeros(len(LABELS))
    expected[LABELS.index("neutral")] = bias / plain.spec.temperature
    np.testing.assert_allclose(moved, np.tile(expected, (20, 1)), atol=1e-3)


def test_zero_bias_is_ignored() -> None:
    zero = make_classifier(ModelSettings(backend="litert", class_bias={"sad": 0.0}))
    assert type(zero) is type(make_classifier(ModelSettings(backend="litert")))


@pytest.mark.parametrize("bias", [{"glad": 0.5}, {"sad": 30.0}])
def test_invalid_bias_is_refused(bias: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ModelSettings.model_validate({"class_bias": bias})
