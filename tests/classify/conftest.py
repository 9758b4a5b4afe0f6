"""Fixtures of this folder: the shipped model in every backend."""

from __future__ import annotations

import pytest

from fer_stream.classify.backends import BACKENDS
from fer_stream.classify.classifier import EmotionClassifier
from fer_stream.config.settings import ModelSettings
from fer_stream.factory import make_classifier


@pytest.fixture(scope="session")
def classifiers() -> dict[str, EmotionClassifier]:
    """Return classifiers by backend."""
    return {
        backend: make_classifier(ModelSettings.model_validate({"backend": backend, "batch_size": 24}), threads=2)
        for backend in BACKENDS
    }
