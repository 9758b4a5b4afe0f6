"""Pixels of a frame as gray or BGR, converted on demand.

Between two runs of the detector only the gray frame is needed, which is the luma plane of most decoded frames. BGR is
converted only if it is requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from fer_stream.capture.hdr import RGB_FORMAT, TRANSFERS, ToneMapper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_stream.records import U8, Pixels

# Formats with 8-bit luma in the first plane: 16 to 235, or 0 to 255 if the frame or the format says so.
_LIMITED_RANGE = {"yuv420p", "yuv422p", "yuv444p", "nv12", "nv21"}
_FULL_RANGE = {"yuvj420p", "yuvj422p", "yuvj444p"}
_LUMA_FORMATS = _LIMITED_RANGE | _FULL_RANGE
_BLACK, _WHITE = 16, 235
# Formats with luma of more bits in the first plane, which is only used for HDR: decoders return it in these formats.
_DEEP_LUMA_FORMATS = {f"yuv{sampling}p{bits}le" for sampling in (420, 422, 444) for bits in (10, 12)}

SQUARE = Fraction(1)
"""Sample aspect ratio of square pixels."""

# No format has pixels wider or narrower than this: the header is damaged.
_MAX_ASPECT = 10
# Frames are not made wider than this (8K) to make their pixels square; their height is reduced instead.
_MAX_STRETCHED_PX = 7680

_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}
"""(reverse rows, reverse columns) → flip code of cv2.flip."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """Orientation of a stored frame: rows and columns are swapped if `sideways`, then reversed."""

    sideways: bool = False
    reverse_rows: bool = False
    reverse_columns: bool = False

    def rotated(self, degrees: int) -> Orientation:
        """Return this orientation followed by a clockwise rotation, a multiple of 90."""
        turned = self
        for _ in range(degrees % 360 // 90):
            turned = Orientation(not turned.sideways, turned.reverse_columns, not turned.reverse_rows)
        return turned

    def apply(self, image: U8) -> U8:
        """Orient a stored image, uint8 (H, W) or (H, W, 3)."""
        # numpy takes 5 times as long to transpose and 10 times as long to flip.
        oriented = cv2.transpose(image) if self.sideways else image
        flip = _FLIPS.get((self.reverse_rows, self.reverse_columns))
        return np.asarray(oriented if flip is None else cv2.flip(oriented, flip), np.uint8)


@dataclass(frozen=True, slots=True)
class Display:
    """How a decoded frame must be displayed, as far as PyAV gives this for streams rather than for frames.

    `aspect` is the width of a pixel divided by its height. `transfer` is the transfer characteristic, a value of
    ITU-T H.273.
    """

    aspect: Fraction = SQUARE
    transfer: int = ColorTrc.UNSPECIFIED


UNSPECIFIED = Display()
"""Square pixels of standard range."""


class StreamDisplay:
    """Display properties of the frames of a stream.

    The aspect ratio of the container has priority over that of the bitstream, until the latter changes, as between
    two programmes of a TV recording. The transfer characteristic of the bitstream has priority.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context
        self._declared_aspect = _plausible(stream.sample_aspect_ratio)
        self._declared_transfer = self._codec.color_trc
        self._first_aspect: Fraction | None = None

    def of(self, frame: VideoFrame) -> Display:
        """Return the properties of `frame`, which must be the one that was decoded last."""
        unspecified = frame.color_trc == ColorTrc.UNSPECIFIED
        return Display(self.aspect(), self._declared_transfer if unspecified else frame.color_trc)

    def aspect(self) -> Fraction:
        """Return the aspect ratio of the frame that was decoded last."""
        coded = _plausible(self._codec.sample_aspect_ratio) or SQUARE
        self._first_aspect = self._first_aspect or coded
        return self._declared_aspect if self._declared_aspect and coded == self._first_aspect else coded


def _plausible(aspect: Fraction | None) -> Fraction | None:
    return aspect if aspect and 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else None


def displayed_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return the size with square pixels: the number of rows is kept, as by FFmpeg and for NTSC, 640 × 480."""
    stretched = max(1, round(width * aspect))
    if stretched > max(width, _MAX_STRETCHED_PX):
        return width, max(1, round(height / aspect))
    return stretched, height


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


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Size of a frame with square pixels before rotation, in px, and its orientation."""

    width: int
    height: int
    orientation: Orientation

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the upright frame."""
        return (self.width, self.height) if self.orientation.sideways else (self.height, self.width)

    def apply(self, image: U8) -> U8:
        """Scale and orient a stored gray image, uint8."""
        return self.orientation.apply(_resize(image, self.width, self.height))


class FrameConverter:
    """Creates `Pixels` of the decoded frames of one stream, as they are displayed.

    Frames are rotated and mirrored according to the display matrix, and scaled horizontally so that their pixels are
    square. HDR is tone-mapped. Frames with a side above `max_long_side_px` are scaled down to it, with the aspect
    ratio preserved. `rotate` is a further rotation in degrees clockwise. `pixels` must be called by one thread; the
    results can be used by any thread.
    """

    def __init__(self, *, max_long_side_px: int | None = None, rotate: int = 0) -> None:
        self._rotate = rotate
        self._max_long_side_px = max_long_side_px
        # Shared by all frames: VideoFrame.to_ndarray creates one per call, at twice the cost.
        self._reformatter = VideoReformatter()
        self._lock = Lock()
        self._orientation: Orientation | None = None
        self._tone_mapper: ToneMapper | None = None

    def pixels(self, frame: VideoFrame, display: Display = UNSPECIFIED) -> Pixels:
        """Return the pixels of `frame`. Raises `av.FFmpegError` if its format cannot be converted."""
        geometry, name = self._geometry(frame, display), frame.format.name
        hdr = self._tone_mapper_for(display)
        if name in _LUMA_FORMATS or (hdr and name in _DEEP_LUMA_FORMATS):
            return _DecodedPixels(frame, geometry, hdr, self)
        return ArrayPixels(self.bgr(frame, geometry, hdr))

    def shape(self, frame: VideoFrame, display: Display) -> tuple[int, int]:
        """Return height and width in px of the pixels of `frame` without converting them."""
        return self._geometry(frame, display).shape

    def bgr(self, frame: VideoFrame, geometry: _Geometry, hdr: ToneMapper | None) -> U8:
        """Convert `frame` to BGR, uint8 (H, W, 3), contiguous. Raises `av.FFmpegError` if that is not possible."""
        width, height = geometry.width, geometry.height
        rgb_format = RGB_FORMAT if hdr else "bgr24"
        with self._lock:
            # One thread: splitting a frame below full HD is slower.
            bgr = self._reformatter.reformat(frame, width, height, rgb_format, interpolation="AREA", threads=1)
            if hdr:
                bgr = hdr.bgr(bgr)
        return np.ascontiguousarray(geometry.orientation.apply(np.asarray(bgr.to_ndarray(), np.uint8)))

    def _geometry(self, frame: VideoFrame, display: Display) -> _Geometry:
        # Reading the matrix creates a reference cycle in PyAV that keeps the frame alive, so only key frames are
        # read.
        if self._orientation is None or frame.key_frame:
            self._orientation = orientation_of(frame).rotated(self._rotate)
        width, height = displayed_size(frame.width, frame.height, display.aspect)
        longer = max(width, height)
        factor = min(1.0, (self._max_long_side_px or longer) / longer)
        return _Geometry(max(1, round(width * factor)), max(1, round(height * factor)), self._orientation)

    def _tone_mapper_for(self, display: Display) -> ToneMapper | None:
        if display.transfer not in TRANSFERS:
            return None
        if self._tone_mapper is None or self._tone_mapper.transfer != display.transfer:
            self._tone_mapper = ToneMapper(display.transfer)
        return self._tone_mapper


class _DecodedPixels:
    """Pixels of a decoded frame with a luma plane, tone-mapped by `hdr` if it is not None."""

    def __init__(
        self, frame: VideoFrame, geometry: _Geometry, hdr: ToneMapper | None, converter: FrameConverter
    ) -> None:
        self._frame = frame
        self._geometry = geometry
        self._hdr = hdr
        self._converter = converter
        self._bgr: U8 | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """See `Pixels.shape`."""
        return self._geometry.shape

    def bgr(self) -> U8:
        """See `Pixels.bgr`."""
        if self._bgr is None:
            self._bgr = self._converter.bgr(self._frame, self._geometry, self._hdr)
        return self._bgr

    def gray(self) -> U8:
        """See `Pixels.gray`."""
        gray = _hdr_gray(self._frame, self._hdr) if self._hdr else _full_range(_luma(self._frame), self._frame)
        return self._geometry.apply(gray)


def _resize(image: U8, width: int, height: int) -> U8:
    if image.shape == (height, width):
        return image
    shrinks = width * height < image.size
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )


def _luma(frame: VideoFrame, dtype: type[np.generic] = np.uint8) -> NDArray[Any]:
    """Return a view of the first plane, (H, W) of `dtype`."""
    plane = frame.planes[0]
    padded = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    return padded[:, : plane.width]


def _hdr_gray(frame: VideoFrame, tone_mapper: ToneMapper) -> U8:
    bits = frame.format.components[0].bits
    table = tone_mapper.gray_of_luma(bits, full_range=_is_full_range(frame))
    luma = _luma(frame, np.uint8 if bits == 8 else np.uint16)
    return np.asarray(np.take(table, luma, mode="clip"), np.uint8)


def _is_full_range(frame: VideoFrame) -> bool:
    return frame.format.name in _FULL_RANGE or frame.color_range == ColorRange.JPEG


def _full_range(luma: U8, frame: VideoFrame) -> U8:
    if _is_full_range(frame):
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
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return Orientation(True, b < 0, c < 0) if abs(b) > abs(a) else Orientation(False, d < 0, a < 0)
