"""Scene cuts: hard cuts, dissolves, fades and flashes in the gray frames of one stream.

Frames are compared as small standardised thumbnails, so brightness and contrast cancel: a cut in a dark scene changes
as much as one in daylight, and a light that is switched on changes nothing. Where a cut is uncertain, it is reported:
a missed cut gives two people one number, a wrong one gives one person two numbers. The measurements are in
docs/evidence/parameters.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

from fer_stream.records import F32, TIMESTAMP_TOLERANCE_S, U8

_THUMBNAIL_PX = (32, 18)

_MIN_CONTRAST = 2.0
"""Standard deviation in gray levels below which a frame is blank, as between a fade to black and the next scene."""

_CUT_CHANGE = 0.5
"""Change from which two consecutive frames belong to different scenes. Unrelated images differ by 0.75 to 1.2."""
_SLOW_CUT_CHANGE = 0.7
_SLOW_S = 0.3
"""The same for frames further apart than this, between which people move by more."""
_CUT_RATIO = 1.5
"""A cut must also exceed the second largest of the recent changes by this factor: a panning or shaking camera changes
all frames. The largest one may be another cut."""

_SUDDEN_CHANGE = 0.2
"""Smaller change that is a cut if it exceeds the second largest of the recent changes by `_SUDDEN_RATIO`: two people
in front of the same background."""
_SUDDEN_RATIO = 8.0
_SUDDEN_S = 0.15
"""Maximum interval of the two frames: at a low frame rate, motion is as sudden."""
_SUDDEN_FRAMES = 4
"""Minimum number of recent changes for that."""
_RECENT_FRAMES = 12

_DISSOLVE_S = (0.6, 1.1, 1.8)
"""Time spans that are searched for dissolves."""
_DISSOLVE_FRAMES = 5
"""Minimum number of frames in such a span."""
_DISSOLVE_PARTS = (0.25, 0.5, 0.75, 0.875)
"""Frames that are examined, as fractions of the span."""
_DISSOLVE_RESIDUAL = 0.19
"""The frames of a dissolve are mixtures of its first and last frame. Maximum deviation from such mixtures, relative
to the difference of the two frames."""
_SETTLED_SHARE = 0.92
"""Share of the second scene in the last of these frames from which a dissolve has ended."""
_WEIGHT_TOLERANCE = 0.1
"""Maximum amount by which the weights of the two scenes may move backwards."""

_FLASH_S = 0.2
"""Maximum duration of a flash, after which the previous scene continues."""
_SAME_CHANGE = 0.25
"""Maximum change between the frames before and after a flash."""


class SceneChange(Enum):
    """Change of the scene at a frame."""

    NONE = "none"
    CUT = "cut"
    """A new scene."""
    FLASH_END = "flash end"
    """The scene before the last cut again: that was a flash."""


@dataclass(frozen=True, slots=True, eq=False)
class _Thumbnail:
    """Gray values (576,) float32 of a frame, minus their mean, and their standard deviation."""

    time_s: float
    values: F32
    contrast: float

    def change_since(self, other: _Thumbnail) -> float:
        """Return the mean absolute difference of the standardised thumbnails: 0 for the same image."""
        return float(np.abs(self.values / self.contrast - other.values / other.contrast).mean())


class SceneCutDetector:
    """Distinguishes scene cuts from motion, light and flashes in consecutive frames."""

    def __init__(self) -> None:
        self._recent: deque[_Thumbnail] = deque()
        """Thumbnails of the scene, as far back as the longest dissolve."""
        self._changes: deque[float] = deque(maxlen=_RECENT_FRAMES)
        self._before_cut: list[_Thumbnail] = []
        """Thumbnails of the scene before the last hard cut, until it cannot have been a flash."""
        self._cut_s = 0.0

    def update(self, gray: U8, time_s: float) -> SceneChange:
        """Return what begins with the frame `gray`, uint8 (H, W), at `time_s`. `NONE` for the first frame."""
        thumbnail = _thumbnail(gray, time_s)
        if thumbnail.contrast < _MIN_CONTRAST:
            return SceneChange.NONE
        if self._ends_flash(thumbnail):
            self._start(self._before_cut, thumbnail)
            self._before_cut = []
            return SceneChange.FLASH_END
        if self._is_hard_cut(thumbnail):
            self._before_cut, self._cut_s = list(self._recent), time_s
            self._start([], thumbnail)
            return SceneChange.CUT
        self._recent.append(thumbnail)
        if self._ends_dissolve(thumbnail):
            self._start([], thumbnail)
            return SceneChange.CUT
        while self._recent[0].time_s < time_s - _DISSOLVE_S[-1] - TIMESTAMP_TOLERANCE_S:
            self._recent.popleft()
        return SceneChange.NONE

    def _start(self, before: list[_Thumbnail], thumbnail: _Thumbnail) -> None:
        self._recent = deque([*before, thumbnail])

    def _ends_flash(self, thumbnail: _Thumbnail) -> bool:
        if not self._before_cut or thumbnail.time_s > self._cut_s + _FLASH_S + TIMESTAMP_TOLERANCE_S:
            self._before_cut = []
            return False
        return thumbnail.change_since(self._before_cut[-1]) <= _SAME_CHANGE

    def _is_hard_cut(self, thumbnail: _Thumbnail) -> bool:
        if not self._recent:
            return False
        change = thumbnail.change_since(self._recent[-1])
        usual = sorted([0.0, 0.0, *self._changes])[-2]
        interval_s = thumbnail.time_s - self._recent[-1].time_s
        sudden = (
            interval_s < _SUDDEN_S
            and len(self._changes) >= _SUDDEN_FRAMES
            and change > max(_SUDDEN_CHANGE, _SUDDEN_RATIO * usual)
        )
        self._changes.append(change)
        threshold = _SLOW_CUT_CHANGE if interval_s > _SLOW_S else _CUT_CHANGE
        return sudden or change > max(threshold, _CUT_RATIO * usual)

    def _ends_dissolve(self, last: _Thumbnail) -> bool:
        """Return whether the scene became another one by a mixture of the two."""
        for span_s in _DISSOLVE_S:
            frames = [one for one in self._recent if one.time_s >= last.time_s - span_s - TIMESTAMP_TOLERANCE_S]
            if len(frames) >= _DISSOLVE_FRAMES and last.change_since(frames[0]) > _CUT_CHANGE and _is_mixture(frames):
                return True
        return False


def _is_mixture(frames: list[_Thumbnail]) -> bool:
    """Return whether the frames turn from the first into the last one by mixing both, and have reached it."""
    first, last = frames[0].values, frames[-1].values
    ends = np.stack((first, last), axis=1)
    between = np.stack([frames[int(len(frames) * part)].values for part in _DISSOLVE_PARTS], axis=1)
    weights = np.linalg.lstsq(ends, between, rcond=None)[0]
    residual = np.abs(between - ends @ weights).mean(axis=0).max() / np.abs(last - first).mean()
    fading, emerging = np.diff(weights)
    monotonic = (fading < _WEIGHT_TOLERANCE).all() and (emerging > -_WEIGHT_TOLERANCE).all()
    return bool(monotonic and residual < _DISSOLVE_RESIDUAL and weights[1, -1] > _SETTLED_SHARE)


def _thumbnail(gray: U8, time_s: float) -> _Thumbnail:
    """Subsampling first avoids averaging over the full frame."""
    height, width = gray.shape
    coarse = gray[:: max(1, height // (2 * _THUMBNAIL_PX[1])), :: max(1, width // (2 * _THUMBNAIL_PX[0]))]
    small = cv2.resize(coarse, _THUMBNAIL_PX, interpolation=cv2.INTER_AREA).astype(np.float32)
    values = np.asarray(small - small.mean(), np.float32).ravel()
    return _Thumbnail(time_s, values, float(values.std()))
