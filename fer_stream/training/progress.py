"""What a training tells while it runs. Loads no backend of Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """How an epoch went; `accuracy` is of the averaged weights on PublicTest, single crop."""

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """How far an epoch is."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Begun:
    """How many training images there are, and how many of these are exact copies of a test image."""

    images: int
    copies: int


Progress = Callable[[Begun | Epoch | Step], object]
