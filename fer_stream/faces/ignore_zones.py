"""Parts of the picture in which faces are ignored: a poster, a screen, the neighbour's garden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_stream.faces.detector import FaceDetector
from fer_stream.records import U8, Detections

Zone = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions 0..1 of the picture."""


class ZoneFilter:
    """A detector that does not see the faces whose middle lies in one of `zones`."""

    def __init__(self, detector: FaceDetector, zones: Sequence[Zone]) -> None:
        self.name = detector.name
        self._detector = detector
        self._zones = np.array(zones, np.float32).reshape(-1, 4)

    def detect(self, image: U8) -> Detections:
        """As `FaceDetector.detect`."""
        found = self._detector.detect(image)
        size = np.array([image.shape[1], image.shape[0]], np.float32)
        middle = (found.xyxy[:, None, :2] + found.xyxy[:, None, 2:]) / (2 * size)
        within = np.all((middle >= self._zones[:, :2]) & (middle <= self._zones[:, 2:]), axis=2)
        inside = np.any(within, axis=1)
        landmarks = None if found.landmarks is None else found.landmarks[~inside]
        return Detections(found.xyxy[~inside], found.confidence[~inside], landmarks)
