"""Parts of files (`start_s`, `end_s`) and rotation, in any container."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_stream import factory
from fer_stream.capture.decoder import Decoder
from fer_stream.capture.file import VideoFileSource
from fer_stream.capture.source import EVERYTHING, ReadOptions
from fer_stream.errors import UnreadableSource
from fer_stream.records import U8, DecodeErrors, Frame, SourceInfo

MakeVideo = Callable[..., Path]

CONTAINERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("a.mp4", "libx264", {}),
    ("late.mkv", "libx264", {"pts": range(100, 220)}),
    ("a.webm", "libvpx", {}),
    ("a.mov", "mpeg4", {"silence_s": 5.0}),
    ("variable.mp4", "libx264", {"pts": [index * index for index in range(120)], "time_base": Fraction(1, 3000)}),
    ("a.ts", "libx264", {}),
    ("a.avi", "mpeg4", {}),
    ("a.flv", "libx264", {}),
    ("a.h264", "libx264", {}),
)


def read(path: Path, options: ReadOptions = EVERYTHING) -> tuple[list[Frame], SourceInfo, DecodeErrors]:
    source = VideoFileSource(path, name="clip", stream_start_ms=7, options=options)
    frames = list(source.frames())
    source.close()
    return frames, source.info, source.decode_errors


def number(index: int, width: int, height: int) -> U8:
    """Draw the number of a frame as a bar, so that every frame differs from the others."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, : 1 + index % width] = 200
    return image


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_part_contains_the_frames_of_its_time(
    make_video: MakeVideo, name: str, codec: str, options: dict[str, Any]
) -> None:
    path = make_video(name, codec=codec, frames=120, size=(128, 48), draw=number, **options)
    every, _, _ = read(path)
    for start_s, end_s in ((0.0, 1.5), (1.2, 2.0), (2.0, None), (3.333, 4.5), (every[60].time_s, every[61].time_s)):
        part = ReadOptions(start_s=start_s, end_s=end_s)
        frames, info, errors = read(path, part)
        expected = [frame for frame in every if start_s - 1e-3 <= frame.time_s < (end_s or 1e9) - 1e-3]
        assert [frame.time_s for frame in frames] == [frame.time_s for frame in expected]
        assert [frame.index for frame in frames] == list(range(len(expected)))
        assert (info.start_s, info.end_s) == (start_s, end_s)
        assert errors == DecodeErrors()
        for frame, original in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(frame.image, original.image)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.floats(0.01, 4.7), min_size=1, max_size=3, unique=True))
def test_adjacent_parts_contain_each_frame_once(long_video: Path, cuts: list[float]) -> None:
    bounds: list[float | None] = [0.0, *sorted(cuts), None]
    times: list[float] = []
    for start_s, end_s in pairwise(bounds):
        with suppress(UnreadableSource):  # two cuts between two frames
            frames, _, _ = read(long_video, ReadOptions(start_s=start_s or 0.0, end_s=end_s))
            times += [frame.time_s for frame in frames]
    assert times == pytest.approx([index / 25 for index in range(120)], abs=1e-6)


@pytest.fixture
def long_video(make_video: MakeVideo) -> Path:
    return make_video("long.mp4", frames=120, draw=number, size=(128, 48))


def test_start_is_found_without_decoding_what_precedes_it(make_video: MakeVideo) -> None:
    for name in ("a.mp4", "a.mkv"):
        path = make_video(name, frames=500, draw=number)
        with av.open(str(path)) as container:
            decoder = Decoder(container, container.streams.video[0], ReadOptions(start_s=18.0))
            frames = list(decoder.frames())
            assert frames[0].time_s == pytest.approx(18.0)
            assert len(frames) == 50
            assert decoder.decoded < 110, "of 500 frames"


def test_sampling_applies_to_the_part(make_video: MakeVideo) -> None:
    frames, _, _ = read(make_video(frames=100), ReadOptions(fps=5, start_s=1.0, end_s=2.0))
    assert [frame.time_s for frame in frames] == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8])
    assert [frame.index for frame in frames] == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_damage_before_the_part_is_not_reported(make_video: MakeVideo, name: str) -> None:
    path = make_video(name, frames=120, size=(128, 48), draw=noise)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 8, len(data) // 4, 53):
        data[at] ^= 0xFF
    path.write_bytes(data)
    assert read(path)[2].packets > 0
    frames, _, errors = read(path, ReadOptions(start_s=3.0))
    assert errors == DecodeErrors()
    assert frames[0].time_s == pytest.approx(3.0)


def noise(index: int, width: int, height: int) -> U8:
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_truncated_file_is_reported_if_the_part_reaches_its_end(make_video: MakeVideo) -> None:
    path = make_video("a.mkv", frames=120, size=(128, 48), draw=noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read(path, ReadOptions(start_s=1.0))[2].truncated
    assert read(path, ReadOptions(start_s=1.0, end_s=4.0))[2].truncated
    assert not read(path, ReadOptions(end_s=1.0))[2].truncated


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_empty_part_names_the_cure(make_video: MakeVideo, name: str) -> None:
    path = make_video(name)
    with pytest.raises(
        UnreadableSource, match=r"no frame from 1:30\.0\. It ends at 0:00\.8: choose an earlier start"
    ):
        VideoFileSource(path, name="clip", stream_start_ms=7, options=ReadOptions(start_s=90))


def test_part_before_the_first_frame_names_the_cure(make_video: MakeVideo) -> None:
    path = make_video(pts=range(50, 70), silence_s=3.0)
    with pytest.raises(UnreadableSource, match=r"no frame from 0:00\.0 and before 0:01\.0\. Choose a later end"):
        VideoFileSource(path, name="clip", stream_start_ms=7, options=ReadOptions(end_s=1))


# Rotation


def quarters(image: U8) -> list[str]:
    """Return the colours of the quarters of an image, clockwise from the top left."""
    height, width = image.shape[:2]
    points = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.75), (0.75, 0.25))
    return ["bgr"[int(image[int(y * height), int(x * width)].argmax())] for y, x in points]


def coloured(_: int, width: int, height: int) -> U8:
    """Draw blue, green, red and red quarters, clockwise from the top left."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2, 0] = 220
    image[: height // 2, width // 2 :, 1] = 220
    image[height // 2 :, :, 2] = 220
    return image


def clockwise(colours: list[str], degrees: int) -> list[str]:
    turns = degrees // 90 % 4
    return colours[-turns:] + colours[:-turns] if turns else colours


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize(
    "display", [None, (90, False, False), (180, False, False), (270, False, False), (90, True, False)]
)
def test_rotation_is_added_to_that_of_the_file(
    make_video: MakeVideo, display: tuple[int, bool, bool] | None, rotate: int
) -> None:
    path = make_video("a.mov", codec="png", pix_fmt="rgb24", draw=coloured, display=display, frames=2)
    (upright, _), _, _ = read(path)
    (rotated, _), info, _ = read(path, ReadOptions(rotate=rotate))
    assert quarters(rotated.image) == clockwise(quarters(upright.image), rotate)
    assert (info.height, info.width) == rotated.image.shape[:2]
    assert rotated.pixels.gray().shape == rotated.image.shape[:2]


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_still_image_is_rotated_and_has_no_time(tmp_path: Path, rotate: int) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), coloured(0, 64, 48))
    options = ReadOptions(rotate=rotate, start_s=5, end_s=6)
    source = factory.open_file(path, name="a", stream_start_ms=7, options=options, threads=1)
    (frame,) = source.frames()
    source.close()
    assert quarters(frame.image) == clockwise(["b", "g", "r", "r"], rotate)
    assert frame.image.shape[:2] == (source.info.height, source.info.width)
    assert source.info.kind == "image"


def test_animation_has_parts_and_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    pictures = [Image.fromarray(coloured(0, 64, 48)[..., ::-1] // (1 + index)) for index in range(6)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=500, lossless=True)
    options = ReadOptions(rotate=90, start_s=1.0, end_s=2.5)
    source = factory.open_file(path, name="a", stream_start_ms=7, options=options, threads=1)
    frames = list(source.frames())
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 1.0), (1, 1.5), (2, 2.0)]
    assert quarters(frames[0].image) == ["r", "b", "g", "r"]
    assert (source.info.width, source.info.height) == (48, 64)
    source.close()
    with pytest.raises(UnreadableSource, match="It ends at"):
        factory.open_file(path, name="a", stream_start_ms=7, options=ReadOptions(start_s=9), threads=1)
