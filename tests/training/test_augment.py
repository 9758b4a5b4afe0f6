"""Augmentation: the right shape and range, the same for the same seed, and each change does what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import keras
import numpy as np
import pytest
from keras import ops

from fer_stream.config.training import AugmentSettings
from fer_stream.records import F32, F64, U8
from fer_stream.training.augment import Augment, sample

if TYPE_CHECKING:
    from collections.abc import Mapping

STILL = {
    "rotation_deg": 0.0, "scale": 0.0, "aspect": 0.0, "shift": 0.0, "contrast": 0.0, "brightness": 0.0, "gamma": 0.0,
    "erase": 0.0, "shrink": 0.0, "blur": 0.0, "compress": 0.0, "noise": 0.0,
}  # fmt: skip


def make(seed: int, settings: Mapping[str, object]) -> Augment:
    return Augment(AugmentSettings.model_validate({**STILL, **settings}), keras.random.SeedGenerator(seed))


def augmented(faces: F32, seed: int = 1, **settings: object) -> F32:
    return np.asarray(ops.convert_to_numpy(make(seed, settings)(ops.convert_to_tensor(faces))))


def harmed(faces: F32, seed: int = 1, **settings: object) -> F32:
    return np.asarray(ops.convert_to_numpy(make(seed, settings).corrupt(ops.convert_to_tensor(faces))))


@pytest.fixture(scope="module")
def faces() -> F32:
    return np.random.default_rng(5).uniform(30, 220, (64, 48, 48, 1)).astype(np.float32)


def test_disabled_augmentation_only_mirrors(faces: F32) -> None:
    found = augmented(faces)
    same = np.isclose(found, faces, atol=0.01).all(axis=(1, 2, 3))
    mirrored = np.isclose(found, faces[:, :, ::-1], atol=0.01).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < same.sum() < 48


def test_all_augmentations_keep_shape_and_range(faces: F32) -> None:
    everything = AugmentSettings().model_dump()
    for found in (augmented(faces, 2, **everything), harmed(faces, 2, **everything)):
        assert found.shape == faces.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 255


def test_augmentation_depends_only_on_the_seed(faces: F32) -> None:
    everything = AugmentSettings().model_dump()
    for change in (augmented, harmed):
        np.testing.assert_array_equal(change(faces, 4, **everything), change(faces, 4, **everything))
        assert (change(faces, 4, **everything) != change(faces, 5, **everything)).any()


def test_shrinking_matches_resized_faces(faces: F32) -> None:
    assert harmed(faces, shrink=1.0).std() < 0.6 * faces.std()


def test_blur_keeps_brightness_and_removes_detail(faces: F32) -> None:
    found = harmed(faces, blur=1.0)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), faces.mean(axis=(1, 2, 3)), rtol=0.02)
    kept = found.std(axis=(1, 2, 3)) / faces.std(axis=(1, 2, 3))
    assert kept.min() < 0.25
    assert kept.max() < 1


def test_compression_matches_jpeg() -> None:
    rows, columns = np.mgrid[:48, :48]
    rng = np.random.default_rng(3)
    texture = 128 + 50 * np.sin(rows / 5) + 30 * np.cos(columns / 3) + rng.normal(0, 12, (64, 48, 48))
    images = np.clip(texture, 0, 255).astype(np.uint8)

    def lost(found: F32 | U8) -> F64:
        return np.asarray(np.abs(found.astype(float) - images).mean(axis=(1, 2)))

    def by_opencv(quality: int) -> F64:
        files = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for image in images]
        return lost(np.stack([np.asarray(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE), np.uint8) for file in files]))

    found = lost(harmed(images[..., None].astype(np.float32), compress=1.0)[..., 0])
    best, worst = by_opencv(80).mean(), by_opencv(10).mean()
    assert 0.9 * best < found.min() < 1.6 * best
    assert 0.7 * worst < found.max() < 1.1 * worst


def test_a_share_of_the_faces_has_an_erased_rectangle(faces: F32) -> None:
    changed = augmented(faces, erase=0.5) - np.where(
        np.isclose(augmented(faces), faces, atol=0.01).all(axis=(1, 2, 3), keepdims=True), faces, faces[:, :, ::-1]
    )
    touched = (np.abs(changed) > 0.1).any(axis=(1, 2, 3))
    assert 10 < touched.sum() < 54
    assert (np.abs(changed) > 0.1).mean(axis=(1, 2, 3)).max() <= (19 / 48) ** 2


def test_sampling_is_bilinear_and_extends_the_edges() -> None:
    ramp = np.arange(48, dtype=np.float32) + 100 * np.arange(48, dtype=np.float32)[:, None]
    x, y = np.array([[0.5, 10.25, -5.0, 60.0]], np.float32), np.array([[0.0, 3.5, 2.0, 60.0]], np.float32)
    found = ops.convert_to_numpy(sample(ops.reshape(ops.convert_to_tensor(ramp), (1, -1)), x, y))
    np.testing.assert_allclose(found, [[0.5, 360.25, 200.0, 4747.0]], rtol=1e-5)


def test_mixup_applies_to_every_second_batch() -> None:
    augment = Augment(AugmentSettings(mixup=0.4), keras.random.SeedGenerator(7))
    shares = np.array([float(ops.convert_to_numpy(augment.mixup_share())) for _ in range(40)])
    assert 8 < (shares == 1).sum() < 32
    assert ((shares >= 0) & (shares <= 1)).all()
