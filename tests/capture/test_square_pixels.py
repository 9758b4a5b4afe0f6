"""Sample aspect ratio: frames of any container have square pixels, and faces keep their place."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fer_stream.api import analyze_with
from fer_stream.capture.file import VideoFileSource
from fer_stream.config.settings import DetectorSettings, FileSettings
from fer_stream.files import FileProcessor
from fer_stream.records import F32, Frame

MakeVideo = Callable[..., Path]

FORMATS = {
    "PAL DV 4:3": ("a.dv", "dvvideo", (720, 576), Fraction(16, 15), (768, 576)),
    "PAL DV 16:9 in AVI": ("a.avi", "dvvideo", (720, 576), Fraction(64, 45), (1024, 576)),
    "PAL DVD 16:9": ("a.vob", "mpeg2video", (720, 576), Fraction(64, 45), (1024, 576)),
    "NTSC DVD 4:3": ("a.mpg", "mpeg2video", (720, 480), Fraction(8, 9), (640, 480)),
    "NTSC DVD 16:9": ("a.mpg", "mpeg2video", (720, 480), Fraction(32, 27), (853, 480)),
    "HDV": ("a.m2t", "mpeg2video", (1440, 1080), Fraction(4, 3), (1920, 1080)),
    "AVCHD": ("a.mts", "libx264", (1440, 1080), Fraction(4, 3), (1920, 1080)),
    "MP4": ("a.mp4", "libx264", (720, 576), Fraction(64, 45), (1024, 576)),
    "QuickTime": ("a.mov", "mpeg4", (720, 576), Fraction(16, 15), (768, 576)),
    "Matroska": ("a.mkv", "libx264", (720, 480), Fraction(40, 33), (873, 480)),
    "ratio in the container only": ("a.mov", "mjpeg", (480, 576), Fraction(32, 15), (1024, 576)),
    "raw H.264": ("a.h264", "libx264", (352, 576), Fraction(24, 11), (768, 576)),
    "tall pixels": ("a.mp4", "libx264", (640, 240), Fraction(1, 2), (320, 240)),
}
"""Name → file, codec, stored size, sample aspect ratio, displayed size. Widths from ITU-R BT.601 and the DVD, HDV and
AVCHD specifications."""

FRAMES = 6


@pytest.fixture(scope="module")
def processor() -> FileProcessor:
    return FileProcessor(FileSettings(detector=DetectorSettings(type="blazeface", interval_s=0)), threads=1)


@pytest.fixture
def draw_portrait(portrait: Path) -> Callable[[int, int], Callable[[int, int, int], NDArray[np.uint8]]]:
    """Returns a function for `make_video` that draws the portrait as it looks when displayed in the given size."""
    image = cv2.imread(str(portrait))
    assert image is not None

    def scene(width: int, height: int) -> Callable[[int, int, int], NDArray[np.uint8]]:
        canvas = np.full((height, width, 3), 90, np.uint8)
        side = height * 9 // 10
        canvas[:side, width // 8 : width // 8 + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)[
            :, : width - width // 8
        ]

        def draw(_: int, stored_width: int, stored_height: int) -> NDArray[np.uint8]:
            scaled = cv2.resize(canvas, (stored_width, stored_height), interpolation=cv2.INTER_AREA)
            return np.asarray(scaled, np.uint8)

        return draw

    return scene


def read(path: Path) -> tuple[list[Frame], VideoFileSource]:
    source = VideoFileSource(path, name="clip", stream_start_ms=7)
    frames = list(source.frames())
    source.close()
    return frames, source


@pytest.mark.parametrize("kind", FORMATS)
def test_faces_are_where_they_are_displayed(
    make_video: MakeVideo, draw_portrait: Callable[..., object], processor: FileProcessor, kind: str
) -> None:
    name, codec, stored, aspect, displayed = FORMATS[kind]
    options = {"frames": FRAMES, "draw": draw_portrait(*displayed)}
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_video(name, codec=codec, pix_fmt=pix_fmt, size=stored, aspect=aspect, **options)
    frames, source = read(path)
    assert {frame.image.shape for frame in frames} == {(displayed[1], displayed[0], 3)}
    assert {frame.pixels.gray().shape for frame in frames} == {(displayed[1], displayed[0])}
    assert (source.info.width, source.info.height) == displayed

    square = make_video("square.mkv", codec="ffv1", size=displayed, **options)
    boxes, expected = face_boxes(processor, path), face_boxes(processor, square)
    face_px = expected[0][2] - expected[0][0]
    assert len(boxes) == len(expected) == len(frames)
    np.testing.assert_allclose(boxes, expected, atol=0.06 * face_px)


def face_boxes(processor: FileProcessor, path: Path) -> list[F32]:
    return [face.xyxy for frame in analyze_with(processor, path).frames for face in frame.faces]


def test_gray_matches_colour(make_video: MakeVideo, draw_portrait: Callable[..., object]) -> None:
    for aspect, displayed in ((Fraction(64, 45), (1024, 576)), (Fraction(1, 3), (240, 576))):
        path = make_video(size=(720, 576), aspect=aspect, frames=1, draw=draw_portrait(*displayed))
        (frame,), _ = read(path)
        expected = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
        assert np.abs(frame.pixels.gray().astype(int) - expected).mean() < 3


def test_aspect_ratio_can_change_within_a_recording(make_video: MakeVideo) -> None:
    """Between two programmes, as 4:3 and 16:9."""
    parts = [
        make_video(f"{number}.ts", codec="mpeg2video", size=(720, 576), aspect=aspect, frames=13)
        for number, aspect in enumerate((Fraction(16, 15), Fraction(64, 45)))
    ]
    joined = parts[0].with_name("joined.ts")
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _ = read(joined)
    widths = [frame.pixels.shape[1] for frame in frames]
    assert widths == sorted(widths)
    # FFmpeg returns the last frame of the first part after the header of the second.
    assert widths.count(768) in (12, 13)
    assert widths.count(1024) == 26 - widths.count(768)


def test_rotation_applies_to_square_pixels(make_video: MakeVideo) -> None:
    path = make_video(size=(64, 48), aspect=Fraction(2), display=(90, False, False), frames=1)
    (frame,), source = read(path)
    assert frame.image.shape == (128, 48, 3)
    assert frame.pixels.gray().shape == (128, 48)
    assert (source.info.width, source.info.height) == (48, 128)


def test_implausible_ratio_is_ignored_and_size_is_bounded(make_video: MakeVideo) -> None:
    (frame,), _ = read(make_video("a.mkv", size=(64, 48), aspect=Fraction(200), frames=1))
    assert frame.image.shape == (48, 64, 3)
    (frame,), _ = read(make_video("b.mkv", size=(4096, 64), aspect=Fraction(2), frames=1))
    assert frame.image.shape == (32, 4096, 3)
