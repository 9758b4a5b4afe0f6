"""What an emotion classifier is, and the card that every model travels with."""

from __future__ import annotations

from typing import Protocol

from fer_stream.records import F32, U8, ModelSpec


class EmotionClassifier(Protocol):
    """Says which emotion a face shows."""

    spec: ModelSpec

    def predict(self, pixels: U8) -> F32:
        """Face crops uint8 (n, 48, 48) → float32 (n, 7); each row sums to 1. n may be 0."""
        ...
