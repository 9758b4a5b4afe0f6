"""Still images: a source of one frame."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fer_stream.capture.discovery import check_file
from fer_stream.capture.pixel_formats import Plain
from fer_stream.errors import UnreadableSource
from fer_stream.records import U8, DecodeErrors, Frame, SourceInfo, stream_id_of

_BY_PILLOW = {"avif", "dib"}
"""OpenCV leaves the first as it lies, and does not read the second."""


class ImageSource:
    """One still image as one frame at 0 s.

    The picture is upright as its EXIF orientation says. Gray, palette, 16-bit and CMYK pictures become 8-bit BGR; an
    alpha channel is dropped. Of an animated picture or one with pages, the first is taken.

    Raises `SourceNotFound` where there is no such file, and `UnreadableSource` where it is no picture, is broken, may
    not be read or has more pixels than Pillow holds to be safe (178,956,970).
    """

    def __init__(
        self, path: str | Path, *, name: str, stream_start_ms: int, clock: Callable[[], float] = time.time
    ) -> None:
        path = Path(path)
        check_file(path)
        data = path.read_bytes()
        codec, mode = _header(path, data)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._clock = clock
        self._image: U8 | None = _decoded(path, codec, data)
        height, width = self._image.shape[:2]
        self._info = SourceInfo(name, "image", width, height, None, 1, None, codec, mode)

    @property
    def info(self) -> SourceInfo:
        """Size of the upright picture; `codec` and `pixel_format` are Pillow's names of format and mode."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Always none: a broken picture is refused as a whole."""
        return DecodeErrors()

    def frames(self) -> Iterator[Frame]:
        """The one frame; none after `close`."""
        if self._image is not None:
            yield Frame(self.stream_id, 0, 0.0, self._clock(), Plain(self._image))

    def close(self) -> None:
        """Let go of the picture."""
        self._image = None


def _header(path: Path, data: bytes) -> tuple[str, str]:
    """Format and mode, read without decoding a pixel: a few bytes of file may claim gigabytes of picture."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            return (header.format or "unknown").lower(), header.mode
    except Image.DecompressionBombError as error:
        raise UnreadableSource(f"{path} is refused. {error} Shrink the picture first.") from error
    except Exception as error:  # a broken file makes Pillow raise anything: ValueError and RuntimeError were seen
        raise UnreadableSource(f"{path} is no picture that can be read. Check that it opens in a viewer.") from error


def _decoded(path: Path, codec: str, data: bytes) -> U8:
    broken = f"{path} is broken or cut off. Copy it again, or save it anew as PNG or JPEG."
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()  # of a PNG; OpenCV makes room for whatever length a chunk claims, be it 4 GB
        if codec in _BY_PILLOW:
            return _by_pillow(data)
    except Exception as error:
        raise UnreadableSource(broken) from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise UnreadableSource(f"{path} cannot be decoded: {error.err}. Save it anew as PNG or JPEG.") from error
    if image is None:
        raise UnreadableSource(broken)
    return image.astype(np.uint8, copy=False)


def _by_pillow(data: bytes) -> U8:
    with Image.open(io.BytesIO(data)) as picture:
        rgb = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])
