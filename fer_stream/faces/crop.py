"""Box → 48×48 pixels, exactly as the model was trained.

FER-2013 shows faces in squares that some face detector of 2012 chose. Other detectors draw other boxes, so each has
its own geometry, which brings its boxes to those squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike

from fer_stream.records import CROP_SIZE_PX, F32, U8


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """How a square crop lies on a detector's box.

    Its side is `scale` × the larger side of the box; its centre is `rise` × the height of the box above the
    centre of the box.
    """

    scale: float
    y_offset: float


# Chosen on FER-2013's PublicTest by benchmarks/crop_margin.py; the tables are in docs/evidence/parameters.md.
GEOMETRIES = {
    "yunet": CropGeometry(scale=0.95, y_offset=0.04),
    "blazeface": CropGeometry(scale=1.17, y_offset=0.06),
}


def crop_geometry(detector: str) -> CropGeometry:
    """The geometry for the boxes of `detector`, a name as in `FaceDetector.name`: `yunet-2023mar` is a yunet."""
    family = detector.partition("-")[0]
    if family not in GEOMETRIES:
        raise ValueError(f"Expected a detector of the families {', '.join(GEOMETRIES)}, received {detector!r}")
    return GEOMETRIES[family]


def crop_face(image: U8, xyxy: F32, geometry: CropGeometry) -> U8:
    """The face in the box `xyxy`, float32 (4,) px of `image`, as 48×48 gray pixels, uint8.

    `image` is uint8 (H, W, 3) BGR or (H, W) gray. The box may lie anywhere: beyond the edge of the picture its
    outermost pixels are repeated. Raises `ValueError` for a box that is not finite.
    """
    left, top, side = _square(image, xyxy, geometry)
    rows, above, below = _clip(top, side, image.shape[0])
    columns, before, after = _clip(left, side, image.shape[1])
    face: MatLike = image[rows, columns]
    if image.ndim == 3:
        face = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    if above or below or before or after:
        face = cv2.copyMakeBorder(face, above, below, before, after, cv2.BORDER_REPLICATE)
    return _resized(face)


def _square(image: U8, xyxy: F32, geometry: CropGeometry) -> tuple[int, int, int]:
    """Left, top and side of the crop in whole px."""
    if not np.isfinite(xyxy).all():
        raise ValueError(f"Expected a box of four finite numbers, received {xyxy}")
    x1, y1, x2, y2 = map(float, xyxy)
    # A square of twice the picture holds all of it wherever it lies; more would only cost memory.
    side = min(geometry.scale * max(x2 - x1, y2 - y1), 2 * max(image.shape[:2]))
    unit_px = 2 ** pyramid_levels(side)
    side_px = max(1, unit_px * round(side / unit_px))
    centre_y = (y1 + y2) / 2 - geometry.y_offset * (y2 - y1)
    return round((x1 + x2 - side_px) / 2), round(centre_y - side_px / 2), side_px


def pyramid_levels(side: float) -> int:
    """How often a square can be halved and be no smaller than a crop."""
    return max(0, math.floor(math.log2(max(side, 1.0) / CROP_SIZE_PX)))


def _resized(square: MatLike) -> U8:
    """`square` as a crop. OpenCV averages over 2×2 px many times as fast as over any other area."""
    for _ in range(pyramid_levels(len(square))):
        square = cv2.resize(square, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    # Area averaging is the only one of OpenCV's kernels that does not alias when it shrinks.
    kernel = cv2.INTER_AREA if len(square) > CROP_SIZE_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (CROP_SIZE_PX, CROP_SIZE_PX), interpolation=kernel), np.uint8)


def _clip(start: int, length: int, limit: int) -> tuple[slice, int, int]:
    """The part of start … start + length inside 0 … limit, never empty, and what is missing before and after it."""
    first = min(max(start, 0), limit - 1)
    last = max(min(start + length, limit), first + 1)
    before = min(max(first - start, 0), length - 1)
    return slice(first, last), before, length - (last - first) - before
