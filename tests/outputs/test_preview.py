"""Previews of cameras."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.outputs.draw import preview_of
from fer_stream.records import U8, Frame

FACE = np.array([170, 60, 280, 190], np.float32)


def image_of(portrait: Path) -> U8:
    return np.ascontiguousarray(np.asarray(Image.open(portrait).convert("RGB"))[:, :, ::-1])


def decoded(jpeg: bytes) -> U8:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_large_frame_is_scaled_down_and_a_small_one_is_not(portrait: Path) -> None:
    image = image_of(portrait)
    large = np.repeat(np.repeat(image, 3, axis=0), 5, axis=1)
    preview = preview_of(Frame("door@1", 7, 1.0, 0.0, ArrayPixels(large)))
    assert (preview.stream_id, preview.index, preview.width, preview.height) == ("door@1", 7, 2560, 1536)
    assert decoded(preview.jpeg).shape == (384, 640, 3)
    small = preview_of(Frame("door@1", 7, 1.0, 0.0, ArrayPixels(image)))
    assert decoded(small.jpeg).shape == (512, 512, 3)
    assert np.abs(decoded(small.jpeg).astype(float) - image[:, :, ::-1]).mean() < 6
    assert len(small.jpeg) < 60_000


def test_faces_are_blurred_only_in_the_preview(portrait: Path) -> None:
    image = image_of(portrait)
    before = image.copy()
    plain, redacted = (
        decoded(preview_of(Frame("door@1", 0, 0.0, 0.0, ArrayPixels(image)), boxes).jpeg) for boxes in ((), (FACE,))
    )
    left, top, right, bottom = FACE.astype(int)
    inside = np.s_[top:bottom, left:right]
    detail = [np.abs(np.diff(each.astype(float), axis=1)) for each in (plain, redacted)]
    assert detail[1][inside].mean() < 0.3 * detail[0][inside].mean()
    assert np.abs(plain[300:].astype(float) - redacted[300:]).mean() < 2
    assert (image == before).all()


def test_preview_of_a_frame_of_one_row(portrait: Path) -> None:
    thin = np.zeros((1, 5000, 3), np.uint8)
    assert decoded(preview_of(Frame("door@1", 0, 0.0, 0.0, ArrayPixels(thin)), [FACE]).jpeg).shape == (1, 640, 3)
