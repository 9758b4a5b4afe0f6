"""Augmentation: the right shape and range, the same for the same seed, and each change does what it says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from fer_stream.config.training import AugmentSettings
from fer_stream.records import F32
from fer_stream.training.augment import Augment, sample

STILL = {
    "rotation_deg": 0.0, "scale": 0.0, "aspect": 0.0, "shift": 0.0, "contrast": 0.0, "brightness": 0.0, "gamma": 0.0,
    "shrink": 0.0, "noise": 0.0, "erase": 0.0,
}  # fmt: skip


def augmented(faces: F32, seed: int = 1, **settings: float) -> F32:
    augment = Augment(AugmentSettings.model_validate({**STILL, **settings}), keras.random.SeedGenerator(seed))
    return np.asarray(ops.convert_to_numpy(augment(ops.convert_to_tensor(faces))))


@pytest.fixture(scope="module")
def faces() -> F32:
    return np.random.default_rng(5).uniform(30, 220, (64, 48, 48, 1)).astype(np.float32)


def test_without_any_change_only_mirrors_are_left(faces: F32) -> None:
    found = augmented(faces)
    same = np.isclose(found, faces, atol=0.01).all(axis=(1, 2, 3))
    mirrored = np.isclose(found, faces[:, :, ::-1], atol=0.01).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < same.sum() < 48


def test_everything_at_once_keeps_shape_and_range(faces: F32) -> None:
    augment = Augment(AugmentSettings(), keras.random.SeedGenerator(2))
    found = np.asarray(ops.convert_to_numpy(augment(ops.convert_to_tensor(faces))))
    assert found.shape == faces.shape
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 255


def test_chance_comes_from_the_seed_alone(faces: F32) -> None:
    everything = AugmentSettings().model_dump()
    np.testing.assert_array_equal(augmented(faces, 4, **everything), augmented(faces, 4, **everything))
    assert (augmented(faces, 4, **everything) != augmented(faces, 5, **everything)).any()


def test_small_faces_lose_what_small_faces_lose(faces: F32) -> None:
    assert augmented(faces, shrink=1.0).std() < 0.6 * faces.std()


def test_a_share_of_the_faces_is_erased(faces: F32) -> None:
    changed = augmented(faces, erase=0.5) - np.where(
        np.isclose(augmented(faces), faces, atol=0.01).all(axis=(1, 2, 3), keepdims=True), faces, faces[:, :, ::-1]
    )
    touched = (np.abs(changed) > 0.1).any(axis=(1, 2, 3))
    assert 10 < touched.sum() < 54
    assert (np.abs(changed) > 0.1).mean(axis=(1, 2, 3)).max() <= (19 / 48) ** 2


def test_sampling_is_bilinear_and_continues_the_edges() -> None:
    ramp = np.arange(48, dtype=np.float32) + 100 * np.arange(48, dtype=np.float32)[:, None]
    x, y = np.array([[0.5, 10.25, -5.0, 60.0]], np.float32), np.array([[0.0, 3.5, 2.0, 60.0]], np.float32)
    found = ops.convert_to_numpy(sample(ops.reshape(ops.convert_to_tensor(ramp), (1, -1)), x, y))
    np.testing.assert_allclose(found, [[0.5, 360.25, 200.0, 4747.0]], rtol=1e-5)


def test_every_second_batch_is_mixed() -> None:
    augment = Augment(AugmentSettings(mixup=0.4), keras.random.SeedGenerator(7))
    shares = np.array([float(ops.convert_to_numpy(augment.mixup_share())) for _ in range(40)])
    assert 8 < (shares == 1).sum() < 32
    assert ((shares >= 0) & (shares <= 1)).all()
