"""Evaluation of a model: accuracy with interval, calibration, selective accuracy, and robustness.

Arrays throughout: `labels` int64 (n,), indices of `records.LABELS`; `probs` float32 (n, 7), rows that sum to 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.records import CROP_SIZE_PX, F32, F64, FERPLUS, FERPLUS_BY_LABEL, I64, LABELS, U8
from fer_stream.training.dataset import VOTES, Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

Predict = Callable[[U8], ClassifierOutput]
"""uint8 (n, 48, 48) → probs and agreement."""

# Of the normal distribution, for 95 %.
_Z = 1.959964
_BINS = 15
_COVERAGE = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_SEED = 2013


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of `evaluate`. Shares are from 0 to 1. `confusion` [i][j] counts faces of label i with prediction j.

    `calibration_error` is the expected calibration error over 15 equal bins. `majority_accuracy` is
    against the majority of FER+ votes, over the `majority_faces` whose majority is one of the seven labels;
    `ferplus_accuracy` is that of the FER+ head, over the `ferplus_faces` with a unique majority.
    `selective` has coverage and accuracy without the faces of lowest probability, `selective_by_agreement` without
    those of lowest agreement. `robustness` has level and accuracy by corruption, `speed_ms` batch size and
    milliseconds per face by backend. `duplicates` faces are copies of training images; `accuracy_without_duplicates`
    is over the others.
    """

    faces: int
    accuracy: float
    interval: tuple[float, float]
    duplicates: int
    accuracy_without_duplicates: float | None
    balanced_accuracy: float
    recall: dict[str, float]
    confusion: list[list[int]]
    calibration_error: float
    majority_accuracy: float | None
    majority_faces: int
    ferplus_accuracy: float | None
    ferplus_faces: int
    selective: list[tuple[float, float]]
    selective_by_agreement: list[tuple[float, float]] | None
    robustness: dict[str, list[tuple[float, float]]]
    speed_ms: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed measurement: the backends to measure, by name, and the batch sizes."""

    backends: Mapping[str, Predict]
    batch_sizes: Sequence[int]


def evaluate(
    predict: Predict,
    faces: Dataset,
    *,
    duplicates: NDArray[np.bool_],
    corruptions: Sequence[str],
    speed: Speed,
    progress: Callable[[str], object],
) -> Evaluation:
    """Evaluate a model on labelled faces.

    `duplicates`, bool (n,), marks faces that occur in the training data. The model is also evaluated under each of
    `corruptions`, names of `CORRUPTIONS`; `progress` is called with each name. `speed` selects the speed measurement.
    """
    judged = predict(faces.images)
    probs, people = judged.probs, judged.ferplus_probs
    right = probs.argmax(axis=1) == faces.labels
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(confusion, (faces.labels, probs.argmax(axis=1)), 1)
    recall = {label: row[i] / sum(row)
              for i, (label, row) in enumerate(zip(LABELS, confusion.tolist(), strict=True)) if any(row)}  # fmt: skip
    majority, known = label_majority(faces.votes)
    eight, named = ferplus_majority(faces.votes)
    robustness = {}
    for name in corruptions:
        progress(name)
        robustness[name] = [(level, _accuracy(predict, CORRUPTIONS[name].apply(faces.images, level), faces.labels))
                            for level in CORRUPTIONS[name].levels]  # fmt: skip
    return Evaluation(
        faces=len(faces),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(faces)),
        duplicates=int(duplicates.sum()),
        accuracy_without_duplicates=float(right[~duplicates].mean())
        if duplicates.any() and not duplicates.all()
        else None,
        balanced_accuracy=fmean(recall.values()),
        recall=recall,
        confusion=confusion.tolist(),
        calibration_error=calibration_error(probs, faces.labels),
        majority_accuracy=_accuracy_where(probs, majority, known),
        majority_faces=int(known.sum()),
        ferplus_accuracy=None if people is None else _accuracy_where(people, eight, named),
        ferplus_faces=int(named.sum()),
        selective=selective(probs.max(axis=1), right),
        selective_by_agreement=None if people is None else selective(judged.agreement, right),
        robustness=robustness,
        speed_ms={
            name: [(batch, speed_ms(backend, batch)) for batch in speed.batch_sizes]
            for name, backend in speed.backends.items()
        },
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    share, z2 = right / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return middle - half, middle + half


def calibration_error(probs: F32, labels: I64) -> float:
    """Return the expected calibration error over 15 equal bins."""
    sure = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    apart = [abs(float(sure[bins == one].mean() - right[bins == one].mean())) * float((bins == one).mean())
             for one in np.unique(bins)]  # fmt: skip
    return float(sum(apart))


def best_temperature(logits: F32, labels: I64) -> float:
    """Return the divisor of logits (n, 7) with the lowest negative log likelihood, between 0.25 and 4."""
    candidates = np.exp(np.linspace(np.log(0.25), np.log(4.0), 401))
    return float(min(candidates, key=lambda temperature: _negative_log_likelihood(logits / temperature, labels)))


def selective(sure: F32, right: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return the accuracy over the most confident faces, for decreasing coverage; `sure` is float32 (n,)."""
    in_order = right[np.argsort(-sure, kind="stable")]
    kept = [max(1, round(coverage * len(in_order))) for coverage in _COVERAGE]
    return [(coverage, float(in_order[:n].mean())) for coverage, n in zip(_COVERAGE, kept, strict=True)]


def label_majority(votes: F32) -> tuple[I64, NDArray[np.bool_]]:
    """Return the majority label of FER+, int64 (n,), and whether it is a unique one of the seven, bool (n,)."""
    label_of = np.array([FERPLUS_BY_LABEL.index(vote) if vote in FERPLUS_BY_LABEL else -1 for vote in VOTES])
    labels = label_of[votes.argmax(axis=1)]
    return labels, _has_unique_maximum(votes) & (labels >= 0)


def ferplus_majority(votes: F32) -> tuple[I64, NDArray[np.bool_]]:
    """Return the majority index in `VOTES`, int64 (n,), and whether it is a unique one of the eight emotions."""
    most = votes.argmax(axis=1)
    return most, _has_unique_maximum(votes) & (most < len(FERPLUS))


def _accuracy_where(shares: F32, labels: I64, which: NDArray[np.bool_]) -> float | None:
    return float((shares.argmax(axis=1) == labels)[which].mean()) if which.any() else None


def _has_unique_maximum(votes: F32) -> NDArray[np.bool_]:
    first, second = np.sort(votes, axis=1)[:, [-1, -2]].T
    return np.asarray(first > second)


def speed_ms(predict: Predict, batch: int, *, duration_s: float = 1.0) -> float:
    """Return the median milliseconds per face in batches of `batch` faces, over `duration_s` after a warm-up."""
    faces = np.random.default_rng(_SEED).integers(0, 256, (batch, CROP_SIZE_PX, CROP_SIZE_PX), np.uint8)
    predict(faces)
    times: list[float] = []
    end = time.perf_counter() + duration_s
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        predict(faces)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / batch * 1000


@dataclass(frozen=True, slots=True)
class Corruption:
    """Degradation of faces as by a camera; `unit` is the unit of `levels`."""

    unit: str
    levels: tuple[float, ...]
    apply: Callable[[U8, float], U8]


def _per_image(change: Callable[[U8, float], Any]) -> Callable[[U8, float], U8]:
    def all_of(images: U8, level: float) -> U8:
        return np.stack([np.clip(np.rint(change(image, level)), 0, 255).astype(np.uint8) for image in images])

    return all_of


def _blurred(image: U8, sigma_px: float) -> Any:
    return cv2.GaussianBlur(image, (0, 0), sigma_px) if sigma_px else image


def _noisy(images: U8, deviation: float) -> U8:
    noise: F64 = np.random.default_rng(_SEED).normal(0, 1, images.shape)
    return np.clip(np.rint(images + deviation * noise), 0, 255).astype(np.uint8)


def _small(image: U8, side_px: float) -> Any:
    small = cv2.resize(image, (int(side_px), int(side_px)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (CROP_SIZE_PX, CROP_SIZE_PX), interpolation=cv2.INTER_LINEAR)


def _compressed(image: U8, quality: float) -> Any:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def _warped(image: U8, *, angle_deg: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> Any:
    middle = (CROP_SIZE_PX - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), angle_deg, scale)
    matrix += np.array([[0.0, 0.0, shift], [0.0, 0.0, shift]]) * CROP_SIZE_PX
    return cv2.warpAffine(image, matrix, (CROP_SIZE_PX, CROP_SIZE_PX), borderMode=cv2.BORDER_REPLICATE)


CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption("standard deviation, px", (0.5, 1.0, 1.5, 2.0, 3.0), _per_image(_blurred)),
    "noise": Corruption("standard deviation, gray levels", (5, 10, 20, 40), _noisy),
    "low light": Corruption(
        "share of the light", (0.5, 0.25, 0.1, 0.05), _per_image(lambda image, share: image * share)
    ),
    "rotation": Corruption(
        "degrees", (5, 10, 20, 30, 45), _per_image(lambda image, angle: _warped(image, angle_deg=angle))
    ),
    "size": Corruption("side of the face, px", (40, 32, 24, 16, 12), _per_image(_small)),
    "compression": Corruption("JPEG quality", (75, 50, 25, 10), _per_image(_compressed)),
    "shift": Corruption(
        "share of the side", (-0.1, -0.05, 0.05, 0.1), _per_image(lambda image, by: _warped(image, shift=by))
    ),
    "scale": Corruption("factor", (0.9, 0.95, 1.05, 1.1), _per_image(lambda image, by: _warped(image, scale=by))),
}
"""Corruptions that `evaluate` can apply, by name."""


def _accuracy(predict: Predict, images: U8, labels: I64) -> float:
    return float((predict(images).probs.argmax(axis=1) == labels).mean())


def _negative_log_likelihood(logits: F32, labels: I64) -> float:
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return float((total - logits[np.arange(len(labels)), labels]).mean())
