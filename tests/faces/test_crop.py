"""Face crops: pixels and position for any box."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.crop import CropGeometry, crop_face, downscale, pyramid_levels
from fer_stream.records import F32, U8

EXACT = CropGeometry(scale=1, y_offset=0)


def box(*values: float) -> F32:
    return np.array(values, np.float32)


def ramp(height: int, width: int) -> U8:
    """A grayscale gradient in BGR, whose values identify positions."""
    rows, columns = np.mgrid[:height, :width]
    gray = (2 * rows + columns) % 256
    return np.repeat(gray[..., np.newaxis], 3, axis=2).astype(np.uint8)


def test_a_box_of_48_px_is_copied() -> None:
    image = ramp(90, 120)
    np.testing.assert_array_equal(crop_face(image, box(30, 20, 78, 68), EXACT), image[20:68, 30:78, 0])


def test_colour_is_converted_like_opencv() -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[6:54, 6:54]
    np.testing.assert_array_equal(crop_face(image, box(6, 6, 54, 54), EXACT), expected)


def test_shrinking_averages_areas() -> None:
    image = np.random.default_rng(2).integers(0, 256, (96, 96, 3), np.uint8)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64)
    means = gray.reshape(48, 2, 48, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(crop_face(image, box(0, 0, 96, 96), EXACT), means, atol=0.51)


@pytest.mark.parametrize("side", [97, 150, 191, 250, 390, 800])
def test_pyramid_equals_direct_area_averaging(side: int) -> None:
    rows, columns = np.mgrid[:900, :900]
    image = (127 + 60 * np.sin(rows / 40) + 60 * np.cos(columns / 25)).astype(np.uint8)
    crop = crop_face(image, box(40, 50, 40 + side, 50 + side), EXACT)
    once = cv2.resize(image[50 : 50 + side, 40 : 40 + side], (48, 48), interpolation=cv2.INTER_AREA)
    # The side of the square may differ by 1 %, so that it can be halved.
    assert np.abs(crop.astype(int) - once).max() <= 6


def test_crop_is_a_square_of_the_larger_side_at_the_centre_of_the_box() -> None:
    image = ramp(100, 100)
    np.testing.assert_array_equal(crop_face(image, box(40, 20, 60, 68), EXACT), image[20:68, 26:74, 0])


def test_scale_and_y_offset_are_relative_to_the_box() -> None:
    image = ramp(200, 200)
    # Box of 24 × 32 px around (100, 100): side 1.5 × 32 = 48, centre 0.25 × 32 = 8 px higher.
    crop = crop_face(image, box(88, 84, 112, 116), CropGeometry(scale=1.5, y_offset=0.25))
    np.testing.assert_array_equal(crop, image[68:116, 76:124, 0])


def test_edge_pixels_are_repeated_outside_the_image() -> None:
    image = ramp(60, 60)
    crop = crop_face(image, box(-10, -20, 38, 28), EXACT)
    np.testing.assert_array_equal(crop[20:, 10:], image[:28, :38, 0])
    np.testing.assert_array_equal(crop[:20, 10:], np.tile(image[0, :38, 0], (20, 1)))
    np.testing.assert_array_equal(crop[20:, :10], np.tile(image[:28, :1, 0], (1, 10)))


@pytest.mark.parametrize(
    ("xyxy", "corner"),
    [((-200, -200, -100, -100), (0, 0)), ((500, 500, 600, 600), (-1, -1)), ((500, -9, 509, 0), (0, -1))],
)
def test_a_box_outside_the_image_gives_its_nearest_pixel(xyxy: tuple[float, ...], corner: tuple[int, int]) -> None:
    image = ramp(40, 50)
    np.testing.assert_array_equal(crop_face(image, box(*xyxy), EXACT), np.full((48, 48), image[corner][0]))


coordinate = st.floats(-1e9, 1e9, width=32) | st.floats(-100, 200, width=32)


@given(
    xyxy=st.tuples(coordinate, coordinate, coordinate, coordinate),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    scale=st.floats(0.5, 2),
    y_offset=st.floats(-0.2, 0.2),
)
def test_any_finite_box_gives_a_crop_of_the_image(
    xyxy: tuple[float, ...], shape: tuple[int, int], scale: float, y_offset: float
) -> None:
    image = ramp(*shape)
    crop = crop_face(image, box(*xyxy), CropGeometry(scale, y_offset))
    assert crop.shape == (48, 48)
    assert crop.dtype == np.uint8
    assert image.min() <= crop.min() <= crop.max() <= image.max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_is_rejected(bad: float) -> None:
    with pytest.raises(ValueError, match="Expected a box of four finite numbers"):
        crop_face(ramp(10, 10), box(0, 0, bad, 5), EXACT)


def test_the_image_is_not_modified() -> None:
    image = ramp(60, 60)
    image.flags.writeable = False
    before = image.copy()
    crop_face(image, box(-5, 10, 40, 70), EXACT)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("side_px", "levels"), [(0, 0), (48, 0), (95, 0), (96, 1), (191, 1), (192, 2)])
def test_pyramid_levels_keep_at_least_the_size_of_a_crop(side_px: float, levels: int) -> None:
    assert pyramid_levels(side_px) == levels


def test_downscaling_averages_and_drops_odd_rows_and_columns() -> None:
    gray = np.arange(35, dtype=np.uint8).reshape(5, 7)
    np.testing.assert_array_equal(downscale(gray, 1), [[4, 6, 8], [18, 20, 22]])
    assert downscale(gray, 0) is gray
