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
from fer_stream.capture.source import Sampler
from fer_stream.errors import DiskFull, OutputError, SourceNotFound
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
    return lambda: VideoFileSource(path, name=path.name, stream_start_ms=1, sampler=Sampler(fps))


def _bare(path: Path, fps: float | None = None) -> list[LabelledFrame]:
    """The frames of a file, without faces."""
    source = _opener(path, fps)()
    frames = [LabelledFrame("clip@1", frame.index, frame.time_s, ()) for frame in source.frames()]
    source.close()
    return frames


@pytest.fixture
def still(array_source: SourceMaker, gradient: Callable[[int, int], U8]) -> Callable[[], Any]:
    return lambda: array_source([gradient(176, 144)] * 50, [index / 25 for index in range(50)])


def test_the_faces_are_drawn_where_they_are(
    still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = AnnotatedVideo(still, tmp_path / "clip.annotated.mp4")
    writer.write(frames)
    writer.finish(summary)
    images, times_s = _decode(writer.path)
    assert times_s == pytest.approx([frame.time_s for frame in frames], abs=1e-4)
    edge = images[5][45:75, 40].astype(int).mean(axis=0)
    assert np.abs(edge - bgr("happy")).max() < 60
    assert abs(int(images[12][60, 40].max()) - int(images[12][60, 40].min())) < 12, "nobody is there in frame 12"


@pytest.mark.parametrize(("fps", "count"), [(None, 41), (5.0, 17)])
def test_a_real_clip_keeps_its_frames_times_and_size(
    fps: float | None, count: int, clips: Path, summary: FileSummary, tmp_path: Path
) -> None:
    clip = clips / "three_faces.mp4"
    frames = _bare(clip, fps)
    writer = AnnotatedVideo(_opener(clip, fps), tmp_path / "a.mp4", audio_from=clip)
    writer.write(frames)
    writer.finish(summary)
    images, times_s = _decode(writer.path)
    assert len(images) == count
    assert times_s == pytest.approx([frame.time_s for frame in frames], abs=1e-4)
    first = next(_opener(clip)().frames()).image
    assert images[0].shape == first.shape
    assert np.abs(images[0].astype(int) - first).mean() < 4, "colours must survive"


@pytest.mark.parametrize("kind", ["blur", "black"])
def test_a_redacted_face_is_bare_in_no_frame(
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
    images, _ = _decode(writer.path)
    contrast = [float(image[45:75, 46:74].std()) for image in images]
    assert max(contrast) < 20, "frames 10 to 14 lie between two detections"
    assert float(images[40][30:70, 110:130].std()) > 60, "person 2 was not to be covered"


def test_without_frames_there_is_no_video(still: SourceMaker, summary: FileSummary, tmp_path: Path) -> None:
    writer = AnnotatedVideo(still, tmp_path / "a.mp4")
    writer.finish(summary)
    assert list(tmp_path.iterdir()) == []


def test_the_source_is_closed(
    array_source: SourceMaker, gradient: Callable[[int, int], U8], frames: list[LabelledFrame], summary: FileSummary,
    tmp_path: Path,
) -> None:  # fmt: skip
    source = array_source([gradient(64, 64)] * 50, [index / 25 for index in range(50)])
    writer = AnnotatedVideo(lambda: source, tmp_path / "a.mp4")
    writer.write(frames)
    writer.finish(summary)
    assert source.closed


def test_no_thread_is_left(still: SourceMaker, frames: list[LabelledFrame], tmp_path: Path) -> None:
    writer = AnnotatedVideo(still, tmp_path / "a.mp4")
    writer.write(frames)
    writer.discard()
    assert not [thread for thread in threading.enumerate() if thread.name == "annotate a.mp4"]


def test_a_fault_of_the_encoder_reaches_the_job(
    still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    def gone() -> Any:
        raise SourceNotFound("clip.mp4 is gone")

    writer = AnnotatedVideo(gone, tmp_path / "a.mp4")
    with pytest.raises(SourceNotFound, match="is gone"):
        _run_for_long(writer, frames, summary)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_an_mp4_cannot_hold_are_refused_with_a_cure(
    array_source: SourceMaker, gradient: Callable[[int, int], U8], summary: FileSummary, tmp_path: Path
) -> None:
    """As a damaged file has them, and the recording of a camera that saw nobody for a night."""
    times_s = [0.0, 20_000.0, 60_000.0]
    writer = AnnotatedVideo(lambda: array_source([gradient(64, 64)] * 3, times_s), tmp_path / "a.mp4")
    writer.write([LabelledFrame("clip@1", index, time_s, ()) for index, time_s in enumerate(times_s)])
    with pytest.raises(OutputError, match=r"a\.mp4: FFmpeg refuses .* hours apart\. Leave it out with --no"):
        writer.finish(summary)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_hours_are_blamed_for_nothing_else(
    still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    (tmp_path / "none.mp4").write_bytes(b"neither pictures nor sound")
    writer = AnnotatedVideo(still, tmp_path / "a.mp4", audio_from=tmp_path / "none.mp4")
    with pytest.raises(OutputError, match=r"FFmpeg refuses it \(Invalid data [^)]*\)\. Leave it out with --no-video"):
        _run_for_long(writer, frames, summary)
    writer.discard()


def _run_for_long(writer: AnnotatedVideo, frames: Sequence[LabelledFrame], summary: FileSummary) -> None:
    for _ in range(40):
        writer.write(frames)
    writer.finish(summary)


def test_a_disk_that_fills_up_in_the_middle_is_told(
    array_source: SourceMaker, summary: FileSummary, small_disk: Callable[[int], Path]
) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (144, 176, 3), dtype=np.uint8) for i in range(100)]
    disk = small_disk(256)
    writer = AnnotatedVideo(lambda: array_source(noise, [i / 25 for i in range(100)]), disk / "a.mp4")
    frames = [LabelledFrame("clip@1", i, i / 25, ()) for i in range(100)]
    with pytest.raises(DiskFull, match=r"a\.mp4"):
        _run_for_long(writer, frames, summary)
    writer.discard()
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("shift", [{"time_s": 0.9}, {"index": 77}])
def test_other_pictures_on_the_second_reading_are_refused(
    shift: dict[str, Any], still: SourceMaker, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = AnnotatedVideo(still, tmp_path / "a.mp4")
    with pytest.raises(OutputError, match="other pictures"):
        _run_for_long(writer, [*frames[:20], replace(frames[20], **shift)], summary)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_source_may_end_sooner_the_second_time(
    array_source: SourceMaker, gradient: Callable[[int, int], U8], frames: list[LabelledFrame], summary: FileSummary,
    tmp_path: Path,
) -> None:  # fmt: skip
    damage = DecodeErrors(1, "Invalid data")
    source = array_source([gradient(64, 64)] * 48, [index / 25 for index in range(48)], decode_errors=damage)
    writer = AnnotatedVideo(lambda: source, tmp_path / "a.mp4")
    writer.write(frames)
    writer.finish(summary)
    assert len(_decode(writer.path)[0]) == 48


def test_a_still_image_is_annotated_as_png(
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
    image = cv2.imread(str(writer.path))
    assert image is not None
    assert image.shape == (241, 320, 3)
    assert tuple(image[120, 100].tolist()) == bgr("happy")
    assert not image[100:140, 115:145].any()


def test_without_a_frame_there_is_no_png(still: SourceMaker, summary: FileSummary, tmp_path: Path) -> None:
    AnnotatedImage(still, tmp_path / "a.png").finish(summary)
    assert list(tmp_path.iterdir()) == []
