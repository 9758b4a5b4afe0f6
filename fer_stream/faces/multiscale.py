"""Detection at the scales that a frame needs, so that small faces in large frames are found.

A network finds faces from a fixed size in px of its input. The long side to which a frame is scaled therefore decides
which faces are found. `input_sizes` derives it from the frame; benchmarks/resolution.py measures recall and speed,
docs/evidence/parameters.md has the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_stream.faces.detector import FaceNetwork, InputSpec, areas, nms
from fer_stream.records import F32, U8, Detections

_SCALE_STEP = 4
"""Ratio of the sizes of two passes. Networks find faces over a larger range of sizes."""

_MIN_GAIN = 1.25
"""A second pass must be larger than the first by this factor."""

_FINE_CONFIDENCE = 0.7
"""Minimum confidence in passes after the first: many more places are examined, so more of them are wrong."""

_MOST_FOUND = 1.25
"""Ratio of the sizes from which most faces and more than half of them are found (docs/evidence/parameters.md)."""

_MERGE_IOU = 0.3
"""Boxes of different passes or tiles whose IoU exceeds this are the same face."""

_MERGE_INSIDE = 0.6
"""A face of which more than this fraction lies inside a more confident one is a part of it, found in another tile."""

_OVERLAP = 1.25
"""Overlap of tiles, relative to the largest face that a tile must find: that face is complete in one of them."""

_EDGE_PX = 2
"""A face whose box is closer to the inner edge of a tile than this is cut off."""


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """Which faces a detector must find.

    `input_size_px` fixes the long side of the only pass. If it is None, faces from `min_face_px` are found in a still
    image (`still`), and from twice that in video, where speed limits the size.
    """

    input_size_px: int | None
    min_face_px: float
    still: bool


def input_sizes(long_side_px: int, spec: InputSpec, settings: ScaleSettings) -> list[int]:
    """Return the long sides in px, ascending, to which a frame with this long side is scaled."""
    if settings.input_size_px is not None:
        size = settings.input_size_px
        return [size] if spec.any_size else [spec.default_px, *[size] * (size > spec.default_px)]
    wanted_px = max(1.0, settings.min_face_px) * (1 if settings.still else 2)
    size = min(long_side_px, round(long_side_px * spec.smallest_face_px / wanted_px))
    size = min(size, spec.max_image_px if settings.still else spec.max_video_px)
    sizes = [spec.default_px]
    while size > sizes[-1] * _SCALE_STEP:
        sizes.append(sizes[-1] * _SCALE_STEP)
    return [*sizes, *[size] * (size >= sizes[-1] * _MIN_GAIN)]


def smallest_face_px(long_side_px: int, spec: InputSpec, settings: ScaleSettings) -> float:
    """Return the side in px from which most faces are found in a frame with this long side."""
    return _MOST_FOUND * spec.smallest_face_px * long_side_px / input_sizes(long_side_px, spec, settings)[-1]


class MultiScaleDetector:
    """Runs a network at the sizes that `input_sizes` selects for each frame, and merges the faces."""

    def __init__(self, network: FaceNetwork, settings: ScaleSettings) -> None:
        self.spec = network.spec
        self._inputs = network.spec.inputs
        self._network = network
        self._settings = settings

    def detect(self, image: U8) -> Detections:
        """See `FaceDetector.detect`."""
        sizes = input_sizes(max(image.shape[:2]), self._inputs, self._settings)
        if len(sizes) == 1 and self._is_one_input(sizes[0]):
            return self._network.detect(image, sizes[0])
        found = []
        for size in sizes:
            # The next pass sees smaller faces better; at this size they are more often wrong.
            smallest_px = self._inputs.smallest_face_px * max(image.shape[:2]) / size if size < sizes[-1] else 0.0
            min_confidence = 0.0 if size == sizes[0] else _FINE_CONFIDENCE
            found += [_select(one, smallest_px, min_confidence) for one in self._examine(image, size)]
        return _merge(found)

    def _is_one_input(self, size: int) -> bool:
        explicit = self._settings.input_size_px is not None and self._inputs.any_size
        return explicit or size <= self._inputs.max_px

    def _examine(self, image: U8, size: int) -> Iterator[Detections]:
        """Yield the faces of the image at this size, tile by tile, in px of the image."""
        if self._is_one_input(size):
            yield self._network.detect(image, size)
            return
        height, width = image.shape[:2]
        factor = size / max(height, width)
        shape = max(1, round(width * factor)), max(1, round(height * factor))
        scaled = cv2.resize(image, shape, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        side = self._inputs.max_px
        overlap = round(_OVERLAP * _SCALE_STEP * self._inputs.smallest_face_px)
        for top in _starts(shape[1], side, overlap):
            for left in _starts(shape[0], side, overlap):
                tile = scaled[top : top + side, left : left + side].astype(np.uint8, copy=False)
                complete = _without_cut(self._network.detect(tile, max(tile.shape)), tile, (left, top), shape)
                yield _moved(complete, (left, top), (width / shape[0], height / shape[1]))


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Return the starts of tiles of `side` px that cover `length` px and overlap by at least `overlap` px."""
    count = 1 + max(0, -(-(length - side) // (side - overlap)))
    return [round(start) for start in np.linspace(0, max(0, length - side), count).tolist()]


def _without_cut(found: Detections, tile: U8, origin: tuple[int, int], shape: tuple[int, int]) -> Detections:
    """Remove faces that are cut off by an edge of the tile which is not an edge of the image."""
    (left, top), (height, width) = origin, tile.shape[:2]
    limits = np.array(
        [
            _EDGE_PX if left else -np.inf,
            _EDGE_PX if top else -np.inf,
            width - _EDGE_PX if left + width < shape[0] else np.inf,
            height - _EDGE_PX if top + height < shape[1] else np.inf,
        ]
    )
    inside = (found.xyxy[:, :2] > limits[:2]).all(axis=1) & (found.xyxy[:, 2:] < limits[2:]).all(axis=1)
    return _rows(found, np.flatnonzero(inside).tolist())


def _select(found: Detections, smallest_px: float, min_confidence: float) -> Detections:
    """Return the faces whose shorter side is at least `smallest_px`, from `min_confidence`."""
    sides = (found.xyxy[:, 2:] - found.xyxy[:, :2]).min(axis=1)
    selected = (sides >= smallest_px) & (found.confidence >= min_confidence)
    return _rows(found, np.flatnonzero(selected).tolist())


def _moved(found: Detections, origin: tuple[int, int], scale: tuple[float, float]) -> Detections:
    """Convert px of a tile to px of the image."""
    offset, factor = np.array(origin, np.float32), np.array(scale, np.float32)
    xyxy = ((found.xyxy.reshape(-1, 2, 2) + offset) * factor).reshape(-1, 4)
    landmarks = None if found.landmarks is None else (found.landmarks + offset) * factor
    return Detections(xyxy, found.confidence, landmarks)


def _merge(found: Sequence[Detections]) -> Detections:
    """Return the faces of all passes, each once, most confident first."""
    landmarks = [one.landmarks for one in found if one.landmarks is not None]
    together = Detections(
        np.concatenate([one.xyxy for one in found]),
        np.concatenate([one.confidence for one in found]),
        np.concatenate(landmarks) if len(landmarks) == len(found) else None,
    )
    faces = _rows(together, nms(together.xyxy, together.confidence, _MERGE_IOU))
    return _rows(faces, np.flatnonzero(~_is_part(faces.xyxy)).tolist())


def _is_part(xyxy: F32) -> NDArray[np.bool_]:
    """Return whether each box (n, 4) is part of a preceding one, or contains most of it; bool (n,)."""
    sides = np.minimum(xyxy[:, None, 2:], xyxy[:, 2:]) - np.maximum(xyxy[:, None, :2], xyxy[:, :2])
    smaller = np.minimum(areas(xyxy)[:, None], areas(xyxy))
    inside = np.maximum(sides, 0).prod(axis=-1) > _MERGE_INSIDE * smaller
    return np.asarray(np.tril(inside, k=-1).any(axis=1))


def _rows(found: Detections, rows: list[int]) -> Detections:
    landmarks = None if found.landmarks is None else found.landmarks[rows]
    return Detections(found.xyxy[rows], found.confidence[rows], landmarks)
