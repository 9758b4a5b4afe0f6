"""What a face detector is."""

from __future__ import annotations

from threading import Lock
from typing import Protocol

from fer_stream.records import U8, Detections


class FaceDetector(Protocol):
    """Finds the faces of a picture."""

    name: str
    """For metadata: the detector and its weights, as in `yunet-2023mar`."""

    def detect(self, image: U8) -> Detections:
        """The faces of `image`, uint8 (H, W, 3) BGR of any size from 1×1, most confident first.

        Boxes are px of `image` and may reach over its edge where a face does.
        """
        ...


class SynchronizedDetector:
    """A detector that several threads may share: they wait for each other."""

    def __init__(self, detector: FaceDetector) -> None:
        self.name = detector.name
        self._detector = detector
        self._lock = Lock()

    def detect(self, image: U8) -> Detections:
        """As `FaceDetector.detect`."""
        with self._lock:
            return self._detector.detect(image)
