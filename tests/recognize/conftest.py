"""What the tests of this folder share: both classifiers with the shipped model."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_stream.recognize.classifier import EmotionClassifier
from fer_stream.recognize.keras import KerasClassifier
from fer_stream.recognize.litert import LiteRTClassifier

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="session")
def classifiers() -> dict[str, EmotionClassifier]:
    """By backend."""
    return {"litert": LiteRTClassifier(MODELS, threads=2), "keras": KerasClassifier(MODELS, max_batch=24)}
