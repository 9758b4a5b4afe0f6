"""Wrappers that hold for every detector: ignore zones, and use by several threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fer_stream.faces.crop import CropGeometry
from fer_stream.faces.detector import DetectorSpec, InputSpec, SynchronizedDetector, Zone, ZoneFilter
from fer_stream.records import U8, Detections

FRAME: U8 = np.zeros((100, 200, 3), np.uint8)
SPEC = DetectorSpec("two", CropGeometry(scale=1, y_offset=0), InputSpec(320, 1280, 1280, 16_384, 16.0))


class TwoFaces:
    """Finds one face on the left and one on the right."""

    spec = SPEC

    def detect(self, image: U8, input_size_px: int | None = None) -> Detections:
        boxes = np.array([[10, 40, 30, 60], [150, 40, 190, 60]], np.float32)
        return Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros((2, 5, 2), np.float32))


class NotReentrant:
    """Counts calls of `detect`, and those that begin during another one."""

    spec = SPEC

    def __init__(self) -> None:
        self.calls = 0
        self.overlapping = 0
        self._running = threading.Lock()

    def detect(self, image: U8, input_size_px: int | None = None) -> Detections:
        self.calls += 1
        if not self._running.acquire(blocking=False):
            self.overlapping += 1
            return Detections.none()
        time.sleep(0.001)  # lets other threads run
        self._running.release()
        return Detections.none()


def left_edges(*zones: Zone) -> list[float]:
    found = ZoneFilter(TwoFaces(), zones).detect(FRAME)
    assert found.landmarks is not None
    assert len(found.confidence) == len(found.landmarks) == len(found)
    return [float(x) for x in found.xyxy[:, 0]]


def test_without_zones_all_faces_are_kept() -> None:
    assert left_edges() == [10, 150]


def test_faces_with_their_centre_in_a_zone_are_removed() -> None:
    assert left_edges((0, 0, 0.5, 1)) == [150]
    assert left_edges((0, 0, 0.09, 1)) == [10, 150]
    assert left_edges((0, 0, 0.2, 1), (0.7, 0.3, 1, 0.7)) == []


def test_a_synchronized_detector_runs_one_call_at_a_time() -> None:
    inner = NotReentrant()
    detector = SynchronizedDetector(inner)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: detector.detect(FRAME), range(40)))
    assert (inner.calls, inner.overlapping) == (40, 0)


def test_wrappers_keep_the_spec_of_their_detector() -> None:
    assert ZoneFilter(SynchronizedDetector(TwoFaces()), ()).spec is SPEC
