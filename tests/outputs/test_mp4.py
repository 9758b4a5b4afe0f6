"""MP4 files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from fer_stream.outputs.mp4 import Mp4File
from fer_stream.records import U8

Gradient = Callable[[int, int], U8]


def _write(path: Path, images: Sequence[U8], times_s: Sequence[float]) -> None:
    with Mp4File(path) as video:
        for image, time_s in zip(images, times_s, strict=True):
            video.add(image, time_s)
        video.close(full_audio=True)


def _times_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time or 0.0 for frame in container.decode(video=0)]


def test_file_is_playable_in_browsers(gradient: Gradient, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    _write(path, [gradient(176, 144)] * 50, [index / 25 for index in range(50)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 176, 144)
        assert codec.profile == "High"
        assert stream.frames == 50
        assert float((stream.duration or 0) * (stream.time_base or 0)) == pytest.approx(2.0)
        assert stream.average_rate == 25
    head = path.read_bytes()[:2000]
    assert head[4:8] == b"ftyp"
    assert b"moov" in head, "the index is not first"


def test_variable_frame_rate_is_kept(gradient: Gradient, tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.05, 0.2, 0.2333, 1.5, 1.501, 4.0]
    _write(tmp_path / "a.mp4", [gradient(64, 48)] * len(times_s), times_s)
    assert _times_s(tmp_path / "a.mp4") == pytest.approx(times_s, abs=1e-4)


def test_late_start_and_equal_times(gradient: Gradient, tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", [gradient(64, 48)] * 4, [0.5, 0.5, 0.5, 0.6])
    assert _times_s(tmp_path / "a.mp4") == pytest.approx([0.5, 0.5, 0.5, 0.6], abs=1e-3)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(175, 143, (144, 176)), (1, 1, (2, 2)), (3, 500, (500, 4)), (176, 143, (144, 176))],
)
def test_odd_sizes_are_padded(
    width: int, height: int, shape: tuple[int, int], gradient: Gradient, tmp_path: Path
) -> None:
    _write(tmp_path / "a.mp4", [gradient(width, height)] * 3, [0.0, 0.1, 0.2])
    with av.open(str(tmp_path / "a.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert image.shape == (*shape, 3)
    assert np.abs(image[:height, :width].astype(int) - gradient(width, height)).mean() < 6


def test_frames_of_another_size_are_scaled_to_the_first(gradient: Gradient, tmp_path: Path) -> None:
    _write(tmp_path / "a.mp4", [gradient(176, 144), gradient(320, 240), gradient(87, 71)], [0.0, 0.1, 0.2])
    with av.open(str(tmp_path / "a.mp4")) as container:
        images = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert [image.shape for image in images] == [(144, 176, 3)] * 3
    assert np.abs(images[2].astype(int) - images[0]).mean() < 6


@pytest.mark.parametrize("colour", [(0, 0, 255), (0, 255, 0), (255, 0, 0), (128, 128, 128), (66, 228, 240)])
def test_colours_are_kept(colour: tuple[int, int, int], tmp_path: Path) -> None:
    image = np.full((96, 96, 3), colour, np.uint8)
    _write(tmp_path / "a.mp4", [image] * 5, [index / 25 for index in range(5)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert np.abs(decoded.astype(int) - colour).mean() < 4


def test_leaving_without_close_abandons_the_file(gradient: Gradient, tmp_path: Path) -> None:
    with Mp4File(tmp_path / "a.mp4") as video:
        video.add(gradient(64, 48), 0.0)
    (tmp_path / "a.mp4").unlink()
    assert list(tmp_path.iterdir()) == []
