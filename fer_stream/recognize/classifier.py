"""What an emotion classifier is, and what all of them check of their input and promise of their output."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fer_stream.records import CROP_SIZE_PX, F32, U8, ModelSpec


class EmotionClassifier(Protocol):
    """Says which emotion a face shows. An instance serves one thread at a time."""

    spec: ModelSpec

    def predict(self, pixels: U8) -> F32:
        """Face crops uint8 (n, 48, 48) → float32 (n, 7); each row sums to 1. n may be 0.

        Raises `ValueError` for any other shape or dtype.
        """
        ...


def as_input(pixels: U8) -> F32:
    """Face crops uint8 (n, 48, 48) → float32 (n, 48, 48, 1), values 0..255: scaling is inside the graph.

    Raises `ValueError` for any other shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (CROP_SIZE_PX, CROP_SIZE_PX):
        raise ValueError(
            f"Expected face crops as uint8 (n, {CROP_SIZE_PX}, {CROP_SIZE_PX}), "
            f"received {pixels.dtype} {pixels.shape}"
        )
    return pixels[..., np.newaxis].astype(np.float32)


def probabilities(scores: F32, temperature: float | None) -> F32:
    """What a graph gives, float32 (n, 7), as rows that sum to 1.

    With a temperature these are logits, else the rows of a softmax, which sum to 0.992–1.008 in int8.
    """
    if temperature is not None:
        scores = np.exp((scores - scores.max(axis=1, keepdims=True)) / np.float32(temperature))
    rows: F32 = scores / scores.sum(axis=1, keepdims=True)
    return rows
