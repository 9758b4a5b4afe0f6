"""Still images as sources of one frame."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_stream.capture.image import ImageSource
from fer_stream.capture.source import FrameSource
from fer_stream.errors import SourceError, SourceNotFound, UnreadableSource
from fer_stream.records import DecodeErrors
from tests.support.heif import grid_image


def opened(path: Path) -> ImageSource:
    return ImageSource(path, name="photo", stream_start_ms=7, clock=lambda: 123.0)


def save(path: Path, mode: str = "RGB", **options: Any) -> Path:
    """Write an image of 40×20 px, the left half red and the right half blue."""
    image = Image.new("RGB", (40, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 20, 20))
    image.convert(mode).save(path, **options)
    return path


def test_image_is_one_frame(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tiff", "a.bmp", "a.jp2", "a.ppm", "a.avif", "a.dib", "a.gif"])
def test_common_formats_are_read(tmp_path: Path, name: str) -> None:
    (frame,) = opened(save(tmp_path / name)).frames()
    red, blue = frame.image[10, 10].astype(int), frame.image[10, 30].astype(int)
    assert red[2] > 200 > 60 > red[0]
    assert blue[0] > 200 > 60 > blue[2]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_any_mode_is_converted_to_bgr(tmp_path: Path, mode: str) -> None:
    (frame,) = opened(save(tmp_path / "a.png", mode)).frames()
    assert frame.image.shape == (20, 40, 3)
    assert frame.image.dtype == np.uint8


def test_16_bit_images_are_scaled_to_8_bit(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 0x8000, np.uint16))
    (frame,) = opened(tmp_path / "a.png").frames()
    assert np.all(frame.image == 128)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.avif"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: rotate by 90° clockwise
    source = opened(save(tmp_path / name, exif=exif))
    (frame,) = source.frames()
    assert (source.info.width, source.info.height) == (20, 40)
    assert frame.image.shape == (40, 20, 3)
    assert frame.image[5, 10, 2] > 200, "the left half is at the top"
    assert frame.image[35, 10, 0] > 200


@pytest.mark.parametrize("codec", ["heic", "avif"])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_grid_of_tiles_is_read_upright(tmp_path: Path, codec: str, quarters: int) -> None:
    """A phone writes its orientation twice, as a property and as EXIF; the image must be turned once."""
    stored = np.zeros((300, 500, 3), np.uint8)
    stored[:100, :, 0], stored[:, 400:, 1], stored[200:, :50, 2] = 250, 200, 180
    exif = Image.Exif()
    exif[0x0112] = {0: 1, 1: 8, 2: 3, 3: 6}[quarters]
    path = tmp_path / f"a.{codec}"
    path.write_bytes(
        grid_image(stored, codec=codec, rotation=quarters, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    )
    (frame,) = opened(path).frames()
    expected = np.rot90(stored, quarters)
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 3


TIFF_SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "float 0..1": (lambda bgr: (bgr.mean(axis=2) / 255).astype(np.float32), {}),
    "float 0..255": (lambda bgr: bgr.mean(axis=2).astype(np.float32), {}),
    "float 0..65535": (lambda bgr: (bgr.mean(axis=2) * 257).astype(np.float32), {}),
    "float colour": (lambda bgr: (bgr[..., ::-1] / 255).astype(np.float32), {"photometric": "rgb"}),
    "double colour": (lambda bgr: bgr[..., ::-1] / 255, {"photometric": "rgb"}),
    "16 bit": (lambda bgr: (bgr.mean(axis=2) * 257).astype(np.uint16), {}),
    "16 bit, big-endian": (lambda bgr: (bgr.mean(axis=2) * 257).astype(np.uint16), {"byteorder": ">"}),
    "16 bit, white is 0": (
        lambda bgr: (65535 - bgr.mean(axis=2) * 257).astype(np.uint16),
        {"photometric": "miniswhite"},
    ),
    "16 bit colour": (lambda bgr: bgr[..., ::-1].astype(np.uint16) * 257, {"photometric": "rgb"}),
    "16 bit colour, compressed": (
        lambda bgr: bgr[..., ::-1].astype(np.uint16) * 257,
        {"photometric": "rgb", "compression": "zlib", "predictor": True},
    ),
    "16 bit colour, planar": (
        lambda bgr: np.moveaxis(bgr[..., ::-1].astype(np.uint16) * 257, 2, 0).copy(),
        {"photometric": "rgb", "planarconfig": "separate"},
    ),
    "16 bit colour, tiled": (
        lambda bgr: bgr[..., ::-1].astype(np.uint16) * 257,
        {"photometric": "rgb", "tile": (16, 16)},
    ),
    "BigTIFF": (lambda bgr: bgr[..., ::-1], {"photometric": "rgb", "bigtiff": True}),
}


@pytest.mark.parametrize("name", TIFF_SAMPLES)
def test_tiff_samples_are_scaled_to_8_bit(tmp_path: Path, name: str) -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    bgr[0, 0] = 255
    samples, options = TIFF_SAMPLES[name]
    tifffile.imwrite(tmp_path / "a.tif", samples(bgr), **options)
    (frame,) = opened(tmp_path / "a.tif").frames()
    expected = bgr if "colour" in name or name == "BigTIFF" else np.repeat(bgr.mean(axis=2)[..., None], 3, 2)
    assert np.abs(frame.image.astype(float) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.float16, np.uint32, np.float64])
def test_tiff_samples_of_other_types_are_rejected(tmp_path: Path, dtype: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), dtype))
    with pytest.raises(UnreadableSource, match="unusual type"):
        opened(tmp_path / "a.tif")


def test_several_pictures_are_counted(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (40, 20), (60 * index, 0, 0)) for index in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "a.mpo", save_all=True, append_images=pages[1:])
    with tifffile.TiffWriter(tmp_path / "preview.tif") as writer:
        writer.write(np.zeros((20, 40, 3), np.uint8), photometric="rgb")
        writer.write(np.zeros((10, 20, 3), np.uint8), photometric="rgb", subfiletype=1)
    frames = {path.name: opened(path).info.frames for path in tmp_path.iterdir()}
    assert frames == {"a.tif": 3, "a.mpo": 1, "preview.tif": 1}, "an MPO of a phone contains a gain map"


def test_raw_image_that_begins_with_a_preview_is_rejected(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.nef", np.zeros((20, 40, 3), np.uint8), photometric="rgb", subfiletype=1)
    with pytest.raises(UnreadableSource, match=r"preview.*raw image"):
        opened(tmp_path / "a.nef")


def test_libraries_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "tags.tif", tiffinfo={65000: "private"})
    save(tmp_path / "profile.png", icc_profile=bytes(200))
    data = save(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data.replace(b"\xff\xd9", b"\xff\xd0\x12\xff\xd9"))
    truncated = save(tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(truncated[:-20])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in sorted(tmp_path.iterdir()):
            with contextlib.suppress(UnreadableSource):
                opened(path).close()
    assert (caught, capfd.readouterr().err) == ([], "")


def test_image_of_one_pixel_is_read(tmp_path: Path) -> None:
    Image.new("L", (1, 1), 9).save(tmp_path / "a.png")
    (frame,) = opened(tmp_path / "a.png").frames()
    assert frame.image.tolist() == [[[9, 9, 9]]]


def test_unreadable_files_are_rejected_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("text")
    valid = save(tmp_path / "valid.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(valid[:-30])
    cases: list[tuple[str, type[SourceError], str]] = [
        ("absent.png", SourceNotFound, "File not found"),
        ("empty.png", UnreadableSource, "empty"),
        ("text.png", UnreadableSource, "not a supported image"),
        ("cut.png", UnreadableSource, "truncated"),
        (".", UnreadableSource, "folder"),
    ]
    for name, error, message in cases:
        with pytest.raises(error, match=message):
            opened(tmp_path / name)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_decompression_bomb_is_rejected_before_decoding(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    bomb.write(b"\x89PNG\r\n\x1a\n")
    bomb.write(chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)))
    bomb.write(chunk(b"IDAT", zlib.compress(bytes(7501 * 60))) + chunk(b"IEND", b""))
    (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
    with pytest.raises(UnreadableSource, match=r"3600000000 pixels.*limit of 178956970 pixels"):
        opened(tmp_path / "bomb.png")


PNG = b"\x89PNG\r\n\x1a\n"


def test_declared_chunk_length_is_verified(tmp_path: Path) -> None:
    """OpenCV allocates the declared length, 4 GB here, before it reads the data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 1, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(PNG + header + struct.pack(">I", 0xF6FFFF5C) + b"IDATx")
    with pytest.raises(UnreadableSource, match="truncated"):
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
def test_corrupt_header_is_rejected(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    """Found by fuzzing: headers for which Pillow raises undocumented exception types."""
    valid = save(tmp_path / name).read_bytes()
    assert old in valid
    (tmp_path / name).write_bytes(valid.replace(old, new))
    with pytest.raises(UnreadableSource, match="not a supported image"):
        opened(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp", "a.jp2", "a.ppm", "a.avif", "a.dib", "a.gif", "a.heic"]
)
def test_corrupted_image_is_read_or_rejected(
    tmp_path: Path, name: str, corrupted: Callable[[bytes], st.SearchStrategy[bytes]]
) -> None:
    path = tmp_path / name
    if name == "a.heic":
        path.write_bytes(grid_image(np.zeros((20, 40, 3), np.uint8), codec="heic", tile_px=64))
    else:
        save(path)

    @settings(max_examples=50)
    @given(corrupted(path.read_bytes()))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            (frame,) = opened(path).frames()
        except SourceError as error:
            message = str(error)
            assert str(path) in message
        else:
            assert frame.image.dtype == np.uint8
            assert frame.image.shape[2:] == (3,)

    check()


def test_file_without_read_permission_is_rejected(
    unprotected_folder: Path, error_as_nobody: Callable[[str, str, str], str]
) -> None:
    path = save(unprotected_folder / "a.png")
    path.chmod(0o000)
    error = error_as_nobody("fer_stream.capture.image", "ImageSource", f"{str(path)!r}, name='x', stream_start_ms=1")
    assert error.startswith("UnreadableSource")
    assert "No permission to read" in error
