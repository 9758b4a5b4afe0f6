"""Detection of hard cuts between the shots of an edited video."""

from __future__ import annotations

import cv2
import numpy as np

from fer_stream.records import F32, U8

_THUMBNAIL_PX = (32, 18)

# Mean absolute difference of two consecutive thumbnails in gray levels, each minus its own mean, so that a light
# that is switched on is not a cut. Measured on eight clips: at most 12 inside a shot at 10-30 fps, 32 between frames
# half a second apart, and at least 37 where two different clips are joined (docs/evidence/parameters.md).
_CUT_LEVEL = 34.0

# A shaking or panning camera changes every thumbnail: a cut must exceed the running average of about a second.
_CUT_RATIO = 2.0
_AVERAGE_DECAY = 0.9


class SceneCutDetector:
    """Distinguishes hard cuts from motion in consecutive frames."""

    def __init__(self) -> None:
        self._last: F32 | None = None
        self._average = 0.0

    def is_cut(self, gray: U8) -> bool:
        """Return whether a new shot starts with the frame `gray`, uint8 (H, W). False for the first frame."""
        thumbnail = _thumbnail(gray)
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        change = float(np.abs(thumbnail - last).mean())
        if change > max(_CUT_LEVEL, _CUT_RATIO * self._average):
            self._average = 0.0
            return True
        self._average = _AVERAGE_DECAY * self._average + (1 - _AVERAGE_DECAY) * change
        return False


def _thumbnail(gray: U8) -> F32:
    """Return (18, 32) float32 with mean 0. Subsampling first avoids averaging over the full frame."""
    height, width = gray.shape
    coarse = gray[:: max(1, height // (2 * _THUMBNAIL_PX[1])), :: max(1, width // (2 * _THUMBNAIL_PX[0]))]
    small = cv2.resize(coarse, _THUMBNAIL_PX, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - cv2.mean(small)[0], np.float32)
