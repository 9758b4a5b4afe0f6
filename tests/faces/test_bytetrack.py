"""The box tracker alone: what begins a track, what prolongs it, and what ends it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config import TrackerSettings
from fer_stream.faces.bytetrack import ByteTrack
from fer_stream.records import F32, Detections

STEP_S = 0.15
"""From one look of the detector to the next."""

Box = tuple[float, float, float]


def found(*boxes: Box, confidence: float = 0.9) -> Detections:
    """Square boxes given as centre x, centre y, side."""
    xyxy: F32 = np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in boxes], np.float32)
    return Detections(xyxy.reshape(-1, 4), np.full(len(boxes), confidence, np.float32))


def follow(*looks: Detections, step_s: float = STEP_S) -> list[list[int]]:
    tracker = ByteTrack(TrackerSettings())
    return [tracker.update(detections, index * step_s).tolist() for index, detections in enumerate(looks)]


def test_what_is_seen_twice_has_a_number() -> None:
    assert follow(*[found((100, 100, 40))] * 3) == [[-1], [0], [0]]


def test_numbers_follow_the_order_of_the_detections() -> None:
    three = found((60, 100, 40), (160, 100, 40), (260, 100, 40))
    assert follow(three, three)[-1] == [0, 1, 2]


def test_an_unsure_detection_prolongs_a_track_and_begins_none() -> None:
    here, unsure = found((100, 100, 40)), found((100, 100, 40), confidence=0.3)
    assert follow(here, here, unsure, unsure, here)[2:] == [[0], [0], [0]]
    assert follow(unsure, unsure, unsure) == [[-1], [-1], [-1]]


def test_a_sure_detection_goes_before_an_unsure_one_that_overlaps_more() -> None:
    here = found((100, 100, 40))
    both = Detections(
        np.concatenate([found((100, 100, 40)).xyxy, found((108, 100, 40)).xyxy]), np.array([0.3, 0.9], np.float32)
    )
    assert follow(here, here, both)[-1] == [-1, 0]


@pytest.mark.parametrize("speed_px", [6, 24])
def test_a_face_that_walks_on_unseen_is_known_where_it_must_be(speed_px: float) -> None:
    walk = [found((60 + speed_px * index, 100, 40)) for index in range(12)]
    walk[8:11] = [Detections.none()] * 3
    assert follow(*walk)[-1] == [0]


def test_who_was_lost_for_longer_than_the_settings_say_is_somebody_else() -> None:
    here, nobody = found((100, 100, 40)), Detections.none()
    away = round(TrackerSettings().track_timeout_s / STEP_S)
    assert follow(here, here, *[nobody] * (away - 2), here)[-1] == [0]
    assert follow(here, here, *[nobody] * (away + 1), here, here)[-1] == [1]


def test_two_looks_at_the_same_time_are_one_moment() -> None:
    here = found((100, 100, 40))
    assert follow(here, here, here, step_s=0.0) == [[-1], [0], [0]]


def test_two_who_pass_each_other_keep_their_numbers() -> None:
    looks = [found((40 + 12 * index, 100, 40), (280 - 12 * index, 130, 40)) for index in range(20)]
    assert follow(*looks)[1:] == [[0, 1]] * 19


boxes = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(0, 200)), max_size=6)


@given(looks=st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=20))
def test_whatever_is_found_a_number_is_given_once_a_look(looks: list[tuple[list[Box], float]]) -> None:
    for numbers in follow(*[found(*some, confidence=confidence) for some, confidence in looks]):
        given_ = [number for number in numbers if number >= 0]
        assert len(given_) == len(set(given_))
