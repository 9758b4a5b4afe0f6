"""Pixels of a frame as gray or BGR, converted on demand.

Between two runs of the detector only the gray frame is needed, which is the luma plane of most decoded frames. BGR is
converted only if it is requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

if TYPE_CHECKING:
    from fer_stream.records import U8, Pixels

# Formats with 8-bit luma in the first plane: 16 to 235, or 0 to 255 if the frame or the format says so.
_LIMITED_RANGE = {"yuv420p", "yuv422p", "yuv444p", "nv12", "nv21"}
_FULL_RANGE = {"yuvj420p", "yuvj422p", "yuvj444p"}
_LUMA_FORMATS = _LIMITED_RANGE | _FULL_RANGE
_BLACK, _WHITE = 16, 235

_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}
"""(reverse rows, reverse columns) → flip code of cv2.flip."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """Orientation of a stored frame: rows and columns are swapped if `sideways`, then reversed."""

    sideways: bool
    reverse_rows: bool
    reverse_columns: bool


class ArrayPixels:
    """Pixels of an array, uint8 (H, W, 3) BGR."""

    def __init__(self, image: U8) -> None:
        self._image = image

    @property
    def shape(self) -> tuple[int, int]:
        """See `Pixels.shape`."""
        height, width = self._image.shape[:2]
        return height, width

    def bgr(self) -> U8:
        """See `Pixels.bgr`."""
        return self._image

    def gray(self) -> U8:
        """See `Pixels.gray`."""
        return np.asarray(cv2.cvtColor(self._image, cv2.COLOR_BGR2GRAY), np.uint8)


class FrameConverter:
    """Creates `Pixels` of the decoded frames of one stream, rotated and mirrored according to the display matrix.

    Frames with a side above `max_long_side_px` are scaled down to it, with the aspect ratio preserved. `pixels` must
    be called by one thread; the results can be used by any thread.
    """

    def __init__(self, *, max_long_side_px: int | None = None) -> None:
        self._max_long_side_px = max_long_side_px
        # Shared by all frames: VideoFrame.to_ndarray creates one per call, at twice the cost.
        self._reformatter = VideoReformatter()
        self._lock = Lock()
        self._orientation: Orientation | None = None

    def pixels(self, frame: VideoFrame) -> Pixels:
        """Return the pixels of `frame`. Raises `av.FFmpegError` if its format cannot be converted."""
        # Reading the matrix creates a reference cycle in PyAV that keeps the frame alive, so only key frames are
        # read.
        if self._orientation is None or frame.key_frame:
            self._orientation = orientation_of(frame)
        if frame.format.name in _LUMA_FORMATS and self._size(frame) == (frame.width, frame.height):
            return _DecodedPixels(frame, self._orientation, self)
        return ArrayPixels(self.bgr(frame, self._orientation))

    def bgr(self, frame: VideoFrame, orientation: Orientation) -> U8:
        """Convert `frame` to BGR, uint8 (H, W, 3), contiguous. Raises `av.FFmpegError` if that is not possible."""
        width, height = self._size(frame)
        with self._lock:
            # One thread: splitting a frame below full HD is slower.
            bgr = self._reformatter.reformat(frame, width, height, "bgr24", interpolation="AREA", threads=1)
        return np.ascontiguousarray(_orient(np.asarray(bgr.to_ndarray(), np.uint8), orientation))

    def _size(self, frame: VideoFrame) -> tuple[int, int]:
        """Return width and height in px, before rotation."""
        longer = max(frame.width, frame.height)
        factor = min(1.0, (self._max_long_side_px or longer) / longer)
        return max(1, round(frame.width * factor)), max(1, round(frame.height * factor))


class _DecodedPixels:
    """Pixels of a decoded frame with a luma plane."""

    def __init__(self, frame: VideoFrame, orientation: Orientation, converter: FrameConverter) -> None:
        self._frame = frame
        self._orientation = orientation
        self._converter = converter
        self._bgr: U8 | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """See `Pixels.shape`."""
        height, width = self._frame.height, self._frame.width
        return (width, height) if self._orientation.sideways else (height, width)

    def bgr(self) -> U8:
        """See `Pixels.bgr`."""
        if self._bgr is None:
            self._bgr = self._converter.bgr(self._frame, self._orientation)
        return self._bgr

    def gray(self) -> U8:
        """See `Pixels.gray`."""
        plane = self._frame.planes[0]
        padded = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        return _orient(_full_range(padded[:, : plane.width], self._frame), self._orientation)


def _full_range(luma: U8, frame: VideoFrame) -> U8:
    if frame.format.name in _FULL_RANGE or frame.color_range == ColorRange.JPEG:
        return luma
    alpha = 255 / (_WHITE - _BLACK)
    # The fastest way in OpenCV to scale with saturation at 0 and 255.
    return np.asarray(cv2.addWeighted(luma, alpha, luma, 0, -_BLACK * alpha), np.uint8)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation according to the display matrix.

    The matrix maps the stored (x, y) to (a·x + c·y, b·x + d·y). Angles are rounded to multiples of 90°.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return Orientation(False, False, False)
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return Orientation(True, b < 0, c < 0) if abs(b) > abs(a) else Orientation(False, d < 0, a < 0)


def _orient(image: U8, orientation: Orientation) -> U8:
    # numpy takes 5 times as long to transpose and 10 times as long to flip.
    oriented = cv2.transpose(image) if orientation.sideways else image
    flip = _FLIPS.get((orientation.reverse_rows, orientation.reverse_columns))
    return np.asarray(oriented if flip is None else cv2.flip(oriented, flip), np.uint8)
