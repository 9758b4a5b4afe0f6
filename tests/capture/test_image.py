"""Still images as sources of one frame."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_stream.capture.image import ImageSource
from fer_stream.capture.source import FrameSource
from fer_stream.errors import SourceError, SourceNotFound, UnreadableSource
from fer_stream.records import DecodeErrors


def opened(path: Path) -> ImageSource:
    return ImageSource(path, name="photo", stream_start_ms=7, clock=lambda: 123.0)


def save(path: Path, mode: str = "RGB", **options: Any) -> Path:
    """40×20, the left half red and the right half blue."""
    picture = Image.new("RGB", (40, 20), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    picture.convert(mode).save(path, **options)
    return path


def test_gives_one_frame(tmp_path: Path) -> None:
    source: FrameSource = opened(save(tmp_path / "a.png"))
    (frame,) = source.frames()
    assert (frame.stream_id, frame.index, frame.time_s, frame.captured_at) == ("photo@7", 0, 0.0, 123.0)
    assert frame.image.shape == (20, 40, 3)
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous
    assert frame.image[10, 10].tolist() == [0, 0, 255], "BGR"
    assert (source.info.kind, source.info.width, source.info.height, source.info.codec) == ("image", 40, 20, "png")
    assert source.decode_errors == DecodeErrors()


def test_close_may_be_called_twice(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "a.png"))
    source.close()
    source.close()
    assert list(source.frames()) == []


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tiff", "a.bmp", "a.jp2", "a.ppm", "a.avif", "a.dib"])
def test_reads_the_usual_formats(tmp_path: Path, name: str) -> None:
    (frame,) = opened(save(tmp_path / name)).frames()
    red, blue = frame.image[10, 10].astype(int), frame.image[10, 30].astype(int)
    assert red[2] > 200 > 60 > red[0]
    assert blue[0] > 200 > 60 > blue[2]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_makes_bgr_of_any_mode(tmp_path: Path, mode: str) -> None:
    (frame,) = opened(save(tmp_path / "a.png", mode)).frames()
    assert frame.image.shape == (20, 40, 3)
    assert frame.image.dtype == np.uint8


def test_scales_16_bits_to_8(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 0x8000, np.uint16))
    (frame,) = opened(tmp_path / "a.png").frames()
    assert np.all(frame.image == 128)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.avif"])
def test_turns_the_picture_upright(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn a quarter clockwise to view
    source = opened(save(tmp_path / name, exif=exif))
    (frame,) = source.frames()
    assert (source.info.width, source.info.height) == (20, 40)
    assert frame.image.shape == (40, 20, 3)
    assert frame.image[5, 10, 2] > 200, "the left half is on top now"
    assert frame.image[35, 10, 0] > 200


def test_takes_a_single_pixel(tmp_path: Path) -> None:
    Image.new("L", (1, 1), 9).save(tmp_path / "a.png")
    (frame,) = opened(tmp_path / "a.png").frames()
    assert frame.image.tolist() == [[[9, 9, 9]]]


def test_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    whole = save(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    cases: list[tuple[str, type[SourceError], str]] = [
        ("absent.png", SourceNotFound, "no file"),
        ("empty.png", UnreadableSource, "empty"),
        ("text.png", UnreadableSource, "no picture"),
        ("cut.png", UnreadableSource, "cut off"),
        (".", UnreadableSource, "folder"),
    ]
    for name, error, said in cases:
        with pytest.raises(error, match=said):
            opened(tmp_path / name)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_refuses_a_decompression_bomb_before_decoding_it(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    bomb.write(b"\x89PNG\r\n\x1a\n")
    bomb.write(chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)))
    bomb.write(chunk(b"IDAT", zlib.compress(bytes(7501 * 60))) + chunk(b"IEND", b""))
    (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
    with pytest.raises(UnreadableSource, match=r"3600000000 pixels.*limit of 178956970 pixels"):
        opened(tmp_path / "bomb.png")


PNG = b"\x89PNG\r\n\x1a\n"


def test_a_chunk_that_claims_gigabytes_is_not_believed(tmp_path: Path) -> None:
    """OpenCV makes room for them, 4 GB here, before it looks whether they are there."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 1, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(PNG + header + struct.pack(">I", 0xF6FFFF5C) + b"IDATx")
    with pytest.raises(UnreadableSource, match="cut off"):
        opened(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.jp2", b"\xffQ\x00\x2f", b"\xffQ\x00\x00"),
        ("a.jp2", b"\xffR\x00\x0c", b"\xffR\x00\x00"),
        ("a.avif", b"av01", b"av15"),
        ("a.png", struct.pack(">I", 13) + b"IHDR", struct.pack(">I", 10) + b"IHDR"),
        ("a.tiff", struct.pack("<HH", 256, 4), struct.pack("<HH", 256, 2)),
    ],
    ids=["jp2 size", "jp2 marker", "avif", "png", "tiff"],
)
def test_what_fuzzing_found(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    """Headers for which Pillow raises other errors than it says."""
    whole = save(tmp_path / name).read_bytes()
    assert old in whole
    (tmp_path / name).write_bytes(whole.replace(old, new))
    with pytest.raises(UnreadableSource, match="no picture"):
        opened(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp", "a.jp2", "a.ppm", "a.avif", "a.dib"])
def test_any_damage_gives_a_picture_or_a_source_error(
    tmp_path: Path, name: str, damaged: Callable[[bytes], st.SearchStrategy[bytes]]
) -> None:
    path = save(tmp_path / name)

    @settings(max_examples=50)
    @given(damaged(path.read_bytes()))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            (frame,) = opened(path).frames()
        except SourceError as error:
            said = str(error)
            assert str(path) in said
        else:
            assert frame.image.dtype == np.uint8
            assert frame.image.shape[2:] == (3,)

    check()


def test_refuses_a_file_that_may_not_be_read(
    forbidden_folder: Path, error_as_nobody: Callable[[str, str, str], str]
) -> None:
    path = save(forbidden_folder / "a.png")
    path.chmod(0o000)
    said = error_as_nobody("fer_stream.capture.image", "ImageSource", f"{str(path)!r}, name='x', stream_start_ms=1")
    assert said.startswith("UnreadableSource")
    assert "may not be read" in said
