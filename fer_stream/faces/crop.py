"""Box → 48×48 px crop with the framing that the model was trained on.

FER-2013 was cropped to the squares of a face detector of 2012. Other detectors draw other boxes, so each detector has
a `CropGeometry` that maps its boxes to those squares.
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
    """Position of a square crop relative to a detector's box.

    The side of the crop is `scale` × the larger side of the box. Its centre is `y_offset` × the height of the box
    above the centre of the box.
    """

    scale: float
    y_offset: float


def crop_face(image: U8, xyxy: F32, geometry: CropGeometry) -> U8:
    """Return the face in the box `xyxy`, float32 (4,) px, as grayscale crop, uint8 (48, 48).

    `image` is uint8 (H, W, 3) BGR or (H, W) grayscale. The box may lie anywhere: outside the image, its edge pixels
    are repeated. Raises `ValueError` if the box is not finite.
    """
    left, top, side = _square(image, xyxy, geometry)
    rows, above, below = _clip(top, side, image.shape[0])
    columns, before, after = _clip(left, side, image.shape[1])
    face: MatLike = image[rows, columns]
    if image.ndim == 3:
        face = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    if above or below or before or after:
        face = cv2.copyMakeBorder(face, above, below, before, after, cv2.BORDER_REPLICATE)
    return _resize_to_crop(face)


def downscale(gray: MatLike, levels: int) -> U8:
    """Return a grayscale image, uint8 (H, W), at 1 / 2^`levels` of its size, averaged over 2×2 px at each level.

    OpenCV averages over 2×2 px several times as fast as over any other area. An odd last row or column is dropped.
    """
    for _ in range(levels):
        height, width = gray.shape[0] // 2, gray.shape[1] // 2
        gray = cv2.resize(gray[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(gray, np.uint8)


def pyramid_levels(side_px: float) -> int:
    """Return how often a square can be halved without becoming smaller than a crop."""
    return max(0, math.floor(math.log2(max(side_px, 1.0) / CROP_SIZE_PX)))


def _square(image: U8, xyxy: F32, geometry: CropGeometry) -> tuple[int, int, int]:
    """Return left, top and side of the crop in whole px."""
    if not np.isfinite(xyxy).all():
        raise ValueError(f"Expected a box of four finite numbers, received {xyxy}")
    x1, y1, x2, y2 = map(float, xyxy)
    # A square of twice the image size covers the whole image wherever it lies; a larger one only costs memory.
    side = min(geometry.scale * max(x2 - x1, y2 - y1), 2 * max(image.shape[:2]))
    unit_px = 2 ** pyramid_levels(side)
    side_px = max(1, unit_px * round(side / unit_px))
    centre_y = (y1 + y2) / 2 - geometry.y_offset * (y2 - y1)
    return round((x1 + x2 - side_px) / 2), round(centre_y - side_px / 2), side_px


def _resize_to_crop(square: MatLike) -> U8:
    square = downscale(square, pyramid_levels(len(square)))
    # Area averaging is the only OpenCV kernel that does not alias when it shrinks.
    kernel = cv2.INTER_AREA if len(square) > CROP_SIZE_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (CROP_SIZE_PX, CROP_SIZE_PX), interpolation=kernel), np.uint8)


def _clip(start: int, length: int, limit: int) -> tuple[slice, int, int]:
    """Return the part of start … start + length inside 0 … limit, and the lengths missing before and after it.

    The part is never empty.
    """
    first = min(max(start, 0), limit - 1)
    last = max(min(start + length, limit), first + 1)
    before = min(max(first - start, 0), length - 1)
    return slice(first, last), before, length - (last - first) - before
