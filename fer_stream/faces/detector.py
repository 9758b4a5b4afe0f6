"""The interface of face detectors, and wrappers that hold for every detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fer_stream.records import U8, Detections

if TYPE_CHECKING:
    from fer_stream.faces.crop import CropGeometry

Zone = tuple[float, float, float, float]
"""Left, top, right and bottom of an area as fractions 0..1 of the frame."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Properties of a detector that the steps after detection depend on."""

    name: str
    """Detector and weights, as in `yunet-2023mar`; part of the metadata of results."""
    crop_geometry: CropGeometry
    """Position of the crop relative to the detector's boxes."""
    high_confidence: float = 0.6
    """Confidence from which ByteTrack associates a detection first and may start a track with it. The default is
    the value of the ByteTrack paper."""


class FaceDetector(Protocol):
    """Finds the faces in a frame."""

    @property
    def spec(self) -> DetectorSpec:
        """Name, crop geometry and thresholds of the detector."""
        ...

    def detect(self, image: U8) -> Detections:
        """Return the faces in `image`, uint8 (H, W, 3) BGR of any size from 1×1, most confident first.

        Boxes are in px of `image` and extend beyond its edge if the face does.
        """
        ...


class SynchronizedDetector:
    """Makes a detector safe for use by several threads: one call at a time."""

    def __init__(self, detector: FaceDetector) -> None:
        self.spec = detector.spec
        self._detector = detector
        self._lock = Lock()

    def detect(self, image: U8) -> Detections:
        """See `FaceDetector.detect`."""
        with self._lock:
            return self._detector.detect(image)


class ZoneFilter:
    """Removes detections whose centre lies in one of `zones`, for example on a poster or a screen."""

    def __init__(self, detector: FaceDetector, zones: Sequence[Zone]) -> None:
        self.spec = detector.spec
        self._detector = detector
        self._zones = np.array(zones, np.float32).reshape(-1, 4)

    def detect(self, image: U8) -> Detections:
        """See `FaceDetector.detect`."""
        found = self._detector.detect(image)
        size = np.array([image.shape[1], image.shape[0]], np.float32)
        centre = (found.xyxy[:, None, :2] + found.xyxy[:, None, 2:]) / (2 * size)
        inside = np.all((centre >= self._zones[:, :2]) & (centre <= self._zones[:, 2:]), axis=2)
        keep = ~np.any(inside, axis=1)
        landmarks = None if found.landmarks is None else found.landmarks[keep]
        return Detections(found.xyxy[keep], found.confidence[keep], landmarks)
