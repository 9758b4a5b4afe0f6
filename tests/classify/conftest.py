"""What the tests of this folder share: every classifier with the shipped model."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_stream.classify.classifier import EmotionClassifier
from fer_stream.config import ModelSettings
from fer_stream.factory import make_classifier

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="session")
def classifiers() -> dict[str, EmotionClassifier]:
    """By backend."""
    return {
        backend: make_classifier(ModelSettings.model_validate({"backend": backend, "batch_size": 24}), threads=2)
        for backend in ("litert", "onnx", "openvino", "keras")
    }
