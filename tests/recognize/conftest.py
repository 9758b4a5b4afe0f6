"""What the tests of this folder share: every classifier with the shipped model."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_stream.build import make_classifier
from fer_stream.config import ModelSettings
from fer_stream.recognize.classifier import EmotionClassifier

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="session")
def classifiers() -> dict[str, EmotionClassifier]:
    """By backend."""
    return {
        backend: make_classifier(ModelSettings.model_validate({"backend": backend, "max_batch": 24}), threads=2)
        for backend in ("litert", "onnx", "openvino", "keras")
    }
