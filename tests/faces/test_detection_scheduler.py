"""When the detector looks: regularly, and wherever following cannot tell."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fer_stream.faces.detection_scheduler import DetectionScheduler
from fer_stream.records import I64, U8, Detections

FPS = 24.0
GRAY: U8 = np.asarray(
    cv2.resize(np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8), (320, 240)), np.uint8
)


def found(*confidences: float) -> Detections:
    xyxy = np.array([(40 + 90 * n, 60, 100 + 90 * n, 120) for n in range(len(confidences))], np.float32)
    return Detections(xyxy.reshape(-1, 4), np.array(confidences, np.float32))


def looks(every_s: float, seen: list[tuple[Detections, list[int]]], frames: int = 24) -> list[int]:
    """The frames that are looked at; the n-th look shows `seen[n]`, later ones the last of these."""
    between, at = DetectionScheduler(interval_s=every_s, min_confidence=0.7), list[int]()
    for index in range(frames):
        if between.propagate(GRAY, index / FPS) is None:
            detections, ids = seen[min(len(at), len(seen) - 1)]
            between.update(GRAY, index / FPS, detections, track_ids(ids))
            at.append(index)
    return at


def track_ids(ids: list[int]) -> I64:
    return np.array(ids, np.int64)


def test_a_sure_face_is_looked_at_every_so_often() -> None:
    assert looks(0.25, [(found(0.9), [1])]) == [0, 1, 7, 13, 19]


def test_at_zero_every_frame_is_looked_at() -> None:
    assert looks(0, [(found(0.9), [1])]) == list(range(24))


def test_an_empty_picture_is_looked_at_every_so_often() -> None:
    assert looks(0.25, [(found(), [])]) == [0, 6, 12, 18]


@pytest.mark.parametrize(
    ("what", "sight"),
    [
        ("open", (found(0.9, 0.9), [1, -1])),
        ("missing", (found(), [])),
        ("new", (found(0.9, 0.9), [1, 2])),
        ("unsure", (found(0.6), [1])),
    ],
)
def test_what_following_cannot_tell_is_looked_at_in_the_next_frame(
    what: str, sight: tuple[Detections, list[int]]
) -> None:
    usual = (found(0.9), [1])
    assert looks(0.25, [usual, usual, sight, usual, usual])[:4] == [0, 1, 7, 8], what


def test_after_a_cut_the_next_frame_is_looked_at() -> None:
    between = DetectionScheduler(interval_s=0.5, min_confidence=0.7)
    for index in (0, 1):
        between.update(GRAY, index / FPS, found(0.9), track_ids([1]))
    assert between.propagate(GRAY, 2 / FPS) is not None
    between.reset()
    assert between.propagate(GRAY, 3 / FPS) is None


def test_the_faces_in_between_are_those_of_known_persons() -> None:
    between = DetectionScheduler(interval_s=0.5, min_confidence=0.0)
    for index in (0, 1):
        between.update(GRAY, index / FPS, found(0.9, 0.9), track_ids([3, 5]))
    moved = between.propagate(GRAY, 2 / FPS)
    assert moved is not None
    assert moved.track_ids.tolist() == [3, 5]
    np.testing.assert_allclose(moved.detections.xyxy, found(0.9, 0.9).xyxy, atol=0.5)
