"""Scheduling of detections: at an interval, and after events that tracking cannot handle."""

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


def detections(*confidences: float) -> Detections:
    xyxy = np.array([(40 + 90 * n, 60, 100 + 90 * n, 120) for n in range(len(confidences))], np.float32)
    return Detections(xyxy.reshape(-1, 4), np.array(confidences, np.float32))


def detection_frames(interval_s: float, results: list[tuple[Detections, list[int]]], frames: int = 24) -> list[int]:
    """Return the frames in which detection runs; the n-th detection gives `results[n]` or the last of them."""
    scheduler, detected = DetectionScheduler(interval_s=interval_s, min_confidence=0.7), list[int]()
    for index in range(frames):
        if scheduler.propagate(GRAY, index / FPS) is None:
            found, ids = results[min(len(detected), len(results) - 1)]
            scheduler.update(GRAY, index / FPS, found, person_ids(ids))
            detected.append(index)
    return detected


def person_ids(ids: list[int]) -> I64:
    return np.array(ids, np.int64)


def test_detection_runs_at_the_interval() -> None:
    assert detection_frames(0.25, [(detections(0.9), [1])]) == [0, 1, 7, 13, 19]


def test_an_interval_of_0_detects_in_every_frame() -> None:
    assert detection_frames(0, [(detections(0.9), [1])]) == list(range(24))


def test_detection_runs_at_the_interval_without_faces() -> None:
    assert detection_frames(0.25, [(detections(), [])]) == [0, 6, 12, 18]


@pytest.mark.parametrize(
    ("event", "result"),
    [
        ("tentative", (detections(0.9, 0.9), [1, -1])),
        ("disappeared", (detections(), [])),
        ("appeared", (detections(0.9, 0.9), [1, 2])),
        ("low confidence", (detections(0.6), [1])),
    ],
)
def test_detection_runs_in_the_frame_after_an_event(event: str, result: tuple[Detections, list[int]]) -> None:
    usual = (detections(0.9), [1])
    assert detection_frames(0.25, [usual, usual, result, usual, usual])[:4] == [0, 1, 7, 8], event


def test_detection_runs_after_a_reset() -> None:
    scheduler = DetectionScheduler(interval_s=0.5, min_confidence=0.7)
    for index in (0, 1):
        scheduler.update(GRAY, index / FPS, detections(0.9), person_ids([1]))
    assert scheduler.propagate(GRAY, 2 / FPS) is not None
    scheduler.reset()
    assert scheduler.propagate(GRAY, 3 / FPS) is None


def test_propagated_faces_are_those_with_a_person_id() -> None:
    scheduler = DetectionScheduler(interval_s=0.5, min_confidence=0.0)
    for index in (0, 1):
        scheduler.update(GRAY, index / FPS, detections(0.9, 0.9), person_ids([3, 5]))
    propagated = scheduler.propagate(GRAY, 2 / FPS)
    assert propagated is not None
    assert propagated.person_ids.tolist() == [3, 5]
    np.testing.assert_allclose(propagated.detections.xyxy, detections(0.9, 0.9).xyxy, atol=0.5)
