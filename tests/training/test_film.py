"""Faces out of a video: the same shape, the same each time, and worse the smaller and the more compressed."""

from __future__ import annotations

import numpy as np
import pytest

from fer_stream.records import U8
from fer_stream.training.augment import film


@pytest.fixture(scope="module")
def faces() -> U8:
    rows, columns = np.mgrid[:48, :48]
    rng = np.random.default_rng(4)
    wave = rng.uniform(1, 4, (100, 1, 1)), rng.uniform(1, 4, (100, 1, 1))
    noise = rng.normal(0, 6, (100, 48, 48))
    texture = 128 + 50 * np.sin(rows / wave[0]) + 40 * np.cos(columns / wave[1]) + noise
    pictures: U8 = np.clip(texture, 0, 255).astype(np.uint8)
    return pictures


def lost(faces: U8, crf: int, side_px: int) -> float:
    found = film(faces, np.random.default_rng(1), crf=(crf, crf), side_px=(side_px, side_px))
    return float(np.abs(found.astype(float) - faces).mean())


def test_film_keeps_shape_and_position(faces: U8) -> None:
    found = film(faces, np.random.default_rng(1), crf=(1, 1), side_px=(96, 96))
    assert found.shape == faces.shape
    assert found.dtype == np.uint8
    apart = np.abs(found[:, None, ::4, ::4].astype(float) - faces[None, :, ::4, ::4]).mean(axis=(2, 3))
    assert (apart.argmin(axis=1) == np.arange(len(faces))).all()
    assert film(faces[:0], np.random.default_rng(1)).shape == (0, 48, 48)


def test_film_depends_only_on_the_seed(faces: U8) -> None:
    first, again, other = (film(faces, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_small_and_compressed_faces_lose_more(faces: U8) -> None:
    assert lost(faces, 20, 96) < lost(faces, 32, 96) < lost(faces, 44, 96)
    assert lost(faces, 28, 96) < lost(faces, 28, 40) < lost(faces, 28, 28)
