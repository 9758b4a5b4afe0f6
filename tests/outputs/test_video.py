"""Annotated videos and images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fer_stream.capture.file import VideoFileSource
from fer_stream.capture.image import ImageSource
from fer_stream.capture.source import ReadOptions
from fer_stream.errors import DiskFull, OutputError, SourceNotFound
from fer_stream.outputs.audio import AudioClip
from fer_stream.outputs.draw import bgr
from fer_stream.outputs.redaction import Redaction
from fer_stream.outputs.video import AnnotatedImage, AnnotatedVideo
from fer_stream.records import U8, DecodeErrors, FileSummary, LabelledFace, LabelledFrame

FaceMaker = Callable[..., LabelledFace]
SourceMaker = Callable[..., Any]


def _decode(path: Path) -> tuple[list[U8], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    images = [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in frames]
    return images, [frame.time or 0.0 for frame in frames]


def _opener(path: Path, fps: float | None = None) -> Callable[[], VideoFileSource]:
    return lambda: VideoFileSource(path, name=path.name, stream_start_ms=1, options=ReadOptions(fps=fps))


def _frames_without_faces(path: Path, fps: float | None = None) -> list[LabelledFrame]:
    """Return the frames of a file, without faces."""
    source = _opener(path, fps)()
    frames = [LabelledFrame("clip@1", frame.index, frame.time_s, ()) for frame in source.frames()]
    source.close()
    return frames


@pytest.fixture
def still(array_source: SourceMaker, gradient: Callable[[int, int], U8]) -> Callable[[], Any]:
    return lambda: array_source([gradient(176, 144)] * 50, [index / 25 for index in range(50)])


def test_faces_are_drawn_at_their_positions(
    still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = AnnotatedVideo(still, tmp_path / "clip.annotated.mp4")
    writer.write(frames)
    writer.finish(summary)
    writer.commit()
    images, times_s = _decode(writer.path)
    assert times_s == pytest.approx([frame.time_s for frame in frames], abs=1e-4)
    edge = images[5][45:75, 40].astype(int).mean(axis=0)
    assert np.abs(edge - bgr("happy")).max() < 60
    assert abs(int(images[12][60, 40].max()) - int(images[12][60, 40].min())) < 12, "frame 12 has no face"


@pytest.mark.parametrize(("fps", "count"), [(None, 41), (5.0, 17)])
def test_frames_times_size_and_colours_of_a_clip_are_kept(
    fps: float | None, count: int, clips: Path, summary: FileSummary, tmp_path: Path
) -> None:
    clip = clips / "three_faces.mp4"
    frames = _frames_without_faces(clip, fps)
    writer = AnnotatedVideo(_opener(clip, fps), tmp_path / "a.mp4", audio_from=AudioClip(clip))
    writer.write(frames)
    writer.finish(summary)
    writer.commit()
    images, times_s = _decode(writer.path)
    assert len(images) == count
    assert times_s == pytest.approx([frame.time_s for frame in frames], abs=1e-4)
    first = next(_opener(clip)().frames()).image
    assert images[0].shape == first.shape
    assert np.abs(images[0].astype(int) - first).mean() < 4, "the colours differ"


def test_video_of_a_part_starts_at_0(clips: Path, summary: FileSummary, tmp_path: Path) -> None:
    clip, options = clips / "three_faces.mp4", ReadOptions(start_s=0.5, end_s=1.0)

    def open_source() -> VideoFileSource:
        return VideoFileSource(clip, name="clip", stream_start_ms=1, options=options)

    source = open_source()
    part = list(source.frames())
    source.close()
    writer = AnnotatedVideo(open_source, tmp_path / "a.mp4", audio_from=AudioClip(clip, 0.5, 1.0))
    writer.write([LabelledFrame("clip@1", frame.index, frame.time_s, ()) for frame in part])
    writer.finish(summary)
    writer.commit()
    images, times_s = _decode(writer.path)
    assert times_s == pytest.approx([frame.time_s - 0.5 for frame in part], abs=1e-4)
    assert np.abs(images[0].astype(int) - part[0].image).mean() < 4


@pytest.mark.parametrize("kind", ["blur", "black"])
def test_face_is_redacted_in_every_frame(
    kind: str, array_source: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    stripes = np.zeros((144, 176, 3), np.uint8)
    stripes[:, ::4] = 255
    writer = AnnotatedVideo(
        lambda: array_source([stripes] * 50, [index / 25 for index in range(50)]),
        tmp_path / "a.mp4",
        redaction=Redaction("blur" if kind == "blur" else "black", frozenset({1})),
    )
    writer.write(frames)
    writer.finish(summary)
    writer.commit()
    images, _ = _decode(writer.path)
    contrast = [float(image[45:75, 46:74].std()) for image in images]
    assert max(contrast) < 20, "frames 10 to 14, between two detections, must be redacted too"
    assert float(images[40][30:70, 110:130].std()) > 60, "person 2 must not be redacted"


def test_no_video_is_written_without_frames(still: SourceMaker, summary: FileSummary, tmp_path: Path) -> None:
    writer = AnnotatedVideo(still, tmp_path / "a.mp4")
    writer.finish(summary)
    assert writer.commit() is None
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_source_is_closed(
    array_source: SourceMaker, gradient: Callable[[int, int], U8], frames: list[LabelledFrame], summary: FileSummary,
    tmp_path: Path,
) -> None:  # fmt: skip
    source = array_source([gradient(64, 64)] * 50, [index / 25 for index in range(50)])
    writer = AnnotatedVideo(lambda: source, tmp_path / "a.mp4")
    writer.write(frames)
    writer.finish(summary)
    writer.commit()
    assert source.closed


def test_discard_ends_the_thread(still: SourceMaker, frames: list[LabelledFrame], tmp_path: Path) -> None:
    writer = AnnotatedVideo(still, tmp_path / "a.mp4")
    writer.write(frames)
    writer.discard()
    assert not [thread for thread in threading.enumerate() if thread.name == "annotate a.mp4"]


def test_error_of_the_encoder_is_raised_to_the_caller(
    still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    def missing_source() -> Any:
        raise SourceNotFound("clip.mp4 does not exist")

    writer = AnnotatedVideo(missing_source, tmp_path / "a.mp4")
    with pytest.raises(SourceNotFound, match="does not exist"):
        _write_many_and_finish(writer, frames, summary)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_error_for_frames_hours_apart_names_the_cause_and_the_option(
    array_source: SourceMaker, gradient: Callable[[int, int], U8], summary: FileSummary, tmp_path: Path
) -> None:
    """Occurs in damaged files, and in recordings of cameras without faces for a night."""
    times_s = [0.0, 20_000.0, 60_000.0]
    writer = AnnotatedVideo(lambda: array_source([gradient(64, 64)] * 3, times_s), tmp_path / "a.mp4")
    writer.write([LabelledFrame("clip@1", index, time_s, ()) for index, time_s in enumerate(times_s)])
    with pytest.raises(OutputError, match=r"a\.mp4: FFmpeg failed .* hours apart\. Omit the video with --no-video"):
        writer.finish(summary)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_ffmpeg_do_not_mention_hours(
    still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    (tmp_path / "invalid.mp4").write_bytes(b"neither video nor audio")
    writer = AnnotatedVideo(still, tmp_path / "a.mp4", audio_from=AudioClip(tmp_path / "invalid.mp4"))
    with pytest.raises(OutputError, match=r"FFmpeg failed \(Invalid data [^)]*\)\. Omit the video with --no-video"):
        _write_many_and_finish(writer, frames, summary)
    writer.discard()


def _write_many_and_finish(writer: AnnotatedVideo, frames: Sequence[LabelledFrame], summary: FileSummary) -> None:
    for _ in range(40):
        writer.write(frames)
    writer.finish(summary)
    writer.commit()


def test_disk_that_fills_up_raises_disk_full(
    array_source: SourceMaker, summary: FileSummary, small_disk: Callable[[int], Path]
) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (144, 176, 3), dtype=np.uint8) for i in range(100)]
    disk = small_disk(256)
    writer = AnnotatedVideo(lambda: array_source(noise, [i / 25 for i in range(100)]), disk / "a.mp4")
    frames = [LabelledFrame("clip@1", i, i / 25, ()) for i in range(100)]
    with pytest.raises(DiskFull, match=r"a\.mp4"):
        _write_many_and_finish(writer, frames, summary)
    writer.discard()
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("shift", [{"time_s": 0.9}, {"index": 77}])
def test_different_frames_in_the_second_pass_are_an_error(
    shift: dict[str, Any], still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = AnnotatedVideo(still, tmp_path / "a.mp4")
    with pytest.raises(OutputError, match="other frames"):
        _write_many_and_finish(writer, [*frames[:20], replace(frames[20], **shift)], summary)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_damaged_source_may_end_earlier_in_the_second_pass(
    array_source: SourceMaker, gradient: Callable[[int, int], U8], frames: list[LabelledFrame], summary: FileSummary,
    tmp_path: Path,
) -> None:  # fmt: skip
    errors = DecodeErrors(1, "Invalid data")
    source = array_source([gradient(64, 64)] * 48, [index / 25 for index in range(48)], decode_errors=errors)
    writer = AnnotatedVideo(lambda: source, tmp_path / "a.mp4")
    writer.write(frames)
    writer.finish(summary)
    writer.commit()
    assert len(_decode(writer.path)[0]) == 48


def test_still_image_is_annotated_as_png(
    face: FaceMaker, summary: FileSummary, gradient: Callable[[int, int], U8], tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "portrait.jpg"), gradient(320, 241))
    writer = AnnotatedImage(
        lambda: ImageSource(tmp_path / "portrait.jpg", name="portrait.jpg", stream_start_ms=1),
        tmp_path / "portrait.annotated.png",
        redaction=Redaction("black"),
    )
    writer.write([LabelledFrame("portrait@1", 0, 0.0, (face(1, "happy", (100, 80, 160, 160)),))])
    writer.finish(summary)
    writer.commit()
    image = cv2.imread(str(writer.path))
    assert image is not None
    assert image.shape == (241, 320, 3)
    assert tuple(image[120, 100].tolist()) == bgr("happy")
    assert not image[100:140, 115:145].any()


def test_no_png_is_written_without_a_frame(still: SourceMaker, summary: FileSummary, tmp_path: Path) -> None:
    writer = AnnotatedImage(still, tmp_path / "a.png")
    writer.finish(summary)
    assert writer.commit() is None
    writer.discard()
    assert list(tmp_path.iterdir()) == []
