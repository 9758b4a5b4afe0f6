"""Batches of training faces, and their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from fer_stream.records import F32, FERPLUS, FERPLUS_BY_LABEL, LABELS, U8
from fer_stream.training.augment import film

if TYPE_CHECKING:
    from fer_stream.config.training import TrainSettings
    from fer_stream.training.dataset import Dataset

_IN_VOTES = np.array([FERPLUS.index(name) for name in FERPLUS_BY_LABEL])


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Training faces in an order that depends only on seed and epoch; incomplete batches are omitted."""

    def __init__(self, faces: Dataset, settings: TrainSettings) -> None:
        super().__init__()
        self.faces = faces
        self._targets = make_targets(faces)
        self._settings = settings
        self.reseed(0)

    def reseed(self, epoch: int) -> None:
        """Shuffle the faces for this epoch. Keras also calls `on_epoch_end` before the first."""
        self._order = np.random.default_rng((self._settings.seed, epoch)).permutation(len(self.faces))
        if share := self._settings.augment.video:
            self._filmed = self.faces.images.copy()
            rng = np.random.default_rng((self._settings.seed, epoch, 1))
            some = np.flatnonzero(rng.random(len(self.faces)) < share)
            self._filmed[some] = film(self.faces.images[some], rng)

    def __len__(self) -> int:
        return len(self.faces) // self._settings.batch_size

    def __getitem__(self, number: int) -> tuple[U8, dict[str, np.ndarray]]:
        size = self._settings.batch_size
        rows = self._order[number * size : (number + 1) * size]
        images = self.faces.images[rows]
        if self._settings.augment.video:
            images = np.stack([images, self._filmed[rows]], axis=-1)
        return images, {name: target[rows] for name, target in self._targets.items()}


def make_targets(faces: Dataset) -> dict[str, np.ndarray]:
    """Return the training targets of faces.

    `label` is int32 (n,). `votes` is float32 (n, 8): shares of the FER+ emotions, rows of 0 without votes for any.
    `seven` is float32 (n, 7): shares of the seven labels among their votes, or 1 for the label without such votes.
    """
    seven = faces.votes[:, _IN_VOTES]
    named = seven.sum(axis=1, keepdims=True)
    alone = np.eye(len(LABELS), dtype=np.float32)[faces.labels]
    emotions = faces.votes[:, : len(FERPLUS)]
    voices = np.maximum(emotions.sum(axis=1), 1)
    return {
        "label": faces.labels.astype(np.int32),
        "votes": emotions / voices[:, np.newaxis],
        "seven": np.where(named > 0, seven / np.maximum(named, 1), alone),
    }


def class_shares(faces: Dataset, votes: float) -> F32:
    """Return the frequency of each label, float32 (7,), in a target with the share `votes` of FER+ votes."""
    targets = make_targets(faces)
    labels = np.bincount(faces.labels, minlength=len(LABELS)) / len(faces)
    return np.asarray((1 - votes) * labels + votes * targets["seven"].mean(axis=0), np.float32)
