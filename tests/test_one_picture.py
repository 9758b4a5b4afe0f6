"""One portrait in many containers: the same person with the same label, whatever holds the picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from fer_stream import FileSettings, analyze
from fer_stream.config.settings import DetectorSettings
from fer_stream.records import U8, LabelledFace
from tests.support.heif import grid_image


def by_pillow(**options: Any) -> Callable[[Path, U8], None]:
    def write(path: Path, bgr: U8) -> None:
        Image.fromarray(bgr[..., ::-1]).save(path, **options)

    return write


def by_ffmpeg(codec: str, pix_fmt: str, container_format: str | None = None) -> Callable[[Path, U8], None]:
    def write(path: Path, bgr: U8) -> None:
        height, width = bgr.shape[:2]
        with av.open(str(path), "w", format=container_format) as container:
            stream = container.add_stream(codec, rate=25, width=width, height=height, pix_fmt=pix_fmt)
            assert isinstance(stream, VideoStream)
            stream.options = {"crf": "12", "qmin": "2", "qmax": "2"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(bgr, "bgr24")))
            container.mux(stream.encode())

    return write


def as_grid(codec: str) -> Callable[[Path, U8], None]:
    def write(path: Path, bgr: U8) -> None:
        path.write_bytes(grid_image(bgr, codec=codec))

    return write


def twice(path: Path, bgr: U8) -> None:
    """Write the picture to the first of two pages."""
    image = Image.fromarray(bgr[..., ::-1])
    image.save(path, save_all=True, append_images=[Image.new("RGB", image.size)])


CONTAINERS = {
    "a.png": by_pillow(),
    "a.jpg": by_pillow(quality=95),
    "photo": by_pillow(format="JPEG", quality=95),
    "photo.jpg_original": by_pillow(format="JPEG", quality=95),
    "jpeg.mp4": by_pillow(format="JPEG", quality=95),
    "a.webp": by_pillow(quality=95),
    "a.tif": by_pillow(compression="tiff_lzw"),
    "pages.tif": twice,
    "a.bmp": by_pillow(),
    "a.jp2": by_pillow(),
    "a.ppm": by_pillow(),
    "a.gif": by_pillow(),
    "a.avif": by_pillow(quality=95),
    "grid.avif": as_grid("avif"),
    "a.heic": as_grid("heic"),
    "heic.jpg": as_grid("heic"),
    "a.mp4": by_ffmpeg("libx264", "yuv420p"),
    "a.mkv": by_ffmpeg("ffv1", "yuv420p"),
    "a.avi": by_ffmpeg("mjpeg", "yuvj420p"),
    "a.apng": by_ffmpeg("apng", "rgb24", "apng"),
    "mp4.png": by_ffmpeg("libx264", "yuv420p", "mp4"),
}


@pytest.fixture(scope="module")
def file_settings(yunet_weights: Path) -> FileSettings:
    return FileSettings(detector=DetectorSettings(type="yunet", weights=yunet_weights))


def only_face(path: Path, settings: FileSettings) -> LabelledFace:
    ((face,),) = (frame.faces for frame in analyze(path, settings).frames)
    return face


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_portrait_has_the_same_person_and_label_in_every_container(
    portrait: Path, file_settings: FileSettings, tmp_path: Path, name: str
) -> None:
    with Image.open(portrait) as image:
        bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)[..., ::-1])
    shutil.copy(portrait, tmp_path / "reference.png")
    CONTAINERS[name](tmp_path / name, bgr)
    expected = only_face(tmp_path / "reference.png", file_settings)
    face = only_face(tmp_path / name, file_settings)
    assert (face.person_id, face.label) == (1, "happy") == (expected.person_id, expected.label)
    assert np.abs(face.xyxy - expected.xyxy).max() < 0.05 * float(expected.xyxy[2] - expected.xyxy[0])
