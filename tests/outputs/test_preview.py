"""Small pictures of a camera."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.outputs.draw import preview_of
from fer_stream.records import U8, Frame

FACE = np.array([170, 60, 280, 190], np.float32)


def picture(portrait: Path) -> U8:
    return np.ascontiguousarray(np.asarray(Image.open(portrait).convert("RGB"))[:, :, ::-1])


def shown(jpeg: bytes) -> U8:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_a_large_picture_is_shrunk_and_a_small_one_is_not(portrait: Path) -> None:
    image = picture(portrait)
    large = np.repeat(np.repeat(image, 3, axis=0), 5, axis=1)
    preview = preview_of(Frame("door@1", 7, 1.0, 0.0, ArrayPixels(large)))
    assert (preview.stream_id, preview.index, preview.width, preview.height) == ("door@1", 7, 2560, 1536)
    assert shown(preview.jpeg).shape == (384, 640, 3)
    small = preview_of(Frame("door@1", 7, 1.0, 0.0, ArrayPixels(image)))
    assert shown(small.jpeg).shape == (512, 512, 3)
    assert np.abs(shown(small.jpeg).astype(float) - image[:, :, ::-1]).mean() < 6
    assert len(small.jpeg) < 60_000


def test_faces_are_blurred_in_the_copy_alone(portrait: Path) -> None:
    image = picture(portrait)
    before = image.copy()
    plain, covered = (
        shown(preview_of(Frame("door@1", 0, 0.0, 0.0, ArrayPixels(image)), boxes).jpeg) for boxes in ((), (FACE,))
    )
    left, top, right, bottom = FACE.astype(int)
    inside = np.s_[top:bottom, left:right]
    detail = [np.abs(np.diff(each.astype(float), axis=1)) for each in (plain, covered)]
    assert detail[1][inside].mean() < 0.3 * detail[0][inside].mean()
    assert np.abs(plain[300:].astype(float) - covered[300:]).mean() < 2
    assert (image == before).all()


def test_the_smallest_picture_is_one(portrait: Path) -> None:
    thin = np.zeros((1, 5000, 3), np.uint8)
    assert shown(preview_of(Frame("door@1", 0, 0.0, 0.0, ArrayPixels(thin)), [FACE]).jpeg).shape == (1, 640, 3)
