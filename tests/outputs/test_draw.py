"""Boxes and cards drawn on frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fer_stream.outputs.draw import Annotator, bgr
from fer_stream.records import U8, UNKNOWN, LabelledFace, Quality

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


def _box(width: int, height: int, across: float, down: float) -> tuple[int, int, int, int]:
    left, top = round(across * width), round(down * height)
    return left, top, left + round(0.15 * width), top + round(0.3 * height)


@pytest.mark.parametrize(("width", "height"), [(176, 144), (640, 360), (1920, 1080)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.85, 0.0), (0.0, 0.7), (0.85, 0.7), (0.92, 0.9), (-0.05, -0.1)])
def test_card_is_complete_and_does_not_cover_the_face(
    width: int, height: int, place: tuple[float, float], face: FaceMaker
) -> None:
    box = _box(width, height, *place)
    image = _drawn(width, height, [face(1, "happy", box)])
    left, top = max(0, box[0]), max(0, box[1])
    assert not _changed(image[top + 6 : box[3] - 6, left + 6 : box[2] - 6]).any()
    in_the_middle = _drawn(width, height, [face(1, "happy", _box(width, height, 0.4, 0.35))])
    assert _white_px(image) == _white_px(in_the_middle) > 20


def test_cards_of_neighbours_do_not_cover_each_other(face: FaceMaker) -> None:
    boxes = [(60, 100, 110, 170), (200, 90, 260, 170), (330, 110, 380, 180), (480, 95, 540, 175)]
    together = _drawn(640, 360, [face(number, "sad", box) for number, box in enumerate(boxes, 1)])
    alone = [_drawn(640, 360, [face(number, "sad", box)]) for number, box in enumerate(boxes, 1)]
    assert _white_px(together) == sum(map(_white_px, alone))
    for left, top, right, bottom in boxes:
        assert not _changed(together[top + 6 : bottom - 6, left + 6 : right - 6]).any()


def test_a_card_does_not_jump_while_its_place_is_free(face: FaceMaker) -> None:
    annotator = Annotator()
    pushed = face(1, "happy", (530, 120, 600, 220))
    _drawn(640, 360, [pushed], annotator)
    image = _drawn(640, 360, [face(1, "happy", (300, 120, 370, 220))], annotator)
    left_of_the_face = _changed(image[:, :290])
    assert left_of_the_face.any()
    assert not _changed(image[:, 380:]).any()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 7), (40, 30), (7680, 4320)])
def test_any_size_of_picture_will_do(width: int, height: int, face: FaceMaker) -> None:
    image = _drawn(width, height, [face(1, "fear", (0, 0, width, height)), face(2, "sad", (-9, -9, 3, 3))])
    assert image.shape == (height, width, 3)
    assert _changed(image).any()


def test_many_faces_in_one_place_still_have_cards(face: FaceMaker) -> None:
    image = _drawn(320, 240, [face(number, "happy", (10, 10, 300, 230)) for number in range(1, 30)])
    assert _white_px(image) > 20
