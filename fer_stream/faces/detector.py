"""Interface of face detectors, wrappers that apply to every detector, and the geometry of boxes.

A box is (x1, y1, x2, y2) in px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_stream.records import U8, Detections

if TYPE_CHECKING:
    from fer_stream.faces.crop import CropGeometry
    from fer_stream.records import F32, F64, I64


_TINY = np.finfo(np.float64).tiny

Boxes = NDArray[np.floating[Any]]


def areas(boxes: Boxes) -> F64:
    """Return the areas of boxes (…, 4) in px², float64 (…,)."""
    result: F64 = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1, dtype=np.float64)
    return result


def iou_matrix(a: Boxes, b: Boxes) -> F64:
    """Return the intersection over union of each box in `a` (n, 4) with each box in `b` (m, 4), float64 (n, m).

    The IoU of boxes without an area is 0.
    """
    rows, columns = a[:, np.newaxis].astype(np.float64), b.astype(np.float64)
    sides = np.minimum(rows[..., 2:], columns[:, 2:]) - np.maximum(rows[..., :2], columns[:, :2])
    intersection = np.maximum(sides, 0.0).prod(axis=-1)
    union = areas(rows) + areas(columns) - intersection
    result: F64 = intersection / np.maximum(union, _TINY)
    return result


def nms(boxes: F32, confidence: F32, max_iou: float) -> list[int]:
    """Return the rows of the boxes (n, 4) that remain after greedy non-maximum suppression, most confident first.

    A box is suppressed if its IoU with a more confident remaining box exceeds `max_iou`. `confidence` (n,) must be
    positive.
    """
    rectangles = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]))
    return list(cv2.dnn.NMSBoxes(rectangles.tolist(), confidence.tolist(), 0.0, max_iou))


def nms_groups(boxes: F32, confidence: F32, max_iou: float) -> list[I64]:
    """Return for each box that `nms` keeps, in the same order, its row and the rows that it suppresses, int64.

    The rows of a group are sorted by `confidence`, the highest first.
    """
    kept = nms(boxes, confidence, max_iou)
    if not kept:
        return []
    overlapping = iou_matrix(boxes[kept], boxes) > max_iou
    overlapping[:, kept] = np.eye(len(kept), dtype=bool)
    first = overlapping & (overlapping.cumsum(axis=0) == 1)
    order = np.argsort(-confidence, kind="stable")
    return [order[row[order]] for row in first]


Zone = tuple[float, float, float, float]
"""Left, top, right and bottom of an area as fractions 0..1 of the frame."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Sizes of a network's input: long sides in px."""

    default_px: int
    """Size at which every frame is examined."""
    max_px: int
    """Maximum size of one input; larger images are examined in tiles."""
    max_video_px: int
    """Maximum size at which a frame of a video is examined, for its cost."""
    max_image_px: int
    """Maximum size at which a still image is examined, for its cost."""
    smallest_face_px: float
    """Side of a face, in px of the input, from which the network finds more than half."""
    any_size: bool = False
    """Whether an explicit size may exceed `max_px`, because the network accepts any size."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Properties of a detector that the steps after detection depend on."""

    name: str
    """Detector and weights, as in `yunet-2023mar`; part of the metadata of results."""
    crop_geometry: CropGeometry
    """Position of the crop relative to the detector's boxes."""
    inputs: InputSpec
    """Sizes of the network's input."""
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


class FaceNetwork(Protocol):
    """A face detector that can examine an image at another size than its default."""

    @property
    def spec(self) -> DetectorSpec:
        """Name, input sizes, crop geometry and thresholds."""
        ...

    def detect(self, image: U8, input_size_px: int | None = None) -> Detections:
        """See `FaceDetector.detect`. The image is scaled to a long side of `input_size_px` if the network can."""
        ...


class SynchronizedDetector:
    """Makes a network safe for use by several threads: one call at a time."""

    def __init__(self, network: FaceNetwork) -> None:
        self.spec = network.spec
        self._network = network
        self._lock = Lock()

    def detect(self, image: U8, input_size_px: int | None = None) -> Detections:
        """See `FaceNetwork.detect`."""
        with self._lock:
            return self._network.detect(image, input_size_px)


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
