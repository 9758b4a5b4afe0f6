"""Kind of a file by its content: still image, animated image or video. Suffixes are often wrong or missing."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pi_heif import register_heif_opener
from PIL import Image, ImageFile

from fer_stream.capture.discovery import ensure_readable
from fer_stream.errors import UnreadableSource

MediaType = Literal["image", "animation", "video"]
"""`image`: one picture. `animation`: an animated image that FFmpeg cannot decode. `video`: everything else."""

_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF.{4}WEBP", "WEBP"),
    (rb"(?:II\*\0|MM\0\*|II\+\0|MM\0\+)", "TIFF"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (rb"[\x28\x34\x38\x40\x6c\x7c]\0\0\0.{8}\x01\0", "DIB"),
    (rb"(?:\0\0\0\x0cjP  |\xff\x4f\xff\x51)", "JPEG2000"),
    (rb"P[1-6]\s", "PPM"),
    (rb".{4}ftyp(?:avif|avis)", "AVIF"),
    (rb".{4}ftyp(?:mif1|msf1|miaf).{4}(?:.{4}){,8}?(?:avif|avis)", "AVIF"),
    (rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|miaf)", "HEIF"),
)  # fmt: skip
"""First bytes of a file, as a regular expression → Pillow's name of the format."""

_UNSUPPORTED = (
    (rb"(?:\xff\x0a|\0\0\0\x0cJXL )", "a JPEG XL image"),
    (rb"II\xbc\x01", "a JPEG XR image"),
    (rb"(?:FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|II\*\0.{4}CR|.{4}ftypcrx )", "a raw image of a camera"),
    (rb"%PDF-", "a PDF document"),
)
"""The same for still images that neither Pillow, OpenCV nor FFmpeg can decode."""

_SIGNATURE_BYTES = 64

_ANIMATION_DECODERS: dict[str, MediaType] = {"GIF": "video", "PNG": "video", "WEBP": "animation", "AVIF": "animation"}
"""Formats that can be animated. FFmpeg does not decode an animated WebP, and decodes one picture of an AVIF."""

# In a JPEG, `FF D9` ends an image and `FF D8 FF` starts one: entropy-coded data cannot contain them.
_NEXT_JPEG = re.compile(rb"\xff\xd9\0*(?=\xff\xd8\xff)")


def media_type_of(path: Path) -> MediaType:
    """Return the kind of a file.

    Raises `SourceNotFound` if it does not exist, and `UnreadableSource` if it may not be read or is a still image of
    a format that is not supported.
    """
    ensure_readable(path)
    with path.open("rb") as file:
        prefix = file.read(_SIGNATURE_BYTES)
    for signature, name in _UNSUPPORTED:
        if re.match(signature, prefix, re.DOTALL):
            raise UnreadableSource(f"{path} is {name}, which is not supported. Convert it to JPEG or PNG first.")
    image_format = next((name for signature, name in _SIGNATURES if re.match(signature, prefix, re.DOTALL)), None)
    if image_format is None or (image_format == "JPEG" and _is_motion_jpeg(path)):
        return "video"
    if image_format in _ANIMATION_DECODERS and _is_animated(path):
        return _ANIMATION_DECODERS[image_format]
    return "image"


@contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """Open an image with Pillow, and suppress its warnings about unusual metadata and more than 89 Mpx.

    Raises what Pillow raises: `Image.DecompressionBombError` above 178,956,970 px, any other type for a corrupt file.
    """
    register_heif_opener()
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
        yield image


def _is_animated(path: Path) -> bool:
    try:
        with open_image(path.read_bytes()) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # noqa: BLE001 - Pillow raises any type for a corrupt file, which is reported when it is read
        return False


def _is_motion_jpeg(path: Path) -> bool:
    """Return whether a JPEG is followed by another of the same size, and no index declares it to be a preview."""
    data = path.read_bytes()
    try:
        with open_image(data) as first:
            if first.format != "JPEG" or not isinstance(first, ImageFile.ImageFile) or first.fp is None:
                return False
            following = _NEXT_JPEG.search(data, first.fp.tell())
        if not following:
            return False
        with open_image(data[following.end() :]) as second:
            return second.size == first.size
    except Exception:  # noqa: BLE001 - see `_is_animated`
        return False
