"""The pixels of a frame, in the forms that the stages ask for.

Between two looks of the detector only the gray picture is wanted, and a decoded one has it already: the luma plane.
The colours are converted when somebody asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from fer_stream.records import U8, Pixels

# Eight bits of luma in the first plane, from 16 to 235 unless the frame or the format says 0 to 255.
_LIMITED = {"yuv420p", "yuv422p", "yuv444p", "nv12", "nv21"}
_FULL = {"yuvj420p", "yuvj422p", "yuvj444p"}
_WITH_LUMA = _LIMITED | _FULL
_BLACK, _WHITE = 16, 235

_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}
"""Are rows, columns reversed → the code of cv2.flip."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture lies: are rows and columns swapped, and then rows, columns reversed?"""

    sideways: bool
    reverse_rows: bool
    reverse_columns: bool


class Plain:
    """The pixels of a picture that is there already, uint8 (H, W, 3) BGR."""

    def __init__(self, image: U8) -> None:
        self._image = image

    @property
    def shape(self) -> tuple[int, int]:
        """As `Pixels.shape`."""
        height, width = self._image.shape[:2]
        return height, width

    def bgr(self) -> U8:
        """As `Pixels.bgr`."""
        return self._image

    def gray(self) -> U8:
        """As `Pixels.gray`."""
        return np.asarray(cv2.cvtColor(self._image, cv2.COLOR_BGR2GRAY), np.uint8)


class Converter:
    """Makes pixels of the decoded frames of one stream, turned and mirrored as the display matrix says.

    A long side above `long_side_px` is reduced to it; the shape is kept. One thread makes pixels, any may use them.
    """

    def __init__(self, *, long_side_px: int | None = None) -> None:
        self._long_side_px = long_side_px
        # One for all frames: VideoFrame.to_ndarray makes a new one each time, at twice the cost.
        self._reformatter = VideoReformatter()
        self._lock = Lock()
        self._orientation: Orientation | None = None

    def pixels(self, frame: VideoFrame) -> Pixels:
        """Its pixels; raises `av.FFmpegError` where they cannot be converted."""
        # PyAV ties a frame that was asked for its matrix to it in a cycle, so that it outlives its use.
        if self._orientation is None or frame.key_frame:
            self._orientation = orientation_of(frame)
        if frame.format.name in _WITH_LUMA and self._size(frame) == (frame.width, frame.height):
            return _Decoded(frame, self._orientation, self)
        return Plain(self.bgr(frame, self._orientation))

    def bgr(self, frame: VideoFrame, orientation: Orientation) -> U8:
        """Its colours, contiguous; raises `av.FFmpegError` where they cannot be converted."""
        width, height = self._size(frame)
        with self._lock:
            # One thread: a picture below full HD takes longer when it is split.
            bgr = self._reformatter.reformat(frame, width, height, "bgr24", interpolation="AREA", threads=1)
        return np.ascontiguousarray(_upright(np.asarray(bgr.to_ndarray(), np.uint8), orientation))

    def _size(self, frame: VideoFrame) -> tuple[int, int]:
        """Width and height in px, before the picture is turned."""
        longer = max(frame.width, frame.height)
        factor = min(1.0, (self._long_side_px or longer) / longer)
        return max(1, round(frame.width * factor)), max(1, round(frame.height * factor))


class _Decoded:
    """The pixels of a decoded frame with a luma plane."""

    def __init__(self, frame: VideoFrame, orientation: Orientation, converter: Converter) -> None:
        self._frame = frame
        self._orientation = orientation
        self._converter = converter
        self._bgr: U8 | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """As `Pixels.shape`."""
        height, width = self._frame.height, self._frame.width
        return (width, height) if self._orientation.sideways else (height, width)

    def bgr(self) -> U8:
        """As `Pixels.bgr`."""
        if self._bgr is None:
            self._bgr = self._converter.bgr(self._frame, self._orientation)
        return self._bgr

    def gray(self) -> U8:
        """As `Pixels.gray`."""
        plane = self._frame.planes[0]
        padded = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        return _upright(_full_range(padded[:, : plane.width], self._frame), self._orientation)


def _full_range(luma: U8, frame: VideoFrame) -> U8:
    if frame.format.name in _FULL or frame.color_range == ColorRange.JPEG:
        return luma
    alpha = 255 / (_WHITE - _BLACK)
    # OpenCV has no faster way to scale and to stop at 0 and 255.
    return np.asarray(cv2.addWeighted(luma, alpha, luma, 0, -_BLACK * alpha), np.uint8)


def orientation_of(frame: VideoFrame) -> Orientation:
    """How the display matrix lays the picture.

    The matrix moves the stored (x, y) to (a·x + c·y, b·x + d·y). Other angles are taken for the nearest quarter.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return Orientation(False, False, False)
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return Orientation(True, b < 0, c < 0) if abs(b) > abs(a) else Orientation(False, d < 0, a < 0)


def _upright(image: U8, orientation: Orientation) -> U8:
    # numpy takes five times as long, and tenfold to flip.
    upright = cv2.transpose(image) if orientation.sideways else image
    flip = _FLIPS.get((orientation.reverse_rows, orientation.reverse_columns))
    return np.asarray(upright if flip is None else cv2.flip(upright, flip), np.uint8)
