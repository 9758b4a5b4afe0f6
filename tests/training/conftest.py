"""What the tests of this folder share: faces made of rings, which a small net learns within seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_stream.config.training import AugmentSettings, DataSettings, NetworkSettings, TrainSettings
from fer_stream.records import LABELS, U8

if TYPE_CHECKING:
    from pathlib import Path


def rings(label: int, rng: np.random.Generator) -> U8:
    """A picture whose rings lie the closer the higher the label is: no turn and no mirror changes that."""
    rows, columns = np.mgrid[:48, :48] - 23.5
    wave = np.sin(np.hypot(rows, columns) * 0.22 * 1.35**label + rng.uniform(0, 6))
    picture: U8 = np.clip(128 + 80 * wave + rng.normal(0, 10, (48, 48)), 0, 255).astype(np.uint8)
    return picture


@pytest.fixture(scope="session")
def rings_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 training images of each class and 16 of each test, with the votes of ten people who agree."""
    rng = np.random.default_rng(1)
    usage = np.repeat([0, 1, 2], np.array([64, 16, 16]) * len(LABELS)).astype(np.uint8)
    labels = np.tile(np.arange(len(LABELS)), 96).astype(np.uint8)
    votes = np.zeros((len(labels), 10), np.uint8)
    votes[np.arange(len(labels)), labels] = 10
    path = tmp_path_factory.mktemp("rings") / "rings.npz"
    images = np.stack([rings(int(label), rng) for label in labels])
    np.savez(path, images=images, labels=labels, usage=usage, ferplus_votes=votes)
    return path


@pytest.fixture(scope="session")
def small(rings_npz: Path) -> TrainSettings:
    """Settings that learn the rings in a few seconds."""
    return TrainSettings(
        data=DataSettings(path=rings_npz),
        network=NetworkSettings(widths=(16,), dropout=0.1),
        augment=AugmentSettings(mixup=0.2, shrink=0.0, blur=0.0, compress=0.0, noise=0.5, scale=0.03, erase=0.2),
        epochs=6,
        batch_size=32,
        warmup_epochs=1,
        ema=0.8,
        precision="float32",
        seed=3,
    )
