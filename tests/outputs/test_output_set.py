"""Outputs of one source on a disk that becomes full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_stream.config.settings import OutputSettings
from fer_stream.errors import DiskFull, OutputExists
from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.output_set import OutputSet
from fer_stream.outputs.registry import OutputContext
from fer_stream.records import FileSummary, LabelledFrame, SourceInfo

SETTINGS = OutputSettings(report=False, plot=False)


@pytest.fixture
def context(array_source: Callable[..., Any], silent_video: Path) -> OutputContext:
    """Two seconds of noise, of which a video takes about 2 MB."""
    noise = [np.random.default_rng(seed).integers(0, 256, (144, 176, 3), dtype=np.uint8) for seed in range(50)]
    return OutputContext(
        input_path=silent_video,
        info=SourceInfo("clip.mp4", "video", 176, 144, 25.0, 50, 2.0, "h264", "yuv420p"),
        open_source=lambda: array_source(noise, [index / 25 for index in range(50)]),
        series=ProbabilitySeries(),
        thumbnails={},
        force=False,
    )


def run(outputs: OutputSet, frames: Sequence[LabelledFrame], summary: FileSummary) -> set[str]:
    """Write all frames, finish and commit; return the names of the results."""
    for start in range(0, len(frames), 7):
        outputs.write(frames[start : start + 7])
    outputs.finish(summary)
    return {path.name for path in outputs.commit()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_video_that_does_not_fit_leaves_the_others(
    context: OutputContext, frames: list[LabelledFrame], summary: FileSummary, small_disk: Callable[[int], Path]
) -> None:
    disk, outputs = small_disk(256), OutputSet()
    outputs.create(SETTINGS, disk / "clip", context)
    assert run(outputs, frames, summary) == names(disk) == {"clip.frames.csv", "clip.timeline.json"}
    assert list(outputs.failures) == [disk / "clip.annotated.mp4"]
    assert isinstance(outputs.failures[disk / "clip.annotated.mp4"], DiskFull)


def test_larger_output_makes_room_for_the_data(
    context: OutputContext, frames: list[LabelledFrame], summary: FileSummary, small_disk: Callable[[int], Path]
) -> None:
    """The video fits, but takes the room of the timeline, which is written last."""
    disk, outputs = small_disk(4096), OutputSet()
    outputs.create(SETTINGS, disk / "clip", context)
    outputs.write(frames)
    outputs._open["video"].finish(summary)
    with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(512))
    outputs.finish(summary)
    outputs.commit()
    assert names(disk) == {"clip.frames.csv", "clip.timeline.json", "ballast"}
    assert list(outputs.failures) == [disk / "clip.annotated.mp4"]


def test_without_room_for_the_timeline_there_are_no_results(
    context: OutputContext, frames: list[LabelledFrame], summary: FileSummary, small_disk: Callable[[int], Path]
) -> None:
    disk, outputs = small_disk(64), OutputSet()
    settings = OutputSettings(report=False, plot=False, video=False, table=False)
    outputs.create(settings, disk / "clip", context)
    with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(512))
    with pytest.raises(DiskFull, match=r"timeline\.json"):
        run(outputs, frames, summary)
    outputs.discard()
    assert names(disk) == {"ballast"}


def test_omitted_outputs_are_not_created(
    context: OutputContext, frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    outputs = OutputSet()
    (tmp_path / "clip.frames.csv").write_text("complete")
    outputs.create(SETTINGS, tmp_path / "clip", context, omit={tmp_path / "clip.frames.csv"})
    assert run(outputs, frames, summary) == {"clip.annotated.mp4", "clip.timeline.json"}
    assert (tmp_path / "clip.frames.csv").read_text() == "complete"


def test_existing_result_is_an_error_at_creation(context: OutputContext, tmp_path: Path) -> None:
    (tmp_path / "clip.frames.csv").write_text("existing")
    outputs = OutputSet()
    with pytest.raises(OutputExists):
        outputs.create(SETTINGS, tmp_path / "clip", context)
    outputs.discard()
    assert names(tmp_path) == {"clip.frames.csv"}
