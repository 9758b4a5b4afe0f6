"""Still images as sources of one frame, and animated images that FFmpeg cannot decode."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fer_stream.capture.discovery import ensure_readable
from fer_stream.capture.media_type import open_image
from fer_stream.capture.pixel_formats import ArrayPixels, Orientation
from fer_stream.capture.source import FrameSource, ReadOptions, Sampler
from fer_stream.errors import UnreadableSource
from fer_stream.log import suppress_native_stderr
from fer_stream.records import U8, DecodeErrors, Frame, SourceInfo, stream_id_of

_PILLOW_FORMATS = {"AVIF", "DIB", "GIF", "HEIF"}
"""Formats decoded by Pillow: OpenCV ignores the orientation of AVIF and does not support the others."""

# Tags of TIFF 6.0, and values of NewSubfileType.
_WIDTH, _HEIGHT, _SUBFILE_TYPE = 256, 257, 254
_REDUCED, _MASK = 0b001, 0b100

# Tag of an MPO's list of pictures, and how the types of those begin that show the same scene from further views.
_MPO_ENTRIES, _MPO_VIEW = 0xB002, "Multi-Frame"

# White of a float image is the first of these that is not exceeded.
_FLOAT_WHITES = (1.0, 255.0, 65535.0)

# Browsers show a picture whose declared duration is at most 10 ms for 100 ms.
_MIN_PICTURE_S, _DEFAULT_PICTURE_S = 0.01, 0.1


class ImageSource:
    """One still image as one frame at 0 s.

    The EXIF orientation is applied. Gray, palette, 16-bit, float and CMYK images are converted to 8-bit BGR; an alpha
    channel is dropped. The first picture of a file with several is used, of a HEIC its primary one; `info.frames` is
    their number without previews.

    Raises `SourceNotFound` if the file does not exist, and `UnreadableSource` if it is not an image, is corrupt, may
    not be read or has more pixels than Pillow's limit against decompression bombs (178,956,970).
    """

    def __init__(
        self, path: str | Path, *, name: str, stream_start_ms: int, clock: Callable[[], float] = time.time
    ) -> None:
        path = Path(path)
        data = _read(path)
        codec, mode, pictures = _read_header(path, data)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._clock = clock
        self._image: U8 | None = _decode(path, codec, data)
        height, width = self._image.shape[:2]
        self._info = SourceInfo(name, "image", width, height, None, pictures, None, codec.lower(), mode)

    @property
    def info(self) -> SourceInfo:
        """Size of the upright image; `codec` and `pixel_format` are Pillow's names of format and mode."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Always empty: the constructor rejects a corrupt image."""
        return DecodeErrors()

    def frames(self) -> Iterator[Frame]:
        """Yield the one frame; none after `close`."""
        if self._image is not None:
            yield Frame(self.stream_id, 0, 0.0, self._clock(), ArrayPixels(self._image))

    def close(self) -> None:
        """Release the image."""
        self._image = None


class AnimationSource:
    """Pictures of an animated image, decoded on demand by Pillow, as the frames of a video.

    The constructor decodes all pictures once, because their durations are not known before.

    Raises the errors of `ImageSource`. Pictures after the first that cannot be decoded are missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        stream_start_ms: int,
        sampler: Sampler | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        path = Path(path)
        self._data: bytes | None = _read(path)
        codec, mode, pictures = _read_header(path, self._data)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._sampler = sampler or Sampler(None)
        self._clock = clock
        self._starts_s, duration_s = _picture_times(self._data, pictures)
        if not self._starts_s:
            raise UnreadableSource(_corrupt(path))
        self._missing = pictures - len(self._starts_s)
        with open_image(self._data) as image:
            height, width = _upright_bgr(image).shape[:2]
        fps = len(self._starts_s) / duration_s
        self._info = SourceInfo(name, "video", width, height, fps, pictures, duration_s, codec.lower(), mode)

    @property
    def info(self) -> SourceInfo:
        """Size of the upright pictures, their number and total duration. `fps` is the average."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Pictures after the first that cannot be decoded."""
        return DecodeErrors(self._missing, "the animation is corrupt or truncated" if self._missing else None)

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures in order; none after `close`."""
        if self._data is None:
            return
        with open_image(self._data) as image:
            for index, start_s in enumerate(self._starts_s):
                image.seek(index)
                if self._sampler.accept(start_s):
                    pixels = ArrayPixels(_upright_bgr(image))
                    yield Frame(self.stream_id, index, start_s, self._clock(), pixels)

    def close(self) -> None:
        """Release the pictures."""
        self._data = None


def _read(path: Path) -> bytes:
    ensure_readable(path)
    return path.read_bytes()


def _corrupt(path: Path) -> str:
    return f"{path} is corrupt or truncated. Copy it again, or save it again as PNG or JPEG."


def _read_header(path: Path, data: bytes) -> tuple[str, str, int]:
    """Return Pillow's format and mode, and the number of pictures.

    No pixels are decoded: a file of a few bytes can declare gigabytes of them.
    """
    try:
        with open_image(data) as header:
            return header.format or "unknown", header.mode, _count_pictures(path, header)
    except Image.DecompressionBombError as error:
        raise UnreadableSource(f"{path} is too large: {error} Reduce its size first.") from error
    except UnreadableSource:
        raise
    except Exception as error:  # Pillow raises any type for corrupt files: ValueError and RuntimeError were observed
        if _is_small_tiff(data):  # of a kind that only OpenCV decodes: colour with float samples
            return "TIFF", "unknown", 1
        raise UnreadableSource(
            f"{path} is not a supported image, or is damaged. Check that it opens in a viewer, or copy it again."
        ) from error


def _count_pictures(path: Path, image: Image.Image) -> int:
    """Return the number of pictures in a file, without previews, masks and the gain map of an HDR photo.

    Raises `UnreadableSource` if the first picture of a TIFF is a preview, as in raw images of cameras.
    """
    frames: int = getattr(image, "n_frames", 1)
    if image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(_MPO_ENTRIES, ())
        return sum(str(entry["Attribute"]["MPType"]).startswith(_MPO_VIEW) for entry in entries) or 1
    if image.format != "TIFF":
        return frames
    pages = []
    for index in range(frames):
        image.seek(index)
        pages.append(int(image.tag_v2.get(_SUBFILE_TYPE, 0)))  # type: ignore[attr-defined] # of TiffImageFile
    if pages[0] & _REDUCED:
        raise UnreadableSource(
            f"{path} begins with a preview, as a raw image of a camera does; these are not supported. Convert it to "
            "JPEG or PNG first."
        )
    return sum(not page & (_REDUCED | _MASK) for page in pages)


def _is_small_tiff(data: bytes) -> bool:
    """Return whether the header is that of a TIFF within Pillow's limit of pixels."""
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
        pixels = int(directory[_WIDTH]) * int(directory[_HEIGHT])
    except Exception:  # noqa: BLE001 - see `_read_header`
        return False
    return 0 < pixels <= 2 * (Image.MAX_IMAGE_PIXELS or 0)


def _decode(path: Path, codec: str, data: bytes) -> U8:
    """Return the first picture upright, uint8 (H, W, 3) BGR."""
    try:
        with open_image(data) as image:
            image.verify()  # OpenCV allocates the declared length of a PNG chunk, up to 4 GB
        if codec in _PILLOW_FORMATS or image.mode == "F":
            with open_image(data) as image:
                return _upright_bgr(image)
    except Exception as error:
        if codec != "TIFF":
            raise UnreadableSource(_corrupt(path)) from error
    return _decode_with_opencv(path, codec, data)


def _decode_with_opencv(path: Path, codec: str, data: bytes) -> U8:
    encoded = np.frombuffer(data, np.uint8)
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH):
        try:
            with suppress_native_stderr():  # OpenCV, libjpeg, libpng and libtiff print warnings
                pixels = cv2.imdecode(encoded, flags)
        except cv2.error as error:
            raise UnreadableSource(f"{path} cannot be decoded: {error.err}. Save it again as PNG or JPEG.") from error
        if pixels is not None:
            return _to_8_bit(pixels)
        if codec != "TIFF":
            raise UnreadableSource(_corrupt(path))
    raise UnreadableSource(f"{path} is corrupt, or has samples of an unusual type. Save it again as PNG or JPEG.")


def _upright_bgr(image: Image.Image) -> U8:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        return np.asarray(cv2.cvtColor(_to_8_bit(np.asarray(upright, np.float32)), cv2.COLOR_GRAY2BGR), np.uint8)
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"), np.uint8)[..., ::-1])


def _to_8_bit(pixels: NDArray[Any]) -> U8:
    """Scale float samples, of which 0 is black and 1, 255, 65535 or the maximum is white, to uint8."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    finite = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(finite.max(initial=0.0))
    white = next((white for white in _FLOAT_WHITES if peak <= white), peak)
    return np.asarray(np.clip(np.rint(finite * (255 / white)), 0, 255), np.uint8)


def _picture_times(data: bytes, pictures: int) -> tuple[list[float], float]:
    """Return the start of each picture up to the first that cannot be decoded, and the total duration, in seconds."""
    starts_s, end_s = [], 0.0
    with open_image(data) as image:
        for index in range(pictures):
            try:
                image.seek(index)
                image.load()
            except Exception:  # noqa: BLE001 - see `_read_header`
                break
            starts_s.append(end_s)
            duration_s = float(image.info.get("duration", 0)) / 1000
            end_s += duration_s if duration_s > _MIN_PICTURE_S else _DEFAULT_PICTURE_S
    return starts_s, end_s


def select_frames(source: FrameSource, options: ReadOptions) -> FrameSource:
    """Return the pictures of `source` that `options` select, rotated. A still image has no time and is always read.

    Raises `UnreadableSource` if an animated image has no picture in the selected part.
    """
    if not options.rotate and (source.info.kind == "image" or not options.is_partial):
        return source
    if source.info.kind == "image":
        options = ReadOptions(rotate=options.rotate)
    return _Selection(source, options)


class _Selection:
    """Pictures of another source, as selected by `options`."""

    def __init__(self, source: FrameSource, options: ReadOptions) -> None:
        self.stream_id = source.stream_id
        self._source = source
        self._options = options
        self._orientation = Orientation().rotated(options.rotate)
        info = source.info
        if info.duration_s and options.start_s >= info.duration_s:
            source.close()
            options.refuse_empty(info.name, info.duration_s)
        width, height = (info.height, info.width) if self._orientation.sideways else (info.width, info.height)
        self._info = replace(info, width=width, height=height, start_s=options.start_s, end_s=options.end_s)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        return self._source.decode_errors

    def frames(self) -> Iterator[Frame]:
        first = None
        for frame in self._source.frames():
            if self._options.is_before(frame.time_s):
                continue
            if self._options.is_after(frame.time_s):
                return
            first = frame.index if first is None else first
            pixels = ArrayPixels(self._orientation.apply(frame.image))
            yield replace(frame, index=frame.index - first, pixels=pixels)

    def close(self) -> None:
        self._source.close()
