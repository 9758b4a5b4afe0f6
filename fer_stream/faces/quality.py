"""Size, blur, pose: is this face worth a label?

The gates and the measurements behind them are in `fer_stream.config.QualitySettings` and docs/evidence/parameters.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from cv2.typing import MatLike

from fer_stream.config import QualitySettings
from fer_stream.records import F32, U8, Quality, QualityReason

_GATE = 0.5
"""The score of a face that passes a gate only just."""


def assess(
    image_shape: Sequence[int], xyxy: F32, landmarks: F32 | None, crop: U8, settings: QualitySettings
) -> Quality:
    """How well the face in the box `xyxy`, float32 (4,) px of a picture of `image_shape` (H, W, …), can be judged.

    `landmarks` are float32 (5, 2) px in the order of `Detections`, or None: then the pose counts as frontal. `crop`
    is its uint8 (48, 48). The score is that of the worst of four properties, each 0.5 at its gate; so it is at
    least 0.5 exactly where the reason is ok.
    """
    facing = 1.0 if landmarks is None else 1 - head_rotation(landmarks)
    parts: dict[QualityReason, float] = {
        "truncated": ramp(visible_fraction(image_shape, xyxy), settings.min_visible_fraction, 1),
        "small": ramp(min_side_px(xyxy), settings.min_face_px, 2 * settings.min_face_px),
        "off_frontal": ramp(facing, 1 - settings.max_head_rotation, 1),
        "blurred": ramp(sharpness(crop), settings.min_sharpness, 4 * settings.min_sharpness),
    }
    worst = min(parts, key=lambda reason: parts[reason])
    return Quality(score=parts[worst], reason="ok" if parts[worst] >= _GATE else worst)


def apply_agreement(quality: Quality, agreement: float, least: float) -> Quality:
    """`quality`, or `unclear` where less than the share `least` of people would agree about a face that is fine."""
    if not quality.ok or agreement >= least:
        return quality
    return Quality(ramp(agreement, least, least), "unclear")


def min_side_px(xyxy: F32) -> float:
    """The shorter side of the box (4,) in px; 0 where its corners are swapped."""
    x1, y1, x2, y2 = map(float, xyxy)
    return max(0.0, min(x2 - x1, y2 - y1))


def visible_fraction(image_shape: Sequence[int], xyxy: F32) -> float:
    """The share 0..1 of the box (4,) that lies inside a picture of `image_shape` (H, W, …).

    What is missing below counts twice: without the mouth the model is lost (docs/evidence/parameters.md).
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
    """Variance of the Laplacian of a crop uint8 (48, 48) over the variance of its gray values.

    The quotient depends neither on brightness nor on contrast, so a dark face is not a blurred one. 0 for a crop of
    one gray; faces of FER-2013 have 0.3–1.6, white noise 20.
    """
    contrast = _variance(crop)
    return _variance(cv2.Laplacian(crop, cv2.CV_32F)) / contrast if contrast > 0 else 0.0


def head_rotation(landmarks: F32) -> float:
    """How far a face looks away from the camera, to a side or up or down: 0 into it, 1 by 90°.

    `landmarks` float32 (5, 2) in the order of `Detections`. The nose tip stands about half an eye distance before
    the plane of the face, so it moves off the face's middle as the head turns. All is measured along and across the
    line from the eyes to the mouth, so a tilted head is not a turned one. 1 where no face can be made of the points.
    """
    (rx, ry), (lx, ly), (nose_x, nose_y), *mouth = landmarks.tolist()
    eyes_x, eyes_y = (rx + lx) / 2, (ry + ly) / 2
    mouth_x, mouth_y = (mouth[0][0] + mouth[1][0]) / 2, (mouth[0][1] + mouth[1][1]) / 2
    length = math.hypot(mouth_x - eyes_x, mouth_y - eyes_y)
    if not (np.isfinite(landmarks).all() and length > 0):
        return 1.0
    # The unit vector from the eyes to the mouth; (down_y, -down_x) points from the right eye to the left.
    down_x, down_y = (mouth_x - eyes_x) / length, (mouth_y - eyes_y) / length
    eye_distance = max(0.0, (lx - rx) * down_y - (ly - ry) * down_x)
    aside = (nose_x - eyes_x) * down_y - (nose_y - eyes_y) * down_x
    below = (nose_x - eyes_x) * down_x + (nose_y - eyes_y) * down_y
    yaw = math.atan2(abs(aside), _NOSE_DEPTH * eye_distance)
    pitch = math.atan2(abs(below - _NOSE_DROP * length), _NOSE_DEPTH * length)
    return min(1.0, max(yaw, pitch) / (math.pi / 2))


_NOSE_DEPTH = 0.5
"""How far the nose tip stands out, over the distance of the eyes, or of eyes and mouth: nearly the same lengths."""
_NOSE_DROP = 0.56
"""Where a frontal nose tip lies between the eyes (0) and the mouth (1): the median of YuNet on FER-2013."""


def _variance(image: MatLike) -> float:
    """Of a picture of one channel; `np.var` takes twenty times as long on one so small."""
    _, deviation = cv2.meanStdDev(image)
    return float(deviation[0, 0]) ** 2


def ramp(value: float, gate: float, best: float) -> float:
    """The score of one property: 0 at value 0, 0.5 at `gate`, 1 from `best` on."""
    if value < gate:
        return _GATE * value / gate
    if value >= best:
        return 1.0
    return _GATE + (1 - _GATE) * (value - gate) / (best - gate)
