"""Regions of redaction and their contents."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.outputs.redaction import REDACTION_HOLD_S, Redaction, redact_region, with_redactions
from fer_stream.records import F32, U8, LabelledFace, LabelledFrame, Quality

FPS = 10.0
EVERYONE = Redaction("blur")


def _face(person: int, left: float) -> LabelledFace:
    probs = np.full(7, 1 / 7, np.float32)
    box = np.array([left, 10, left + 20, 40], np.float32)
    return LabelledFace(person, box, 0.9, Quality(1.0, "ok"), probs, probs, "happy")


def _frames(*seen: dict[int, float]) -> list[LabelledFrame]:
    """Return one frame per argument, which maps each person to the left edge of the face."""
    return [
        LabelledFrame("s@1", index, index / FPS, tuple(_face(person, left) for person, left in faces.items()))
        for index, faces in enumerate(seen)
    ]


def _lefts(frames: list[LabelledFrame], redaction: Redaction | None = EVERYONE) -> list[list[float]]:
    return [sorted(float(box[0]) for box in regions) for _, regions in with_redactions(frames, redaction)]


def test_without_redaction_frames_are_not_delayed() -> None:
    frames = iter(_frames({1: 0}, {}, {1: 5}))
    first = next(with_redactions(frames, None))
    assert first[0].index == 0
    assert first[1] == []
    assert next(frames).index == 1


def test_region_moves_between_two_detections() -> None:
    assert _lefts(_frames({1: 0}, {}, {}, {}, {1: 40})) == [[0], [10], [20], [30], [40]]


def test_face_is_redacted_before_its_first_and_after_its_last_detection() -> None:
    regions = _lefts(_frames(*[{}] * 8, {1: 7}, *[{}] * 8))
    assert regions == [*[[]] * 3, *[[7.0]] * 11, *[[]] * 3]


def test_only_the_middle_of_a_long_absence_is_not_redacted() -> None:
    regions = _lefts(_frames({1: 0}, *[{}] * 13, {1: 9}))
    assert regions == [*[[0.0]] * 6, *[[]] * 3, *[[9.0]] * 6]


def test_only_selected_people_are_redacted() -> None:
    frames = _frames({1: 0, 2: 50}, {}, {1: 4, 2: 54})
    assert _lefts(frames, Redaction("black", frozenset({2}))) == [[50], [52], [54]]
    assert _lefts(frames) == [[0, 50], [2, 52], [4, 54]]


sightings = st.lists(st.dictionaries(st.integers(1, 3), st.floats(0, 100, width=32), max_size=3), max_size=60)


@given(sightings)
def test_every_frame_is_returned_once_and_every_detection_redacted(seen: list[dict[int, float]]) -> None:
    frames = _frames(*seen)
    redacted = list(with_redactions(frames, EVERYONE))
    assert [frame.index for frame, _ in redacted] == list(range(len(frames)))
    for frame, regions in redacted:
        boxes = {tuple(box.tolist()) for box in regions}
        assert {tuple(face.xyxy.tolist()) for face in frame.faces} <= boxes


@given(sightings)
def test_every_frame_of_a_short_gap_is_redacted(seen: list[dict[int, float]]) -> None:
    frames = _frames(*seen)
    unredacted = [not regions for _, regions in with_redactions(frames, EVERYONE)]
    for person in (1, 2, 3):
        detected = [frame.index for frame in frames if any(face.person_id == person for face in frame.faces)]
        for before, after in pairwise(detected):
            if (after - before) / FPS <= REDACTION_HOLD_S:
                assert not any(unredacted[before:after])


def _noise(height: int = 120, width: int = 160) -> U8:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["blur", "black"])
def test_region_is_the_box_with_a_margin(kind: str) -> None:
    image, before = _noise(), _noise()
    redact_region(image, np.array([60, 40, 100, 80], np.float32), "blur" if kind == "blur" else "black")
    changed = (image != before).any(axis=2)
    assert changed[28:92, 48:112].mean() > 0.99
    changed[28:92, 48:112] = False
    assert not changed.any()


def test_black_regions_are_black() -> None:
    image = _noise()
    redact_region(image, np.array([60, 40, 100, 80], np.float32), "black")
    assert not image[28:92, 48:112].any()


def test_blur_keeps_no_detail_finer_than_an_eighth() -> None:
    """Two faces with equal means in each eighth are identical when blurred."""
    face = _noise(80, 80)
    other = face.copy()
    for row in range(0, 80, 10):
        for column in range(0, 80, 10):
            other[row : row + 10, column : column + 10] = face[row : row + 10, column : column + 10][::-1, ::-1]
    assert (face != other).mean() > 0.9
    box = np.array([15, 15, 65, 65], np.float32)
    redact_region(face, box, "blur")
    redact_region(other, box, "blur")
    assert np.array_equal(face, other)


@pytest.mark.parametrize(
    "box",
    [(-50, -50, 10, 10), (150, 110, 300, 300), (-500, -500, -400, -400), (5, 5, 5, 5), (80, 60, 81, 61)],
)
@pytest.mark.parametrize("kind", ["blur", "black"])
def test_regions_at_or_beyond_the_edge(kind: str, box: tuple[float, ...]) -> None:
    image = _noise()
    redact_region(image, np.array(box, np.float32), "blur" if kind == "blur" else "black")
    assert image.shape == (120, 160, 3)


def test_blurred_gradient_keeps_its_mean(gradient: Callable[[int, int], U8]) -> None:
    image = gradient(160, 120)
    mean = image[28:92, 48:112].mean()
    box: F32 = np.array([60, 40, 100, 80], np.float32)
    redact_region(image, box, "blur")
    assert image[28:92, 48:112].mean() == pytest.approx(mean, abs=2)
