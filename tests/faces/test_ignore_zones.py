"""Faces in ignored parts of the picture."""

from __future__ import annotations

import numpy as np

from fer_stream.faces.ignore_zones import Zone, ZoneFilter
from fer_stream.records import U8, Detections

PICTURE: U8 = np.zeros((100, 200, 3), np.uint8)


class TwoFaces:
    """One face on the left, one on the right."""

    name = "two"

    def detect(self, image: U8) -> Detections:
        boxes = np.array([[10, 40, 30, 60], [150, 40, 190, 60]], np.float32)
        return Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros((2, 5, 2), np.float32))


def seen(*zones: Zone) -> list[float]:
    found = ZoneFilter(TwoFaces(), zones).detect(PICTURE)
    assert found.landmarks is not None
    assert len(found.confidence) == len(found.landmarks) == len(found)
    return [float(x) for x in found.xyxy[:, 0]]


def test_without_zones_everything_is_seen() -> None:
    assert seen() == [10, 150]


def test_a_face_is_ignored_where_its_middle_is() -> None:
    assert seen((0, 0, 0.5, 1)) == [150]
    assert seen((0, 0, 0.09, 1)) == [10, 150]
    assert seen((0, 0, 0.2, 1), (0.7, 0.3, 1, 0.7)) == []
