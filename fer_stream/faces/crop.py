"""Box → 48×48 px crop with the framing that the model was trained on.

FER-2013 was cropped to the squares of a face detector of 2012. Other detectors draw other boxes, so each detector has
a `CropGeometry` that maps its boxes to those squares. The quality of a crop is assessed from its visible fraction,
size, head rotation and sharpness; `QualitySettings` has the thresholds, docs/evidence/parameters.md the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from cv2.typing import MatLike

from fer_stream.records import CROP_SIZE_PX, F32, U8, Quality, QualityReason

if TYPE_CHECKING:
    from fer_stream.config.settings import QualitySettings


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

    OpenCV averages over 2×2 px several times as fast as over any other area. An odd last row or column is dropped. No
    side becomes smaller than 1 px.
    """
    for _ in range(levels):
        height, width = max(1, gray.shape[0] // 2), max(1, gray.shape[1] // 2)
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


_PASS_SCORE = 0.5
"""Score of a property at its threshold."""


def assess(
    image_shape: Sequence[int], xyxy: F32, landmarks: F32 | None, crop: U8, settings: QualitySettings
) -> Quality:
    """Assess the face in the box `xyxy`, float32 (4,) px of an image of shape `image_shape` (H, W, …).

    `landmarks` is float32 (5, 2) px in the order of `Detections`, or None, in which case the head counts as frontal.
    `crop` is uint8 (48, 48). The score is that of the worst of four properties, each 0.5 at its threshold. It is at
    least 0.5 if and only if the reason is ok.
    """
    frontality = 1.0 if landmarks is None else 1 - head_rotation(landmarks)
    scores: dict[QualityReason, float] = {
        "truncated": ramp(visible_fraction(image_shape, xyxy), settings.min_visible_fraction, 1),
        "small": ramp(min_side_px(xyxy), settings.min_face_px, 2 * settings.min_face_px),
        "off_frontal": ramp(frontality, 1 - settings.max_head_rotation, 1),
        "blurred": ramp(sharpness(crop), settings.min_sharpness, 4 * settings.min_sharpness),
    }
    worst = min(scores, key=lambda reason: scores[reason])
    return Quality(score=scores[worst], reason="ok" if scores[worst] >= _PASS_SCORE else worst)


def min_side_px(xyxy: F32) -> float:
    """Return the shorter side of the box (4,) in px; 0 if its corners are swapped."""
    x1, y1, x2, y2 = map(float, xyxy)
    return max(0.0, min(x2 - x1, y2 - y1))


def visible_fraction(image_shape: Sequence[int], xyxy: F32) -> float:
    """Return the fraction 0..1 of the box (4,) that lies inside an image of shape `image_shape` (H, W, …).

    The part missing at the bottom counts twice: the model depends on the mouth (docs/evidence/parameters.md).
    """
    height, width = image_shape[:2]
    x1, y1, x2, y2 = map(float, xyxy)
    if x2 <= x1 or y2 <= y1:
        return 0.0
    across = max(0.0, min(x2, width) - max(x1, 0.0)) / (x2 - x1)
    down = max(0.0, min(y2, height) - max(y1, 0.0)) / (y2 - y1)
    below = max(0.0, y2 - height) / (y2 - y1)
    return max(0.0, across * down - below)


def sharpness(crop: U8) -> float:
    """Return the variance of the Laplacian of a crop, uint8 (48, 48), divided by the variance of its gray values.

    The quotient is independent of brightness and contrast, so dark faces do not count as blurred. It is 0 for a
    uniform crop, 0.3–1.6 for faces of FER-2013 and 20 for white noise.
    """
    contrast = _variance(crop)
    return _variance(cv2.Laplacian(crop, cv2.CV_32F)) / contrast if contrast > 0 else 0.0


def head_rotation(landmarks: F32) -> float:
    """Return the larger of yaw and pitch as a fraction of 90°: 0 is frontal, 1 is a profile.

    `landmarks` is float32 (5, 2) in the order of `Detections`. The nose tip is about half an eye distance in front of
    the plane of the face, so it shifts from the centre of the face as the head rotates. Distances are measured along
    and across the line from the eyes to the mouth, so roll has no effect. Returns 1 for implausible landmarks.
    """
    (rx, ry), (lx, ly), (nose_x, nose_y), *mouth = landmarks.tolist()
    eyes_x, eyes_y = (rx + lx) / 2, (ry + ly) / 2
    mouth_x, mouth_y = (mouth[0][0] + mouth[1][0]) / 2, (mouth[0][1] + mouth[1][1]) / 2
    length = math.hypot(mouth_x - eyes_x, mouth_y - eyes_y)
    if not (np.isfinite(landmarks).all() and length > 0):
        return 1.0
    # Unit vector from the eyes to the mouth; (down_y, -down_x) points from the right eye to the left eye.
    down_x, down_y = (mouth_x - eyes_x) / length, (mouth_y - eyes_y) / length
    eye_distance = max(0.0, (lx - rx) * down_y - (ly - ry) * down_x)
    aside = (nose_x - eyes_x) * down_y - (nose_y - eyes_y) * down_x
    below = (nose_x - eyes_x) * down_x + (nose_y - eyes_y) * down_y
    yaw = math.atan2(abs(aside), _NOSE_DEPTH * eye_distance)
    pitch = math.atan2(abs(below - _NOSE_DROP * length), _NOSE_DEPTH * length)
    return min(1.0, max(yaw, pitch) / (math.pi / 2))


_NOSE_DEPTH = 0.5
"""Distance of the nose tip from the plane of the face, relative to the distance of the eyes, or of eyes and mouth,
which is nearly the same length."""
_NOSE_DROP = 0.56
"""Position of a frontal nose tip between the eyes (0) and the mouth (1): the median of YuNet on FER-2013."""


def _variance(image: MatLike) -> float:
    """Return the variance of a single-channel image; `np.var` takes twenty times as long on a crop."""
    _, deviation = cv2.meanStdDev(image)
    return float(deviation[0, 0]) ** 2


def ramp(value: float, threshold: float, best: float) -> float:
    """Return the score of one property: 0 at value 0, 0.5 at `threshold`, 1 from `best`."""
    if value < threshold:
        return _PASS_SCORE * value / threshold
    if value >= best:
        return 1.0
    return _PASS_SCORE + (1 - _PASS_SCORE) * (value - threshold) / (best - threshold)
