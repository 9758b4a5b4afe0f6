"""ByteTrack: start, continuation and end of tracks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config.settings import TrackerSettings
from fer_stream.faces.bytetrack import ByteTrack
from fer_stream.records import F32, Detections

STEP_S = 0.15
"""Interval between detections."""
HIGH_CONFIDENCE = 0.6

Box = tuple[float, float, float]


def found(*boxes: Box, confidence: float = 0.9) -> Detections:
    """Return square boxes, given as centre x, centre y, side."""
    xyxy: F32 = np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in boxes], np.float32)
    return Detections(xyxy.reshape(-1, 4), np.full(len(boxes), confidence, np.float32))


def track(*frames: Detections, step_s: float = STEP_S) -> list[list[int]]:
    tracker = ByteTrack(TrackerSettings(), HIGH_CONFIDENCE)
    return [tracker.update(detections, index * step_s).tolist() for index, detections in enumerate(frames)]


def test_a_track_gets_its_id_with_the_second_detection() -> None:
    assert track(*[found((100, 100, 40))] * 3) == [[-1], [0], [0]]


def test_ids_are_in_the_order_of_the_detections() -> None:
    three = found((60, 100, 40), (160, 100, 40), (260, 100, 40))
    assert track(three, three)[-1] == [0, 1, 2]


def test_a_low_confidence_detection_continues_a_track_but_starts_none() -> None:
    here, low = found((100, 100, 40)), found((100, 100, 40), confidence=0.3)
    assert track(here, here, low, low, here)[2:] == [[0], [0], [0]]
    assert track(low, low, low) == [[-1], [-1], [-1]]


def test_high_confidence_is_associated_before_low_confidence_with_higher_iou() -> None:
    here = found((100, 100, 40))
    both = Detections(
        np.concatenate([found((100, 100, 40)).xyxy, found((108, 100, 40)).xyxy]), np.array([0.3, 0.9], np.float32)
    )
    assert track(here, here, both)[-1] == [-1, 0]


@pytest.mark.parametrize("speed_px", [6, 24])
def test_a_track_is_continued_at_its_predicted_position_after_missed_detections(speed_px: float) -> None:
    walk = [found((60 + speed_px * index, 100, 40)) for index in range(12)]
    walk[8:11] = [Detections.none()] * 3
    assert track(*walk)[-1] == [0]


def test_a_track_ends_after_the_track_timeout() -> None:
    here, nothing = found((100, 100, 40)), Detections.none()
    away = round(TrackerSettings().track_timeout_s / STEP_S)
    assert track(here, here, *[nothing] * (away - 2), here)[-1] == [0]
    assert track(here, here, *[nothing] * (away + 1), here, here)[-1] == [1]


def test_updates_may_have_the_same_time() -> None:
    here = found((100, 100, 40))
    assert track(here, here, here, step_s=0.0) == [[-1], [0], [0]]


def test_two_faces_that_pass_each_other_keep_their_ids() -> None:
    frames = [found((40 + 12 * index, 100, 40), (280 - 12 * index, 130, 40)) for index in range(20)]
    assert track(*frames)[1:] == [[0, 1]] * 19


boxes = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(0, 200)), max_size=6)


@given(frames=st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=20))
def test_no_id_occurs_twice_in_a_frame(frames: list[tuple[list[Box], float]]) -> None:
    for ids in track(*[found(*some, confidence=confidence) for some, confidence in frames]):
        assigned = [track_id for track_id in ids if track_id >= 0]
        assert len(assigned) == len(set(assigned))
