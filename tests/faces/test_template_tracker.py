"""Following faces by what they look like: where they go, and knowing when they are lost."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.template_tracker import TemplateTracker
from fer_stream.records import U8, Detections

HEIGHT, WIDTH = 240, 320


def texture(seed: int, height: int, width: int) -> U8:
    """Soft blotches, six or more across, as faces and rooms have."""
    cell = max(1, min(height, width) // 6)
    coarse = np.random.default_rng(seed).integers(0, 256, (height // cell, width // cell), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def picture(*faces: tuple[int, int, int]) -> U8:
    """A room with faces at (left, top, side); the same number has the same face."""
    gray = texture(99, HEIGHT, WIDTH)
    for number, (left, top, side) in enumerate(faces):
        gray[top : top + side, left : left + side] = texture(number, side, side)
    return gray


def boxes(*faces: tuple[int, int, int]) -> Detections:
    xyxy = np.array([(x, y, x + side, y + side) for x, y, side in faces], np.float32).reshape(-1, 4)
    landmarks = xyxy[:, None, :2] + np.float32(5) * np.ones((1, 5, 2), np.float32)
    return Detections(xyxy, np.full(len(xyxy), 0.9, np.float32), landmarks)


steps = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=6)


@given(side=st.sampled_from([30, 64, 110]), steps=steps)
def test_a_face_is_where_it_went(side: int, steps: list[tuple[int, int]]) -> None:
    x, y = 90, 60
    motion = TemplateTracker()
    motion.init(picture((x, y, side)), boxes((x, y, side)))
    for dx, dy in steps:
        x, y = x + dx, y + dy
        moved = motion.update(picture((x, y, side)))
        assert moved is not None
        np.testing.assert_allclose(moved.xyxy, boxes((x, y, side)).xyxy, atol=1.0)
        assert moved.landmarks is not None
        np.testing.assert_allclose(moved.landmarks[0, 0], (x + 5, y + 5), atol=1.0)


def test_faces_keep_their_rows_and_confidence_though_they_pass_each_other() -> None:
    motion = TemplateTracker()
    motion.init(picture((40, 20, 60), (200, 120, 60)), boxes((40, 20, 60), (200, 120, 60)))
    for step in range(1, 6):
        a, b = (40 + 10 * step, 20, 60), (200 - 10 * step, 120, 60)
        moved = motion.update(picture(a, b))
        assert moved is not None
        np.testing.assert_allclose(moved.xyxy, boxes(a, b).xyxy, atol=1.0)
        assert moved.confidence.tolist() == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize(
    ("what", "after"),
    [
        ("gone", lambda: picture()),
        ("somebody else", lambda: picture((250, 150, 20), (90, 60, 64))),
        ("too far away", lambda: picture((200, 150, 64))),
        ("a picture of another size", lambda: picture((90, 60, 64))[:-2]),
        ("a black picture", lambda: np.zeros((HEIGHT, WIDTH), np.uint8)),
    ],
)
def test_a_face_that_is_lost_is_known_to_be(what: str, after: Callable[[], U8]) -> None:
    motion = TemplateTracker()
    motion.init(picture((90, 60, 64)), boxes((90, 60, 64)))
    assert motion.update(after()) is None, what


def test_nobody_stays_nobody_and_small_faces_are_not_followed() -> None:
    motion = TemplateTracker()
    assert motion.update(picture()) is None, "nothing is known before the first look"
    motion.init(picture(), Detections.none())
    moved = motion.update(picture((90, 60, 64)))
    assert moved is not None
    assert len(moved) == 0
    motion.init(picture((90, 60, 6)), boxes((90, 60, 6)))
    assert motion.update(picture((90, 60, 6))) is None


@given(
    box=st.tuples(*[st.floats(-500, 800)] * 4),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_any_box_in_any_picture_gives_a_finite_box_or_none(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    gray = texture(5, *size)
    motion = TemplateTracker()
    motion.init(gray, Detections(np.array([box], np.float32), np.ones(1, np.float32)))
    moved = motion.update(gray)
    assert moved is None or np.isfinite(moved.xyxy).all()
