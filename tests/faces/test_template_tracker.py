"""Tracking by template matching: positions, and detection of loss."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.detection_scheduler import TemplateTracker
from fer_stream.records import U8, Detections

HEIGHT, WIDTH = 240, 320


def texture(seed: int, height: int, width: int) -> U8:
    """Return smooth noise with six or more cells per side, like faces and rooms."""
    cell = max(1, min(height, width) // 6)
    coarse = np.random.default_rng(seed).integers(0, 256, (height // cell, width // cell), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def make_frame(*faces: tuple[int, int, int]) -> U8:
    """Return a frame with faces at (left, top, side); the n-th face always has the same texture."""
    gray = texture(99, HEIGHT, WIDTH)
    for seed, (left, top, side) in enumerate(faces):
        gray[top : top + side, left : left + side] = texture(seed, side, side)
    return gray


def boxes(*faces: tuple[int, int, int]) -> Detections:
    xyxy = np.array([(x, y, x + side, y + side) for x, y, side in faces], np.float32).reshape(-1, 4)
    landmarks = xyxy[:, None, :2] + np.float32(5) * np.ones((1, 5, 2), np.float32)
    return Detections(xyxy, np.full(len(xyxy), 0.9, np.float32), landmarks)


steps = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=6)


@given(side=st.sampled_from([30, 64, 110]), steps=steps)
def test_a_moving_face_is_tracked(side: int, steps: list[tuple[int, int]]) -> None:
    x, y = 90, 60
    tracker = TemplateTracker()
    tracker.init(make_frame((x, y, side)), boxes((x, y, side)))
    for dx, dy in steps:
        x, y = x + dx, y + dy
        tracked = tracker.update(make_frame((x, y, side)))
        assert tracked is not None
        np.testing.assert_allclose(tracked.xyxy, boxes((x, y, side)).xyxy, atol=1.0)
        assert tracked.landmarks is not None
        np.testing.assert_allclose(tracked.landmarks[0, 0], (x + 5, y + 5), atol=1.0)


def test_faces_that_pass_each_other_keep_their_order_and_confidence() -> None:
    tracker = TemplateTracker()
    tracker.init(make_frame((40, 20, 60), (200, 120, 60)), boxes((40, 20, 60), (200, 120, 60)))
    for step in range(1, 6):
        a, b = (40 + 10 * step, 20, 60), (200 - 10 * step, 120, 60)
        tracked = tracker.update(make_frame(a, b))
        assert tracked is not None
        np.testing.assert_allclose(tracked.xyxy, boxes(a, b).xyxy, atol=1.0)
        assert tracked.confidence.tolist() == pytest.approx([0.9, 0.9])


@pytest.mark.parametrize(
    ("reason", "after"),
    [
        ("gone", lambda: make_frame()),
        ("another face", lambda: make_frame((250, 150, 20), (90, 60, 64))),
        ("too far away", lambda: make_frame((200, 150, 64))),
        ("another frame size", lambda: make_frame((90, 60, 64))[:-2]),
        ("a black frame", lambda: np.zeros((HEIGHT, WIDTH), np.uint8)),
    ],
)
def test_a_lost_face_is_reported(reason: str, after: Callable[[], U8]) -> None:
    tracker = TemplateTracker()
    tracker.init(make_frame((90, 60, 64)), boxes((90, 60, 64)))
    assert tracker.update(after()) is None, reason


def test_no_faces_remain_no_faces_and_small_faces_are_not_tracked() -> None:
    tracker = TemplateTracker()
    assert tracker.update(make_frame()) is None, "not initialised"
    tracker.init(make_frame(), Detections.none())
    tracked = tracker.update(make_frame((90, 60, 64)))
    assert tracked is not None
    assert len(tracked) == 0
    tracker.init(make_frame((90, 60, 6)), boxes((90, 60, 6)))
    assert tracker.update(make_frame((90, 60, 6))) is None


@given(
    box=st.tuples(*[st.floats(-500, 800)] * 4),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_any_box_gives_a_finite_box_or_none(box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    gray = texture(5, *size)
    tracker = TemplateTracker()
    tracker.init(gray, Detections(np.array([box], np.float32), np.ones(1, np.float32)))
    tracked = tracker.update(gray)
    assert tracked is None or np.isfinite(tracked.xyxy).all()
