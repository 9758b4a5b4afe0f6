"""Kind of a file by its content, whatever its name."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_stream import factory
from fer_stream.capture.media_type import media_type_of
from fer_stream.capture.source import EVERYTHING, ReadOptions
from fer_stream.errors import SourceError, SourceNotFound, UnreadableSource
from tests.support.heif import grid_image

SIZE = (64, 48)


def encode(format_name: str, *, pictures: int = 1, **options: Any) -> bytes:
    """Return `pictures` different pictures in one file; a single one without `save_all`."""
    images = [Image.new("RGB", SIZE, (40 * index, 90, 200)) for index in range(pictures)]
    several = {"save_all": True, "append_images": images[1:]} if pictures > 1 else {}
    file = io.BytesIO()
    images[0].save(file, format_name, **several, **options)
    return file.getvalue()


STILLS = {
    **{
        name: encode(name) for name in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "AVIF")
    },
    "HEIF": grid_image(np.zeros((300, 300, 3), np.uint8), codec="heic"),
    "AVIF grid": grid_image(np.zeros((300, 300, 3), np.uint8), codec="avif"),
    "multi-page TIFF": encode("TIFF", pictures=3),
    "MPO": encode("MPO", pictures=2),
}


@pytest.mark.parametrize("name", STILLS)
@pytest.mark.parametrize("file_name", ["photo", "photo.jpg", "photo.mp4"])
def test_a_still_image_is_recognised_under_any_name(tmp_path: Path, name: str, file_name: str) -> None:
    path = tmp_path / file_name
    path.write_bytes(STILLS[name])
    assert media_type_of(path) == "image"
    source = factory.open_file(path, name="photo", stream_start_ms=1, options=EVERYTHING, threads=1)
    assert (source.info.kind, len(list(source.frames()))) == ("image", 1)
    source.close()


def test_every_clip_is_a_video_under_any_name(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "video.jpg"
    for clip in clips.iterdir():
        path.unlink(missing_ok=True)
        path.symlink_to(clip.resolve())
        assert media_type_of(path) == "video", clip.name


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animated_image_gives_every_picture_at_its_time(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "animation"
    path.write_bytes(encode(format_name, pictures=5, duration=[100, 200, 300, 400, 500]))
    source = factory.open_file(path, name="animation", stream_start_ms=1, options=EVERYTHING, threads=1)
    frames = [(frame.index, round(frame.time_s, 3), frame.image.shape) for frame in source.frames()]
    assert [index for index, *_ in frames] == [0, 1, 2, 3, 4]
    assert [time_s for _, time_s, _ in frames] == [0.0, 0.1, 0.3, 0.6, 1.0]
    assert {shape for *_, shape in frames} == {(48, 64, 3)}
    assert source.info.kind == "video"
    assert source.decode_errors.packets == 0
    source.close()


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "WEBP", "AVIF"])
def test_the_pictures_of_an_animated_image_are_sampled(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "animation"
    path.write_bytes(encode(format_name, pictures=5, duration=100))
    source = factory.open_file(path, name="animation", stream_start_ms=1, options=ReadOptions(fps=5), threads=1)
    assert [frame.index for frame in source.frames()] == [0, 2, 4]
    source.close()
    source.close()


@pytest.mark.parametrize("format_name", ["WEBP", "AVIF"])
def test_a_damaged_animation_is_read_or_rejected(
    tmp_path: Path, format_name: str, corrupted: Callable[[bytes], st.SearchStrategy[bytes]]
) -> None:
    path = tmp_path / "animation"

    @settings(max_examples=50)
    @given(corrupted(encode(format_name, pictures=4, duration=100)))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            source = factory.open_file(path, name="animation", stream_start_ms=1, options=EVERYTHING, threads=1)
            frames = list(source.frames())
        except SourceError as error:
            message = str(error)
            assert str(path) in message
        else:
            assert len(frames) + source.decode_errors.packets == source.info.frames or source.info.frames is None

    check()


def test_jpegs_in_sequence_are_a_video_and_a_jpeg_with_a_preview_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(STILLS["JPEG"] * 3)
    assert media_type_of(path) == "video"
    preview = io.BytesIO()
    Image.new("RGB", (16, 12)).save(preview, "JPEG")
    path.write_bytes(STILLS["JPEG"] + preview.getvalue())
    assert media_type_of(path) == "image"


@pytest.mark.parametrize(
    ("first_bytes", "name"),
    [
        (b"\xff\x0a\xfa\x1f\x01\x91", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"II\xbc\x01", "JPEG XR"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01", "raw image"),
        (b"II*\0\x10\0\0\0CR\x02\0", "raw image"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_unsupported_still_images_are_named(tmp_path: Path, first_bytes: bytes, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(first_bytes + bytes(100))
    with pytest.raises(UnreadableSource, match=f"{name}.*Convert it to JPEG or PNG first"):
        media_type_of(path)


def test_missing_and_empty_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        media_type_of(tmp_path / "absent.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableSource, match="empty"):
        media_type_of(tmp_path / "empty.jpg")
