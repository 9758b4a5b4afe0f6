"""Still images as sources of one frame."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fer_stream.capture.discovery import ensure_readable
from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.errors import UnreadableSource
from fer_stream.records import U8, DecodeErrors, Frame, SourceInfo, stream_id_of

_PILLOW_FORMATS = {"avif", "dib"}
"""Formats decoded by Pillow: OpenCV ignores the orientation of AVIF and does not support DIB."""


class ImageSource:
    """One still image as one frame at 0 s.

    The EXIF orientation is applied. Gray, palette, 16-bit and CMYK images are converted to 8-bit BGR; an alpha
    channel is dropped. The first image of an animation or of a multi-page file is used.

    Raises `SourceNotFound` if the file does not exist, and `UnreadableSource` if it is not an image, is corrupt, may
    not be read or has more pixels than Pillow's limit against decompression bombs (178,956,970).
    """

    def __init__(
        self, path: str | Path, *, name: str, stream_start_ms: int, clock: Callable[[], float] = time.time
    ) -> None:
        path = Path(path)
        ensure_readable(path)
        data = path.read_bytes()
        codec, mode = _read_header(path, data)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._clock = clock
        self._image: U8 | None = _decode(path, codec, data)
        height, width = self._image.shape[:2]
        self._info = SourceInfo(name, "image", width, height, None, 1, None, codec, mode)

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


def _read_header(path: Path, data: bytes) -> tuple[str, str]:
    """Return format and mode without decoding pixels: a file of a few bytes can declare gigabytes of them."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            return (header.format or "unknown").lower(), header.mode
    except Image.DecompressionBombError as error:
        raise UnreadableSource(f"{path} is too large: {error} Reduce its size first.") from error
    except Exception as error:  # Pillow raises any type for corrupt files: ValueError and RuntimeError were observed
        raise UnreadableSource(f"{path} is not a supported image. Check that it opens in a viewer.") from error


def _decode(path: Path, codec: str, data: bytes) -> U8:
    corrupt = f"{path} is corrupt or truncated. Copy it again, or save it again as PNG or JPEG."
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # OpenCV allocates the declared length of a PNG chunk, up to 4 GB
        if codec in _PILLOW_FORMATS:
            return _decode_with_pillow(data)
    except Exception as error:
        raise UnreadableSource(corrupt) from error
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnreadableSource(f"{path} cannot be decoded: {error.err}. Save it again as PNG or JPEG.") from error
    if pixels is None:
        raise UnreadableSource(corrupt)
    return pixels.astype(np.uint8, copy=False)


def _decode_with_pillow(data: bytes) -> U8:
    with Image.open(io.BytesIO(data)) as image:
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])
