"""The interface of emotion classifiers, and the pre- and postprocessing that all backends share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fer_stream.errors import ModelError
from fer_stream.records import CROP_SIZE_PX, F32, FERPLUS, FERPLUS_BY_LABEL, LABELS, U8, ModelSpec, Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fer_stream.config.settings import Label

# Crops whose mean plus two standard deviations, in gray levels, is below this are brightened; 94 % of FER-2013 lie
# above. Values from 130 to 190 perform equally.
MIN_HIGHLIGHT = np.float32(160)

_IN_FERPLUS = np.array([FERPLUS.index(name) for name in FERPLUS_BY_LABEL])
_NEUTRAL = FERPLUS.index("neutral")

# Share of the votes of FER+ Training that each of its emotions received.
_VOTE_SHARES = np.array([0.321, 0.264, 0.115, 0.144, 0.083, 0.016, 0.035, 0.018], np.float32)
# Weights of the emotions in the agreement: few raters choose disgust or fear even where it is shown.
_RARITY_WEIGHTS = 1 / np.sqrt(_VOTE_SHARES)


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierOutput:
    """Probabilities of n faces.

    `probs` is float32 (n, 7) in the order of `LABELS`; rows sum to 1. `ferplus_probs` is float32 (n, 8) in the order
    of `FERPLUS`: the predicted shares of human raters per emotion, or None if the model does not predict them.
    """

    probs: F32
    ferplus_probs: F32 | None = None

    @property
    def agreement(self) -> F32:
        """Predicted share of raters for the most probable label, float32 (n,); 1 if `ferplus_probs` is None.

        The share of each emotion is weighted by one over the square root of its frequency in the votes of FER+.
        """
        if self.ferplus_probs is None:
            return np.ones(len(self.probs), np.float32)
        weighted = self.ferplus_probs * _RARITY_WEIGHTS
        of_label = weighted[np.arange(len(weighted)), _IN_FERPLUS[self.probs.argmax(axis=1)]]
        shares: F32 = of_label / weighted.sum(axis=1)
        return shares

    def with_calm(self, min_agreement: float) -> ClassifierOutput:
        """Return the output with the FER+ probabilities for calm faces whose label has too little agreement.

        These are faces whose agreement is below `min_agreement` and for which neutral is the most probable FER+
        emotion. Their probabilities become the FER+ probabilities of the seven labels, scaled to a sum of 1.
        """
        if self.ferplus_probs is None:
            return self
        calm = (self.agreement < min_agreement) & (self.ferplus_probs.argmax(axis=1) == _NEUTRAL)
        by_label = self.ferplus_probs[:, _IN_FERPLUS]
        by_label /= by_label.sum(axis=1, keepdims=True)
        return ClassifierOutput(np.where(calm[:, np.newaxis], by_label, self.probs), self.ferplus_probs)

    def biased(self, factors: F32) -> ClassifierOutput:
        """Return the output with probabilities multiplied by `factors`, float32 (7,), and scaled to a sum of 1."""
        probs = self.probs * factors
        return ClassifierOutput(probs / probs.sum(axis=1, keepdims=True), self.ferplus_probs)


class EmotionClassifier(Protocol):
    """Classifies the emotions of face crops. An instance must not be used by several threads at once."""

    spec: ModelSpec

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Classify face crops, uint8 (n, 48, 48); n may be 0. Raises `ValueError` for any other shape or dtype."""
        ...


class BiasedClassifier:
    """`classifier` with `bias`, by label, added to its logits; labels missing in `bias` have a bias of 0."""

    def __init__(self, classifier: EmotionClassifier, bias: Mapping[Label, float]) -> None:
        self.spec = classifier.spec
        self._classifier = classifier
        logits = np.zeros(len(LABELS))
        for label, logit in bias.items():
            logits[LABELS.index(label)] = logit
        # The softmax divides logits by the temperature, so the bias is divided as well.
        self._factors = np.exp(logits / (self.spec.temperature or 1.0)).astype(np.float32)

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Classify face crops, uint8 (n, 48, 48), as `EmotionClassifier.predict` does."""
        return self._classifier.predict(pixels).biased(self._factors)


def run_batches(
    pixels: U8, run: Callable[[F32], F32], *, batch_size: int, temperature: float | None
) -> ClassifierOutput:
    """Implement `EmotionClassifier.predict` with `run`, a graph that maps float32 (n, 48, 48, 1) to scores (n, k).

    The scores are those of the seven labels, followed by those of the eight FER+ emotions if k is 15. With a
    `temperature`, by which the former are divided, they are logits, otherwise the output of a softmax. `run` receives
    1 to `batch_size` faces and must return a new array on each call.
    """
    faces = preprocess(pixels)
    batches = [run(faces[start : start + batch_size]) for start in range(0, len(faces), batch_size)]
    if not batches:
        return ClassifierOutput(np.empty((0, len(LABELS)), np.float32))
    scores = batches[0] if len(batches) == 1 else np.concatenate(batches)
    probs = probabilities(scores[:, : len(LABELS)], temperature)
    if scores.shape[1] == len(LABELS):
        return ClassifierOutput(probs)
    return ClassifierOutput(probs, probabilities(scores[:, len(LABELS) :], None if temperature is None else 1.0))


def validate_outputs(path: Path, outputs: int) -> None:
    """Raise `ModelError` if the number of scores per face, `outputs`, of the graph in `path` is not supported."""
    if outputs not in (len(LABELS), len(LABELS) + len(FERPLUS)):
        raise ModelError(
            f"{path}: expected scores of {len(LABELS)} labels, optionally followed by {len(FERPLUS)} FER+ emotions, "
            f"received {outputs} scores. Export the model again."
        )


def preprocess(pixels: U8) -> F32:
    """Convert face crops uint8 (n, 48, 48) to float32 (n, 48, 48, 1), values 0..255; the graph scales them.

    Dark crops are brightened, because FER-2013 contains none: with a tenth of the light, accuracy is 69 % instead of
    32 %, and unchanged for all others (docs/how-to/training.md). Raises `ValueError` for any other shape or dtype.
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
    """Convert scores float32 (n, k) to probabilities whose rows sum to 1.

    With a `temperature`, scores are logits, otherwise the output of a softmax, whose int8 rows sum to 0.992–1.008.
    """
    if temperature is not None:
        scores = np.exp((scores - scores.max(axis=1, keepdims=True)) / np.float32(temperature))
    rows: F32 = scores / scores.sum(axis=1, keepdims=True)
    return rows


def apply_agreement(quality: Quality, agreement: float, min_agreement: float) -> Quality:
    """Return `quality`, or `unclear` if it is ok and the predicted `agreement` of human raters is too low.

    The score of an unclear face is 0.5 at `min_agreement` and proportional to the agreement below.
    """
    if not quality.ok or agreement >= min_agreement:
        return quality
    return Quality(0.5 * agreement / min_agreement, "unclear")
