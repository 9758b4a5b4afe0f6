"""How good a model is: accuracy with its interval, calibration, when to trust it, and what it withstands.

Arrays throughout: `labels` int64 (n,), indices of `records.LABELS`; `probs` float32 (n, 7), rows that sum to 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_stream.classify.classifier import ClassifierOutput
from fer_stream.records import CROP_SIZE_PX, F32, F64, FERPLUS, FERPLUS_BY_LABEL, I64, LABELS, U8
from fer_stream.training.dataset import VOTES, Faces

Predict = Callable[[U8], ClassifierOutput]
"""uint8 (n, 48, 48) → probs and agreement."""

# Of the normal distribution, for 95 %.
_Z = 1.959964
_BINS = 15
_COVERAGE = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_SEED = 2013


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found. Shares are of 1. `confusion` [i][j] counts faces of label i that were called j.

    `calibration_error` is the expected one over 15 equal bins of the highest probability. `majority_accuracy` is
    against the majority of FER+ votes, over the `majority_faces` whose majority is one of the seven labels;
    `ferplus_accuracy` is that of the head for FER+'s eight emotions, over the `ferplus_faces` that most called one.
    `selective` has coverage and accuracy when the faces of the lowest probabilities are left out, and
    `selective_by_agreement` when those are about which people would agree least. `robustness` has level and accuracy
    by kind of harm, `speed_ms` batch size and milliseconds a face by runtime. `copies` of the faces are known from
    training, and `accuracy_without_copies` is over the others.
    """

    faces: int
    accuracy: float
    interval: tuple[float, float]
    copies: int
    accuracy_without_copies: float | None
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


def evaluate(
    predict: Predict,
    faces: Faces,
    *,
    copied: NDArray[np.bool_],
    harms: Sequence[str],
    runtimes: Mapping[str, Predict],
    batches: Sequence[int],
    progress: Callable[[str], object],
) -> Evaluation:
    """Judge a model on labelled faces, of which those in `copied`, bool (n,), are known from training.

    `harms`, names of `HARMS`, are what it has to withstand besides; `runtimes` are those whose speed is measured with
    batches of the sizes `batches`; `progress` is told each harm as it begins.
    """
    judged = predict(faces.images)
    probs, people = judged.probs, judged.ferplus_probs
    right = probs.argmax(axis=1) == faces.labels
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(confusion, (faces.labels, probs.argmax(axis=1)), 1)
    recall = {label: row[i] / sum(row)
              for i, (label, row) in enumerate(zip(LABELS, confusion.tolist(), strict=True)) if any(row)}  # fmt: skip
    majority, known = majority_of(faces.votes)
    eight, named = ferplus_majority_of(faces.votes)
    robustness = {}
    for harm in harms:
        progress(harm)
        robustness[harm] = [(level, _accuracy(predict, HARMS[harm].harm(faces.images, level), faces.labels))
                            for level in HARMS[harm].levels]  # fmt: skip
    return Evaluation(
        faces=len(faces),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(faces)),
        copies=int(copied.sum()),
        accuracy_without_copies=float(right[~copied].mean()) if copied.any() and not copied.all() else None,
        balanced_accuracy=fmean(recall.values()),
        recall=recall,
        confusion=confusion.tolist(),
        calibration_error=calibration_error(probs, faces.labels),
        majority_accuracy=_share_right(probs, majority, known),
        majority_faces=int(known.sum()),
        ferplus_accuracy=None if people is None else _share_right(people, eight, named),
        ferplus_faces=int(named.sum()),
        selective=selective(probs.max(axis=1), right),
        selective_by_agreement=None if people is None else selective(judged.agreement, right),
        robustness=robustness,
        speed_ms={
            name: [(batch, speed_ms(runtime, batch)) for batch in batches] for name, runtime in runtimes.items()
        },
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score."""
    share, z2 = right / n, _Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return middle - half, middle + half


def calibration_error(probs: F32, labels: I64) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, weighted over 15 equal bins."""
    sure = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    apart = [abs(float(sure[bins == one].mean() - right[bins == one].mean())) * float((bins == one).mean())
             for one in np.unique(bins)]  # fmt: skip
    return float(sum(apart))


def best_temperature(logits: F32, labels: I64) -> float:
    """By what logits (n, 7) are to be divided for the least negative log likelihood; between 0.25 and 4."""
    candidates = np.exp(np.linspace(np.log(0.25), np.log(4.0), 401))
    return float(min(candidates, key=lambda temperature: _surprise(logits / temperature, labels)))


def selective(sure: F32, right: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Accuracy over the surest share of the faces, for falling shares; `sure` float32 (n,)."""
    in_order = right[np.argsort(-sure, kind="stable")]
    kept = [max(1, round(coverage * len(in_order))) for coverage in _COVERAGE]
    return [(coverage, float(in_order[:n].mean())) for coverage, n in zip(_COVERAGE, kept, strict=True)]


def majority_of(votes: F32) -> tuple[I64, NDArray[np.bool_]]:
    """The label that most of FER+ named, int64 (n,), and where that is a single one of the seven, bool (n,)."""
    label_of = np.array([FERPLUS_BY_LABEL.index(vote) if vote in FERPLUS_BY_LABEL else -1 for vote in VOTES])
    labels = label_of[votes.argmax(axis=1)]
    return labels, _single(votes) & (labels >= 0)


def ferplus_majority_of(votes: F32) -> tuple[I64, NDArray[np.bool_]]:
    """The index in `VOTES` that most named, int64 (n,), and where that is a single one of FER+'s eight emotions."""
    most = votes.argmax(axis=1)
    return most, _single(votes) & (most < len(FERPLUS))


def _share_right(shares: F32, labels: I64, which: NDArray[np.bool_]) -> float | None:
    return float((shares.argmax(axis=1) == labels)[which].mean()) if which.any() else None


def _single(votes: F32) -> NDArray[np.bool_]:
    first, second = np.sort(votes, axis=1)[:, [-1, -2]].T
    return np.asarray(first > second)


def speed_ms(predict: Predict, batch: int, *, seconds: float = 1.0) -> float:
    """Milliseconds a face, the median of batches of `batch` faces over so many seconds after a warm-up."""
    faces = np.random.default_rng(_SEED).integers(0, 256, (batch, CROP_SIZE_PX, CROP_SIZE_PX), np.uint8)
    predict(faces)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        predict(faces)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) / batch * 1000


@dataclass(frozen=True, slots=True)
class Harm:
    """One way in which a face from a camera is worse than one of the dataset; `unit` is that of its `levels`."""

    unit: str
    levels: tuple[float, ...]
    harm: Callable[[U8, float], U8]


def _each(change: Callable[[U8, float], Any]) -> Callable[[U8, float], U8]:
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


HARMS: dict[str, Harm] = {
    "blur": Harm("standard deviation, px", (0.5, 1.0, 1.5, 2.0, 3.0), _each(_blurred)),
    "noise": Harm("standard deviation, gray levels", (5, 10, 20, 40), _noisy),
    "low light": Harm("share of the light", (0.5, 0.25, 0.1, 0.05), _each(lambda image, share: image * share)),
    "rotation": Harm("degrees", (5, 10, 20, 30, 45), _each(lambda image, angle: _warped(image, angle_deg=angle))),
    "size": Harm("side of the face, px", (40, 32, 24, 16, 12), _each(_small)),
    "compression": Harm("JPEG quality", (75, 50, 25, 10), _each(_compressed)),
    "shift": Harm("share of the side", (-0.1, -0.05, 0.05, 0.1), _each(lambda image, by: _warped(image, shift=by))),
    "scale": Harm("factor", (0.9, 0.95, 1.05, 1.1), _each(lambda image, by: _warped(image, scale=by))),
}
"""What `evaluate` can put a model through, by name."""


def _accuracy(predict: Predict, images: U8, labels: I64) -> float:
    return float((predict(images).probs.argmax(axis=1) == labels).mean())


def _surprise(logits: F32, labels: I64) -> float:
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return float((total - logits[np.arange(len(labels)), labels]).mean())
