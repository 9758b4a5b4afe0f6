"""What every writer promises, whatever it writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from fer_stream.errors import DiskFull, OutputError, OutputExists
from fer_stream.outputs.base import Output
from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.plot import TimelinePlot
from fer_stream.outputs.report import Report
from fer_stream.outputs.tables import FrameTable, TimelineJson
from fer_stream.outputs.video import AnnotatedImage, AnnotatedVideo
from fer_stream.records import U8, FileSummary, LabelledFrame


class MakeWriter(Protocol):
    def __call__(self, path: Path, *, force: bool = False) -> Output: ...


KINDS = ["frames.csv", "timeline.json", "annotated.mp4", "annotated.png", "timeline.png", "report.html"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str, pictures: Callable[..., Any], gradient: Callable[[int, int], U8]) -> MakeWriter:
    def source() -> Any:
        return pictures([gradient(176, 144)] * 50, [index / 25 for index in range(50)])

    def writer(path: Path, *, force: bool = False) -> Output:
        match kind:
            case "frames.csv":
                return FrameTable(path, force=force)
            case "timeline.json":
                return TimelineJson(path, force=force)
            case "annotated.mp4":
                return AnnotatedVideo(source, path, force=force)
            case "annotated.png":
                return AnnotatedImage(source, path, force=force)
            case "timeline.png":
                return TimelinePlot(path, ProbabilitySeries(), force=force)
            case _:
                return Report(path, ProbabilitySeries(), force=force)

    return writer


@pytest.fixture
def job(kind: str, frames: list[LabelledFrame]) -> list[LabelledFrame]:
    """The frames of one source: a still image has one."""
    return frames[:1] if kind == "annotated.png" else frames


def _run(writer: Output, frames: Sequence[LabelledFrame], summary: FileSummary) -> None:
    for start in range(0, len(frames), 7):
        writer.write(frames[start : start + 7])
    writer.finish(summary)


def test_nothing_is_at_the_target_before_the_end(
    make: MakeWriter, kind: str, job: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = make(tmp_path / f"clip.{kind}")
    assert writer.path == tmp_path / f"clip.{kind}"
    writer.write(job)
    assert not writer.path.exists()
    assert all(path.name.startswith(".partial-") for path in tmp_path.iterdir())
    writer.finish(summary)
    assert [path.name for path in tmp_path.iterdir()] == [f"clip.{kind}"]
    assert writer.path.stat().st_size > 0


def test_the_output_follows_the_umask(
    make: MakeWriter, kind: str, job: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    old = os.umask(0o027)
    try:
        writer = make(tmp_path / f"clip.{kind}")
    finally:
        os.umask(old)
    _run(writer, job, summary)
    assert writer.path.stat().st_mode & 0o777 == 0o640


def test_discarding_leaves_nothing(make: MakeWriter, kind: str, job: list[LabelledFrame], tmp_path: Path) -> None:
    writer = make(tmp_path / f"clip.{kind}")
    writer.write(job)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_discarding_at_once_leaves_nothing(make: MakeWriter, kind: str, tmp_path: Path) -> None:
    make(tmp_path / f"clip.{kind}").discard()
    assert list(tmp_path.iterdir()) == []


def test_discarding_after_the_end_changes_nothing(
    make: MakeWriter, kind: str, job: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = make(tmp_path / f"clip.{kind}")
    _run(writer, job, summary)
    writer.discard()
    assert writer.path.stat().st_size > 0


def test_an_existing_output_is_refused_at_once(make: MakeWriter, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{kind}"
    path.write_text("precious")
    with pytest.raises(OutputExists, match="--force") as caught:
        make(path)
    assert str(path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [f"clip.{kind}"]
    assert path.read_text() == "precious"


def test_an_output_that_appears_meanwhile_is_not_overwritten(
    make: MakeWriter, kind: str, job: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    writer = make(tmp_path / f"clip.{kind}")
    writer.path.write_text("precious")
    with pytest.raises(OutputExists):
        _run(writer, job, summary)
    writer.discard()
    assert writer.path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [writer.path]


def test_force_replaces_only_at_the_end(
    make: MakeWriter, kind: str, job: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    path = tmp_path / f"clip.{kind}"
    path.write_text("old")
    writer = make(path, force=True)
    writer.write(job)
    assert path.read_text() == "old"
    writer.finish(summary)
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_and_leaves_nothing(
    make: MakeWriter,
    kind: str,
    job: list[LabelledFrame],
    summary: FileSummary,
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(64)
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        writer = make(disk / f"clip.{kind}")  # may write at once, in a thread of its own
        with suppress(OSError):
            while True:
                ballast.write(bytes(512))
    with pytest.raises(DiskFull, match="free some space") as caught:
        _run(writer, job, summary)
    assert str(writer.path) in str(caught.value)
    writer.discard()
    assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_a_missing_folder_is_told(make: MakeWriter, kind: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="make the folder") as caught:
        make(tmp_path / "nowhere" / f"clip.{kind}")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_a_folder_that_may_not_be_written_is_told(
    make: MakeWriter, kind: str, tmp_path: Path, forbid_writing: Callable[[Path], None]
) -> None:
    forbid_writing(tmp_path)
    with pytest.raises(OutputError, match="Not allowed to write"):
        make(tmp_path / f"clip.{kind}")


def test_a_folder_with_the_name_of_the_output_is_told(make: MakeWriter, kind: str, tmp_path: Path) -> None:
    (tmp_path / f"clip.{kind}").mkdir()
    with pytest.raises(OutputError, match="a folder has that name"):
        make(tmp_path / f"clip.{kind}", force=True)


def test_a_name_that_is_too_long_is_told_at_once(make: MakeWriter, kind: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        make(tmp_path / f"{'x' * 300}.{kind}")
    assert list(tmp_path.iterdir()) == []
