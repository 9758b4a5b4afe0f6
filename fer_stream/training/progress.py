"""Progress messages and history of a training. Loads no Keras backend."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Epoch:
    """Result of an epoch; `accuracy` is of the averaged weights on PublicTest, single crop.

    `majority` is the accuracy by the majority of the FER+ votes, None without votes. `score` selects the kept epoch:
    the mean of both, weighted by the shares of labels and votes in the target.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    majority: float | None = None
    votes: float = 0.0

    @property
    def score(self) -> float:
        """Mean of `accuracy` and `majority` with the weight `votes` of the latter."""
        if self.majority is None:
            return self.accuracy
        return (1 - self.votes) * self.accuracy + self.votes * self.majority


@dataclass(frozen=True, slots=True)
class Step:
    """Progress within an epoch."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Size of the training data.

    Of `images` in Training, `copies` are exact copies of a test image, and `dropped` if they are left out. `shared`
    PrivateTest images are exact copies of PublicTest images, on which choices are made.
    """

    images: int
    duplicates: int
    dropped: bool
    shared_test_images: int


Progress = Callable[[DatasetStats | Epoch | Step], object]


def read_history(path: Path) -> list[Epoch]:
    """Read the epochs that `write_history` wrote; empty if the file does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Epoch(
                epoch=int(row["epoch"]), loss=float(row["loss"]), accuracy=float(row["accuracy"]),
                learning_rate=float(row["learning_rate"]), seconds=float(row["seconds"]),
                majority=float(row["majority"]) if row.get("majority") else None, votes=float(row.get("votes") or 0),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """Write the epochs as CSV atomically."""
    part = path.with_name(f".partial-{path.name}")
    with part.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        rows.writeheader()
        rows.writerows(asdict(epoch) for epoch in history)
    part.replace(path)


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch whose weights are kept: the first with the highest score."""
    return max(history, key=lambda epoch: epoch.score)
