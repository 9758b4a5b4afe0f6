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
EVERYBODY = Redaction("blur")


def _face(person: int, left: float) -> LabelledFace:
    probs = np.full(7, 1 / 7, np.float32)
    box = np.array([left, 10, left + 20, 40], np.float32)
    return LabelledFace(person, box, 0.9, Quality(1.0, "ok"), probs, probs, "happy")


def _frames(*seen: dict[int, float]) -> list[LabelledFrame]:
    """One frame per argument, which maps each person in it to the left edge of the face."""
    return [
        LabelledFrame("s@1", index, index / FPS, tuple(_face(person, left) for person, left in faces.items()))
        for index, faces in enumerate(seen)
    ]


def _lefts(frames: list[LabelledFrame], redaction: Redaction | None = EVERYBODY) -> list[list[float]]:
    return [sorted(float(box[0]) for box in covers) for _, covers in with_redactions(frames, redaction)]


def test_without_redaction_every_frame_passes_at_once_and_bare() -> None:
    frames = iter(_frames({1: 0}, {}, {1: 5}))
    first = next(with_redactions(frames, None))
    assert first[0].index == 0
    assert first[1] == []
    assert next(frames).index == 1


def test_a_gap_is_covered_on_the_way_from_one_detection_to_the_next() -> None:
    assert _lefts(_frames({1: 0}, {}, {}, {}, {1: 40})) == [[0], [10], [20], [30], [40]]


def test_a_face_is_covered_before_its_first_and_after_its_last_detection() -> None:
    covers = _lefts(_frames(*[{}] * 8, {1: 7}, *[{}] * 8))
    assert covers == [*[[]] * 3, *[[7.0]] * 11, *[[]] * 3]


def test_a_long_absence_is_bare_in_the_middle_only() -> None:
    covers = _lefts(_frames({1: 0}, *[{}] * 13, {1: 9}))
    assert covers == [*[[0.0]] * 6, *[[]] * 3, *[[9.0]] * 6]


def test_only_the_given_people_are_covered() -> None:
    frames = _frames({1: 0, 2: 50}, {}, {1: 4, 2: 54})
    assert _lefts(frames, Redaction("black", frozenset({2}))) == [[50], [52], [54]]
    assert _lefts(frames) == [[0, 50], [2, 52], [4, 54]]


sightings = st.lists(st.dictionaries(st.integers(1, 3), st.floats(0, 100, width=32), max_size=3), max_size=60)


@given(sightings)
def test_every_frame_leaves_once_and_every_detection_is_covered(seen: list[dict[int, float]]) -> None:
    frames = _frames(*seen)
    settled = list(with_redactions(frames, EVERYBODY))
    assert [frame.index for frame, _ in settled] == list(range(len(frames)))
    for frame, covers in settled:
        boxes = {tuple(box.tolist()) for box in covers}
        assert {tuple(face.xyxy.tolist()) for face in frame.faces} <= boxes


@given(sightings)
def test_no_frame_of_a_short_gap_is_bare(seen: list[dict[int, float]]) -> None:
    frames = _frames(*seen)
    bare = [not covers for _, covers in with_redactions(frames, EVERYBODY)]
    for person in (1, 2, 3):
        found = [frame.index for frame in frames if any(face.person_id == person for face in frame.faces)]
        for before, after in pairwise(found):
            if (after - before) / FPS <= REDACTION_HOLD_S:
                assert not any(bare[before:after])


def _noise(height: int = 120, width: int = 160) -> U8:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["blur", "black"])
def test_a_cover_reaches_over_the_box_and_no_further(kind: str) -> None:
    image, before = _noise(), _noise()
    redact_region(image, np.array([60, 40, 100, 80], np.float32), "blur" if kind == "blur" else "black")
    changed = (image != before).any(axis=2)
    assert changed[28:92, 48:112].mean() > 0.99
    changed[28:92, 48:112] = False
    assert not changed.any()


def test_black_is_black() -> None:
    image = _noise()
    redact_region(image, np.array([60, 40, 100, 80], np.float32), "black")
    assert not image[28:92, 48:112].any()


def test_of_a_blurred_face_nothing_finer_than_an_eighth_is_left() -> None:
    """Two faces with the same eighths, whatever else tells them apart, look the same when blurred."""
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
def test_covers_at_the_edge_and_beyond_do_no_harm(kind: str, box: tuple[float, ...]) -> None:
    image = _noise()
    redact_region(image, np.array(box, np.float32), "blur" if kind == "blur" else "black")
    assert image.shape == (120, 160, 3)


def test_cover_on_a_gradient_keeps_its_mean(gradient: Callable[[int, int], U8]) -> None:
    image = gradient(160, 120)
    mean = image[28:92, 48:112].mean()
    box: F32 = np.array([60, 40, 100, 80], np.float32)
    redact_region(image, box, "blur")
    assert image[28:92, 48:112].mean() == pytest.approx(mean, abs=2)
