"""What an emotion classifier is, and what all of them check of their input and promise of their output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from fer_stream.errors import ModelError
from fer_stream.records import CROP_SIZE_PX, F32, FERPLUS, FERPLUS_BY_LABEL, LABELS, U8, ModelSpec

# The mean and two deviations of a face that is not dark, in gray levels: 94 % of FER-2013 lie above. 130 to 190 all
# do as well.
MIN_HIGHLIGHT = np.float32(160)

_IN_FERPLUS = np.array([FERPLUS.index(name) for name in FERPLUS_BY_LABEL])


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierOutput:
    """What a classifier says of n faces.

    `probs` float32 (n, 7) in the order of `LABELS`, rows that sum to 1. `people` float32 (n, 8) in the order of
    `FERPLUS`: the shares of people who would name each, as the model expects; None where it knows nothing of that.
    """

    probs: F32
    ferplus_probs: F32 | None = None

    @property
    def agreement(self) -> F32:
        """The share of people who would name the most probable emotion, float32 (n,); 1 where `people` is None."""
        if self.ferplus_probs is None:
            return np.ones(len(self.probs), np.float32)
        shares: F32 = self.ferplus_probs[np.arange(len(self.ferplus_probs)), _IN_FERPLUS[self.probs.argmax(axis=1)]]
        return shares


class EmotionClassifier(Protocol):
    """Says which emotion a face shows. An instance serves one thread at a time."""

    spec: ModelSpec

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Judge face crops, uint8 (n, 48, 48). n may be 0. Raises `ValueError` for any other shape or dtype."""
        ...


def run_batches(pixels: U8, run: Callable[[F32], F32], *, batch_size: int, temperature: float | None) -> ClassifierOutput:
    """What `EmotionClassifier.predict` promises, by a graph that takes float32 (n, 48, 48, 1) to scores (n, k).

    The scores are those of the seven labels and, if k is 15, those of the eight emotions of FER+ after them. With a
    temperature, by which the former are divided, these are logits, else what a softmax gave. `score` gets at most
    `at_once` faces, at least one, and may keep the array that it returns.
    """
    faces = preprocess(pixels)
    parts = [run(faces[start : start + batch_size]) for start in range(0, len(faces), batch_size)]
    if not parts:
        return ClassifierOutput(np.empty((0, len(LABELS)), np.float32))
    scores = parts[0] if len(parts) == 1 else np.concatenate(parts)
    probs = probabilities(scores[:, : len(LABELS)], temperature)
    if scores.shape[1] == len(LABELS):
        return ClassifierOutput(probs)
    return ClassifierOutput(probs, probabilities(scores[:, len(LABELS) :], None if temperature is None else 1.0))


def validate_outputs(path: Path, outputs: int) -> None:
    """Raises `ModelError` where the graph in `path` gives another number of scores a face than `classify` takes."""
    if outputs not in (len(LABELS), len(LABELS) + len(FERPLUS)):
        raise ModelError(
            f"{path}: expected the scores of {len(LABELS)} labels, or of these and {len(FERPLUS)} emotions of FER+, "
            f"received {outputs}. Export it again."
        )


def preprocess(pixels: U8) -> F32:
    """Face crops uint8 (n, 48, 48) → float32 (n, 48, 48, 1), values 0..255: scaling is inside the graph.

    Dark faces are brightened, for FER-2013 has none: of faces with a tenth of the light 69 instead of 32 % are right,
    and as many as before of those that were never dark (docs/how-to/training.md). Raises `ValueError` for any other shape
    or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (CROP_SIZE_PX, CROP_SIZE_PX):
        raise ValueError(
            f"Expected face crops as uint8 (n, {CROP_SIZE_PX}, {CROP_SIZE_PX}), "
            f"received {pixels.dtype} {pixels.shape}"
        )
    faces = pixels.reshape(len(pixels), CROP_SIZE_PX**2).astype(np.float32)
    mean = faces.mean(axis=1)
    variance = np.einsum("ij,ij->i", faces, faces) / faces.shape[1] - mean**2
    highlights = mean + 2 * np.sqrt(np.maximum(variance, 0))
    dark = highlights < MIN_HIGHLIGHT
    if dark.any():
        gain = MIN_HIGHLIGHT / np.maximum(highlights[dark], 1)
        faces[dark] = np.minimum(faces[dark] * gain[:, np.newaxis], 255)
    return faces.reshape(*pixels.shape, 1)


def probabilities(scores: F32, temperature: float | None) -> F32:
    """What a graph gives, float32 (n, k), as rows that sum to 1.

    With a temperature these are logits, else the rows of a softmax, which sum to 0.992–1.008 in int8.
    """
    if temperature is not None:
        scores = np.exp((scores - scores.max(axis=1, keepdims=True)) / np.float32(temperature))
    rows: F32 = scores / scores.sum(axis=1, keepdims=True)
    return rows
