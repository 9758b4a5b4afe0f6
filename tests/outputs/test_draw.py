"""Colours of labels, boxes and cards drawn on frames, and previews."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.outputs.draw import COLOURS, Annotator, bgr, preview_of
from fer_stream.records import LABELS, U8, UNKNOWN, Frame, LabelledFace, Quality

FaceMaker = Callable[..., LabelledFace]
GRAY = 128


def _gray_image(width: int, height: int) -> U8:
    return np.full((height, width, 3), GRAY, np.uint8)


def _drawn(width: int, height: int, faces: Sequence[LabelledFace], annotator: Annotator | None = None) -> U8:
    image = _gray_image(width, height)
    (annotator or Annotator()).draw(image, faces)
    return image


def _changed(image: U8) -> np.ndarray:
    return np.asarray((image != GRAY).any(axis=2))


def test_frame_without_faces_is_unchanged() -> None:
    assert not _changed(_drawn(176, 144, [])).any()


@pytest.mark.parametrize("label", ["angry", "happy", "neutral", UNKNOWN])
def test_box_has_the_colour_of_the_label(label: str, face: FaceMaker) -> None:
    image = _drawn(640, 360, [face(1, label, (200, 100, 300, 220))])
    assert tuple(image[160, 200].tolist()) == bgr(label)
    assert tuple(image[100, 250].tolist()) == bgr(label)


def test_unknown_face_is_gray(face: FaceMaker) -> None:
    image = _drawn(640, 360, [face(1, UNKNOWN, (200, 100, 300, 220), Quality(0.1, "truncated"))])
    assert (image.max(axis=2).astype(int) - image.min(axis=2)).max() < 16


def _white_px(image: U8) -> int:
    """Return the number of pixels of text, which is the only element bright in all channels."""
    return int((image.min(axis=2) > 200).sum())


def test_card_of_an_unknown_face_shows_the_reason(face: FaceMaker) -> None:
    undecided = face(1, UNKNOWN, (200, 100, 300, 220))
    without = replace(undecided, unknown_reason=None)
    assert _white_px(_drawn(640, 360, [undecided])) > 1.5 * _white_px(_drawn(640, 360, [without]))


def _box(width: int, height: int, across: float, down: float) -> tuple[int, int, int, int]:
    left, top = round(across * width), round(down * height)
    return left, top, left + round(0.15 * width), top + round(0.3 * height)


@pytest.mark.parametrize(("width", "height"), [(176, 144), (640, 360), (1920, 1080)])
@pytest.mark.parametrize("position", [(0.0, 0.0), (0.85, 0.0), (0.0, 0.7), (0.85, 0.7), (0.92, 0.9), (-0.05, -0.1)])
def test_card_is_complete_and_does_not_cover_the_face(
    width: int, height: int, position: tuple[float, float], face: FaceMaker
) -> None:
    box = _box(width, height, *position)
    image = _drawn(width, height, [face(1, "happy", box)])
    left, top = max(0, box[0]), max(0, box[1])
    assert not _changed(image[top + 6 : box[3] - 6, left + 6 : box[2] - 6]).any()
    centred = _drawn(width, height, [face(1, "happy", _box(width, height, 0.4, 0.35))])
    assert _white_px(image) == _white_px(centred) > 20


def test_cards_of_neighbours_do_not_cover_each_other(face: FaceMaker) -> None:
    boxes = [(60, 100, 110, 170), (200, 90, 260, 170), (330, 110, 380, 180), (480, 95, 540, 175)]
    together = _drawn(640, 360, [face(number, "sad", box) for number, box in enumerate(boxes, 1)])
    alone = [_drawn(640, 360, [face(number, "sad", box)]) for number, box in enumerate(boxes, 1)]
    assert _white_px(together) == sum(map(_white_px, alone))
    for left, top, right, bottom in boxes:
        assert not _changed(together[top + 6 : bottom - 6, left + 6 : right - 6]).any()


def test_card_keeps_its_side_while_its_position_is_free(face: FaceMaker) -> None:
    annotator = Annotator()
    pushed = face(1, "happy", (530, 120, 600, 220))
    _drawn(640, 360, [pushed], annotator)
    image = _drawn(640, 360, [face(1, "happy", (300, 120, 370, 220))], annotator)
    left_of_face = _changed(image[:, :290])
    assert left_of_face.any()
    assert not _changed(image[:, 380:]).any()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 7), (40, 30), (7680, 4320)])
def test_frames_of_any_size_are_drawn(width: int, height: int, face: FaceMaker) -> None:
    image = _drawn(width, height, [face(1, "fear", (0, 0, width, height)), face(2, "sad", (-9, -9, 3, 3))])
    assert image.shape == (height, width, 3)
    assert _changed(image).any()


def test_many_faces_at_one_position_have_cards(face: FaceMaker) -> None:
    image = _drawn(320, 240, [face(number, "happy", (10, 10, 300, 230)) for number in range(1, 30)])
    assert _white_px(image) > 20


# Colours

# Machado, Oliveira and Fernandes (2009), severity 1.0, for linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def _lab(label: str, seen_through: object) -> np.ndarray:
    rgb = np.array(bgr(label)[::-1]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(seen_through) @ linear, 0, 1)
    return np.asarray(rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_are_distinguishable_with_every_type_of_colour_vision(deficiency: str) -> None:
    seen = {label: _lab(label, DEFICIENCIES[deficiency]) for label in LABELS}
    pairs = list(combinations(LABELS, 2))
    differences = deltaE_ciede2000([seen[a] for a, _ in pairs], [seen[b] for _, b in pairs])  # type: ignore[no-untyped-call]
    smallest = min(zip(differences, pairs, strict=True))
    # A difference of 2 is just noticeable; 9 is clear side by side.
    assert smallest[0] > 9, smallest


def test_every_label_has_a_different_colour() -> None:
    assert list(COLOURS) == [*LABELS, UNKNOWN]
    assert len(set(COLOURS.values())) == 8
    assert bgr("angry") == (0x00, 0x5E, 0xD5)


# Previews

FACE = np.array([170, 60, 280, 190], np.float32)


def _portrait_image(portrait: Path) -> U8:
    return np.ascontiguousarray(np.asarray(Image.open(portrait).convert("RGB"))[:, :, ::-1])


def _decoded(jpeg: bytes) -> U8:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_large_frame_is_scaled_down_and_a_small_one_is_not(portrait: Path) -> None:
    image = _portrait_image(portrait)
    large = np.repeat(np.repeat(image, 3, axis=0), 5, axis=1)
    preview = preview_of(Frame("door@1", 7, 1.0, 0.0, ArrayPixels(large)))
    assert (preview.stream_id, preview.index, preview.width, preview.height) == ("door@1", 7, 2560, 1536)
    assert _decoded(preview.jpeg).shape == (384, 640, 3)
    small = preview_of(Frame("door@1", 7, 1.0, 0.0, ArrayPixels(image)))
    assert _decoded(small.jpeg).shape == (512, 512, 3)
    assert np.abs(_decoded(small.jpeg).astype(float) - image[:, :, ::-1]).mean() < 6
    assert len(small.jpeg) < 60_000


def test_faces_are_blurred_only_in_the_preview(portrait: Path) -> None:
    image = _portrait_image(portrait)
    before = image.copy()
    plain, redacted = (
        _decoded(preview_of(Frame("door@1", 0, 0.0, 0.0, ArrayPixels(image)), boxes).jpeg) for boxes in ((), (FACE,))
    )
    left, top, right, bottom = FACE.astype(int)
    inside = np.s_[top:bottom, left:right]
    detail = [np.abs(np.diff(each.astype(float), axis=1)) for each in (plain, redacted)]
    assert detail[1][inside].mean() < 0.3 * detail[0][inside].mean()
    assert np.abs(plain[300:].astype(float) - redacted[300:]).mean() < 2
    assert (image == before).all()


def test_preview_of_a_frame_of_one_row(portrait: Path) -> None:
    thin = np.zeros((1, 5000, 3), np.uint8)
    assert _decoded(preview_of(Frame("door@1", 0, 0.0, 0.0, ArrayPixels(thin)), [FACE]).jpeg).shape == (1, 640, 3)
