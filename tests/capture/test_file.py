"""Video files: frames, times, pixel formats, corrupt files and rejected files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fer_stream.capture.file import VideoFileSource
from fer_stream.capture.source import EVERYTHING, FrameSource, ReadOptions
from fer_stream.errors import SourceError, SourceNotFound, UnreadableSource
from fer_stream.records import DecodeErrors, Frame

MakeVideo = Callable[..., Path]

FRAMES_OF = {
    "leave_and_return": 383,
    "long_mostly_no_face": 1394,
    "no_face": 95,  # of 98 packets: an edit list skips the first three
    "one_face_crying": 472,
    "one_face_smile": 72,
    "small_faces": 36,
    "three_faces": 41,
    "two_faces": 56,
}


def opened(path: Path, *, options: ReadOptions = EVERYTHING, threads: int = 0) -> VideoFileSource:
    return VideoFileSource(
        path, name="clip", stream_start_ms=7, options=options, clock=lambda: 123.0, threads=threads
    )


def read(path: Path, *, options: ReadOptions = EVERYTHING, threads: int = 0) -> tuple[list[Frame], VideoFileSource]:
    source = opened(path, options=options, threads=threads)
    frames = list(source.frames())
    source.close()
    return frames, source


def gray(index: int) -> int:
    """Return the gray value that `make_video` draws into frame `index`."""
    return 20 + 10 * (index % 20)


def noise(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """Draw noise, which compresses badly, so that all frames have a similar size in the file."""
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)


def corrupt(path: Path, start: float, end: float) -> Path:
    """Invert every 97th byte between two fractions of the file."""
    data = bytearray(path.read_bytes())
    for at in range(int(len(data) * start), int(len(data) * end), 97):
        data[at] ^= 0xFF
    path.write_bytes(data)
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Keep only the first fraction of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


# Real clips


@pytest.mark.parametrize("clip", FRAMES_OF)
def test_every_frame_of_a_real_clip_is_read_at_its_pts(clips: Path, clip: str) -> None:
    path = clips / f"{clip}.mp4"
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None and not p.is_discard]
        expected = sorted(float((p.pts or 0) * p.time_base) for p in packets)
    source = opened(path)
    times = []
    for index, frame in enumerate(source.frames()):
        assert frame.index == index
        times.append(frame.time_s)
    assert len(times) == FRAMES_OF[clip]
    assert times == pytest.approx(expected, abs=1e-9)
    assert source.decode_errors == DecodeErrors()


def test_info_describes_the_source(clips: Path) -> None:
    source: FrameSource = opened(clips / "one_face_smile.mp4")
    info = source.info
    assert (info.name, info.kind, info.codec, info.pixel_format) == ("clip", "video", "h264", "yuv420p")
    assert (info.width, info.height, info.fps, info.frames, info.duration_s) == (640, 360, 30.0, 72, 2.4)
    frame = next(source.frames())
    assert (frame.stream_id, frame.captured_at) == ("clip@7", 123.0)
    assert frame.image.shape == (360, 640, 3)
    source.close()


# Containers and times


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "mpeg4", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.m2ts", "mpeg2video", "yuv420p"),
        ("a.flv", "libx264", "yuv420p"),
        ("a.wmv", "msmpeg4v3", "yuv420p"),
        ("a.gif", "gif", "gray"),
        ("a.h264", "libx264", "yuv420p"),
        ("a.nut", "ffv1", "yuv420p"),
        ("a.y4m", "wrapped_avframe", "yuv420p"),
    ],
)
def test_any_container_starts_at_0_s(make_video: MakeVideo, name: str, codec: str, pix_fmt: str) -> None:
    frames, source = read(make_video(name, codec=codec, pix_fmt=pix_fmt))
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(20)], abs=1e-3)
    assert [frame.image[24, 32].mean() for frame in frames] == pytest.approx([gray(i) for i in range(20)], abs=6)
    assert source.decode_errors == DecodeErrors()


def test_variable_frame_rate_is_preserved(make_video: MakeVideo) -> None:
    pts = [0, 10, 500, 533, 1000, 4000, 4001]
    frames, _ = read(make_video("a.mp4", pts=pts, time_base=Fraction(1, 1000)))
    assert [frame.time_s for frame in frames] == pytest.approx([at / 1000 for at in pts], abs=1e-9)


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv", "a.flv"])
def test_sampling_at_the_rate_of_the_source_drops_no_frame(make_video: MakeVideo, name: str) -> None:
    path = make_video(name, pts=range(2, 32), time_base=Fraction(1, 30))  # starts at 66,666.67 µs
    frames, _ = read(path, options=ReadOptions(fps=30))
    assert len(frames) == 30
    assert frames[0].time_s == 0.0


def test_time_agrees_with_the_audio(make_video: MakeVideo) -> None:
    path = make_video("a.mp4", pts=range(25, 50), silence_s=2.0)
    frames, source = read(path)
    assert frames[0].time_s == pytest.approx(1.0, abs=0.03)
    assert source.decode_errors == DecodeErrors()


def test_time_never_decreases(make_video: MakeVideo) -> None:
    path = make_video("a.ts")
    path.write_bytes(path.read_bytes() * 2)
    frames, _ = read(path)
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(40)], abs=1e-6)


def test_sampling_preserves_frame_numbers(make_video: MakeVideo) -> None:
    frames, _ = read(make_video(), options=ReadOptions(fps=5))
    assert [frame.index for frame in frames] == [0, 5, 10, 15]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6], abs=1e-9)
    assert [frame.image[24, 32, 0] for frame in frames] == pytest.approx([gray(i) for i in (0, 5, 10, 15)], abs=6)


# Pixels


def assert_gray_matches_bgr(frame: Frame) -> None:
    """Assert that gray equals the gray of the BGR frame, apart from rounding in the two conversions."""
    gray = frame.pixels.gray()
    assert gray.shape == frame.pixels.shape == frame.image.shape[:2]
    assert gray.dtype == np.uint8
    expected = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
    assert np.abs(gray.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(
    ("display", "corner"),
    [
        (None, "top left"),
        ((0, True, False), "top right"),
        ((0, False, True), "bottom left"),
        ((180, False, False), "bottom right"),
        ((90, False, False), "bottom left"),
        ((-90, False, False), "top right"),
        ((270, False, False), "top right"),
        ((90, True, False), "bottom right"),
        ((-90, True, False), "top left"),
    ],
)
def test_display_matrix_is_applied(
    make_video: MakeVideo, display: tuple[int, bool, bool] | None, corner: str
) -> None:
    def mark(index: int, width: int, height: int) -> NDArray[np.uint8]:
        image = np.zeros((height, width, 3), np.uint8)
        image[: height // 2, : width // 2] = 255
        return image

    path = make_video("a.mp4", draw=mark, display=display, frames=2)
    (frame, _), source = read(path)
    sideways = display is not None and display[0] % 180 != 0
    assert frame.image.shape == ((64, 48, 3) if sideways else (48, 64, 3))
    assert (source.info.height, source.info.width) == frame.image.shape[:2]
    assert frame.image.flags.c_contiguous
    rows, columns = {"top": 0, "bottom": 1}, {"left": 0, "right": 1}
    row, column = corner.split()
    quarters = frame.image.mean(axis=2).reshape(2, frame.image.shape[0] // 2, 2, -1).mean(axis=(1, 3))
    assert quarters.argmax() == 2 * rows[row] + columns[column]
    assert_gray_matches_bgr(frame)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("a.mkv", "ffv1", "gray", (63, 47)),
        ("a.mkv", "ffv1", "gray10le", (64, 48)),
        ("a.mkv", "ffv1", "yuv420p10le", (63, 47)),
        ("a.mp4", "libx264", "yuv444p10le", (64, 48)),
        ("a.mov", "prores_ks", "yuva444p10le", (64, 48)),
        ("a.mov", "qtrle", "argb", (63, 47)),
        ("a.mov", "png", "rgba", (63, 47)),
        ("a.mkv", "ffv1", "yuva420p", (64, 48)),
        ("a.webm", "libvpx-vp9", "yuva420p", (63, 47)),
        ("a.avi", "rawvideo", "bgr24", (63, 47)),
        ("a.avi", "mjpeg", "yuvj420p", (31, 17)),
        ("a.gif", "gif", "rgb8", (63, 47)),
        ("a.avi", "rawvideo", "nv12", (64, 48)),
        ("a.mkv", "ffv1", "yuv422p", (63, 47)),
        ("a.mp4", "libx264", "yuv444p", (64, 48)),
        ("a.mkv", "ffv1", "yuv420p", (1, 1)),
        ("a.mov", "png", "rgb24", (1, 1)),
    ],
)
def test_any_pixel_format_and_size_is_converted(
    make_video: MakeVideo, name: str, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    (frame, _), source = read(make_video(name, codec=codec, pix_fmt=pix_fmt, size=size, frames=2))
    assert frame.image.shape == (size[1], size[0], 3)
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous
    assert frame.image[0, 0].mean() == pytest.approx(gray(0), abs=20)
    assert (source.info.width, source.info.height) == size
    assert_gray_matches_bgr(frame)


def test_gray_uses_the_full_range(make_video: MakeVideo) -> None:
    def blocks(index: int, width: int, height: int) -> NDArray[np.uint8]:
        levels = np.repeat(np.linspace(0, 255, 8).astype(np.uint8), width // 8)
        return np.repeat(np.repeat(levels[None, :, None], height, axis=0), 3, axis=2)

    for name, codec, pix_fmt in (("a.mkv", "ffv1", "yuv420p"), ("b.avi", "mjpeg", "yuvj420p")):
        (frame,), _ = read(make_video(name, codec=codec, pix_fmt=pix_fmt, draw=blocks, frames=1))
        actual = frame.pixels.gray().astype(int)
        np.testing.assert_allclose(actual[:, 4::8], blocks(0, 64, 48)[:, 4::8, 0], atol=3)


def test_8k_frame_is_read(make_video: MakeVideo) -> None:
    path = make_video("a.avi", codec="mjpeg", pix_fmt="yuvj420p", size=(7680, 4320), frames=1)
    (frame,), _ = read(path)
    assert frame.image.shape == (4320, 7680, 3)


def test_size_can_change_within_a_file(make_video: MakeVideo) -> None:
    small, large = make_video("a.ts", frames=5), make_video("b.ts", size=(128, 96), frames=5)
    small.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read(small)
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 5 + [(96, 128, 3)] * 5


# Lifecycle


def test_frames_are_decoded_on_demand(make_video: MakeVideo) -> None:
    ticks = iter(range(100))
    source = VideoFileSource(make_video(), name="a", stream_start_ms=1, clock=lambda: float(next(ticks)))
    frames = source.frames()
    assert [next(frames).captured_at, next(frames).captured_at] == [0.0, 1.0]
    assert next(ticks) == 2, "the clock was read twice, so no frame was decoded ahead"
    source.close()


def test_close_ends_suspended_frames_and_can_be_repeated(make_video: MakeVideo) -> None:
    source = opened(make_video())
    frames = source.frames()
    first = next(frames)
    source.close()
    source.close()
    assert list(frames) == []
    assert first.image[24, 32, 0] == pytest.approx(gray(0), abs=6), "a frame is valid after its source is closed"

    unused = opened(make_video())
    unused.close()
    assert list(unused.frames()) == []


def test_unusual_file_name_is_not_parsed_as_url(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video("a.mp4")
    odd = path.rename(path.with_name("http:é %03d#?.mp4"))
    monkeypatch.chdir(odd.parent)
    frames, _ = read(Path(odd.name))
    assert len(frames) == 20


def test_tags_in_an_unknown_encoding_are_tolerated(make_video: MakeVideo) -> None:
    path = make_video("a.mkv", metadata={"title": "QQQQQQQQ"})
    path.write_bytes(path.read_bytes().replace(b"QQQQQQQQ", b"\xff\xfe\xe9\xe8\xff\xff\xff\xff"))
    frames, _ = read(path)
    assert len(frames) == 20


# Corrupt files


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.nut", "libx264"), ("a.wmv", "wmv2"),
     ("a.flv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4")],
)  # fmt: skip
def test_part_of_a_recording_is_not_truncated(make_video: MakeVideo, name: str, codec: str) -> None:
    """Containers differ in whether their duration is a length or the time of the end."""
    path = make_video(name, codec=codec, pts=range(100, 150), draw=noise)
    frames, source = read(path)
    assert len(frames) >= 49  # FFmpeg's ASF drops the last frame
    assert source.decode_errors == DecodeErrors()
    assert source.info.duration_s == pytest.approx(frames[-1].time_s + 0.04, abs=0.1)


def test_truncated_part_of_a_recording_is_reported(make_video: MakeVideo) -> None:
    path = truncate(make_video("a.mkv", pts=range(100, 150), draw=noise), 0.5)
    _, source = read(path)
    assert source.decode_errors.truncated


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.flv", "libx264")]
)
def test_truncated_file_is_read_up_to_its_end(make_video: MakeVideo, name: str, codec: str) -> None:
    frames, source = read(truncate(make_video(name, codec=codec, frames=50, draw=noise), 0.5))
    assert 10 <= len(frames) <= 30
    assert source.decode_errors.truncated
    assert source.info.width == 64


def test_missing_frames_of_an_mp4_are_counted(make_video: MakeVideo) -> None:
    frames, source = read(truncate(make_video(frames=50, draw=noise), 0.5))
    assert source.decode_errors.packets == 50 - len(frames)
    assert source.decode_errors.reason


def test_truncation_is_reported_at_the_end_only(make_video: MakeVideo) -> None:
    source = opened(truncate(make_video(frames=50, draw=noise), 0.5))
    next(source.frames())
    assert not source.decode_errors.truncated
    source.close()


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx265", "yuv420p"),
        ("a.mp4", "mpeg4", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.ts", "mpeg2video", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mov", "png", "rgb24"),
    ],
)
def test_decoding_continues_after_corrupt_packets(make_video: MakeVideo, name: str, codec: str, pix_fmt: str) -> None:
    path = corrupt(make_video(name, codec=codec, pix_fmt=pix_fmt, frames=60, draw=noise), 0.4, 0.5)
    frames, source = read(path)
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)
    assert times[-1] > 2.2, "frames after the corrupt packets are decoded"
    assert source.decode_errors.packets > 0
    assert source.decode_errors.reason
    assert not source.decode_errors.truncated
    single_threaded, _ = read(path, threads=1)
    assert [frame.time_s for frame in single_threaded] == times


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"), ("a.mov", "png", "rgba"), ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p"), ("a.ts", "mpeg2video", "yuv420p"),
        ("a.flv", "flv", "yuv420p"), ("a.gif", "gif", "rgb8"),
    ],
)  # fmt: skip
def test_corrupted_file_is_read_or_rejected(
    make_video: MakeVideo,
    corrupted: Callable[[bytes], st.SearchStrategy[bytes]],
    name: str,
    codec: str,
    pix_fmt: str,
) -> None:
    path = make_video(name, codec=codec, pix_fmt=pix_fmt, frames=4, size=(32, 24))

    @settings(max_examples=50)
    @given(corrupted(path.read_bytes()))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            frames, source = read(path, threads=1)
        except SourceError as error:
            message = str(error)
            assert str(path) in message
            return
        times = [frame.time_s for frame in frames]
        assert times == sorted(times)
        assert np.isfinite(times).all()
        assert all(frame.image.dtype == np.uint8 and frame.image.shape[2:] == (3,) for frame in frames)
        assert source.decode_errors.packets >= 0

    check()


# Rejected files


def test_unreadable_files_are_rejected_with_the_reason(
    make_video: MakeVideo, make_audio: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is a text.\n" * 50)
    (tmp_path / "text.txt").write_text("This is a text.\n" * 50)
    os.mkfifo(tmp_path / "pipe.mp4")
    headless = make_video("headless.mp4")
    headless.write_bytes(headless.read_bytes()[2000:])
    coded = make_video("coded.mp4")
    coded.write_bytes(coded.read_bytes().replace(b"avc1", b"zzzz"))
    hollow = make_video("hollow.mp4", draw=noise)
    hollow.write_bytes(hollow.read_bytes().partition(b"mdat")[0] + b"mdat")
    zeros = make_video("zeros.mp4", draw=noise)
    head, tag, media = zeros.read_bytes().partition(b"mdat")
    zeros.write_bytes(head + tag + bytes(len(media)))
    cases: list[tuple[Path, type[SourceError], str]] = [
        (tmp_path / "absent.mp4", SourceNotFound, "File not found"),
        (tmp_path, UnreadableSource, "folder"),
        (tmp_path / "empty.mp4", UnreadableSource, "empty"),
        (tmp_path / "pipe.mp4", UnreadableSource, "pipe"),
        (tmp_path / "text.mp4", UnreadableSource, "neither an image nor a video"),
        (tmp_path / "text.txt", UnreadableSource, "neither an image nor a video"),
        (headless, UnreadableSource, "neither an image nor a video"),
        (coded, UnreadableSource, "cannot decode"),
        (hollow, UnreadableSource, "no decodable frame"),
        (zeros, UnreadableSource, "no decodable frame"),
        (make_audio("sound.m4a", "aac"), UnreadableSource, "only audio"),
        (make_audio("cover.mp3", "libmp3lame", cover=True), UnreadableSource, "only audio"),
    ]
    for path, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            opened(path)
        assert path.name in str(caught.value)


def test_files_that_refer_to_other_files_or_urls_are_rejected(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video("other.ts")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        traps = {
            "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
            "file.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video.name}\n#EXT-X-ENDLIST\n",
            "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
            "concat.mp4": f"ffconcat version 1.0\nfile {video.name}\n",
            "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
            "frame%03d.png": "any",
        }
        for name, text in traps.items():
            (tmp_path / name).write_text(text)
            with pytest.raises(UnreadableSource, match="neither an image nor a video"):
                opened(tmp_path / name)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_file_without_read_permission_is_rejected(
    make_video: MakeVideo, unprotected_folder: Path, error_as_nobody: Callable[[str, str, str], str]
) -> None:
    path = unprotected_folder / "a.mp4"
    path.write_bytes(make_video().read_bytes())
    path.chmod(0o000)
    error = error_as_nobody(
        "fer_stream.capture.file", "VideoFileSource", f"{str(path)!r}, name='x', stream_start_ms=1"
    )
    assert error.startswith("UnreadableSource")
    assert "No permission to read" in error
