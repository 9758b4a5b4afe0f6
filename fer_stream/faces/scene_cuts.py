"""Where one shot of an edited video ends and the next begins."""

from __future__ import annotations

import cv2
import numpy as np

from fer_stream.records import F32, U8

_GRID_PX = (32, 18)

# Mean difference of two neighbouring thumbnails, in gray levels, each less its own mean so that a light switched
# on is no cut. Measured on eight clips: 12 at most inside a shot at 10-30 fps and 32 half a second apart, 37 at
# least where two different clips are joined (docs/evidence/parameters.md).
_CUT_LEVEL = 34.0

# A camera that shakes or pans fast moves every thumbnail: a cut must stand out from the last second or so.
_CUT_RATIO = 2.0
_MEMORY = 0.9


class SceneCutDetector:
    """Tells hard cuts from motion, one picture after the other."""

    def __init__(self) -> None:
        self._last: F32 | None = None
        self._usual = 0.0

    def is_cut(self, gray: U8) -> bool:
        """Does a new shot begin with the picture `gray`, uint8 (H, W)? The first picture begins none."""
        thumbnail = _thumbnail(gray)
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        change = float(np.abs(thumbnail - last).mean())
        if change > max(_CUT_LEVEL, _CUT_RATIO * self._usual):
            self._usual = 0.0
            return True
        self._usual = _MEMORY * self._usual + (1 - _MEMORY) * change
        return False


def _thumbnail(gray: U8) -> F32:
    """(18, 32) float32 with mean 0. Every n-th pixel first: the full picture need not be averaged."""
    height, width = gray.shape
    coarse = gray[:: max(1, height // (2 * _GRID_PX[1])), :: max(1, width // (2 * _GRID_PX[0]))]
    small = cv2.resize(coarse, _GRID_PX, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - cv2.mean(small)[0], np.float32)
