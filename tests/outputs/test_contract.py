"""Contract of all outputs of the registry."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from fer_stream.config.settings import OutputSettings
from fer_stream.errors import DiskFull, OutputError, OutputExists
from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.registry import OUTPUTS, Kind, Output, OutputContext, OutputEntry
from fer_stream.records import U8, FileSummary, LabelledFrame, SourceInfo

VARIANTS = {suffix: (entry, kind) for entry in OUTPUTS.values() for kind, suffix in reversed(entry.suffixes)}
"""Entry of the registry and kind of source, by the suffix of the output."""


class MakeOutput(Protocol):
    def __call__(self, path: Path, *, force: bool = False) -> Output: ...


@pytest.fixture(params=VARIANTS)
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def variant(suffix: str) -> tuple[OutputEntry, Kind]:
    return VARIANTS[suffix]


@pytest.fixture
def make(
    variant: tuple[OutputEntry, Kind],
    array_source: Callable[..., Any],
    gradient: Callable[[int, int], U8],
    silent_video: Path,
) -> MakeOutput:
    """Return a function that creates the output as `create_outputs` does."""
    entry, kind = variant
    context = OutputContext(
        input_path=silent_video,
        info=SourceInfo("clip.mp4", kind, 176, 144, 25.0, 50, 2.0, "h264", "yuv420p"),
        open_source=lambda: array_source([gradient(176, 144)] * 50, [index / 25 for index in range(50)]),
        series=ProbabilitySeries(),
        thumbnails={},
        force=False,
    )

    def output(path: Path, *, force: bool = False) -> Output:
        return entry.create(path, replace(context, force=force), OutputSettings())

    return output


@pytest.fixture
def labelled(variant: tuple[OutputEntry, Kind], frames: list[LabelledFrame]) -> list[LabelledFrame]:
    """Frames of the source: a still image has one."""
    return frames[:1] if variant[1] == "image" else frames


def _complete(output: Output, frames: Sequence[LabelledFrame], summary: FileSummary) -> None:
    """Write all frames and finish the output."""
    for start in range(0, len(frames), 7):
        output.write(frames[start : start + 7])
    output.finish(summary)
    output.commit()


def test_target_appears_only_when_it_is_complete(
    make: MakeOutput, suffix: str, labelled: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    output = make(tmp_path / f"clip.{suffix}")
    assert output.path == tmp_path / f"clip.{suffix}"
    output.write(labelled)
    assert not output.path.exists()
    assert all(path.name.startswith(".partial-") for path in tmp_path.iterdir())
    output.finish(summary)
    output.commit()
    assert [path.name for path in tmp_path.iterdir()] == [f"clip.{suffix}"]
    assert output.path.stat().st_size > 0


def test_output_follows_the_umask(
    make: MakeOutput, suffix: str, labelled: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    old = os.umask(0o027)
    try:
        output = make(tmp_path / f"clip.{suffix}")
    finally:
        os.umask(old)
    _complete(output, labelled, summary)
    assert output.path.stat().st_mode & 0o777 == 0o640


def test_discard_removes_the_partial_file(
    make: MakeOutput, suffix: str, labelled: list[LabelledFrame], tmp_path: Path
) -> None:
    output = make(tmp_path / f"clip.{suffix}")
    output.write(labelled)
    output.discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_before_the_first_frame_leaves_nothing(make: MakeOutput, suffix: str, tmp_path: Path) -> None:
    make(tmp_path / f"clip.{suffix}").discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_after_finish_keeps_the_output(
    make: MakeOutput, suffix: str, labelled: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    output = make(tmp_path / f"clip.{suffix}")
    _complete(output, labelled, summary)
    output.discard()
    assert output.path.stat().st_size > 0


def test_existing_file_is_refused_at_creation(make: MakeOutput, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_text("existing")
    with pytest.raises(OutputExists, match="--existing replace") as caught:
        make(path)
    assert str(path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [f"clip.{suffix}"]
    assert path.read_text() == "existing"


def test_file_created_during_processing_is_not_overwritten(
    make: MakeOutput, suffix: str, labelled: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    output = make(tmp_path / f"clip.{suffix}")
    output.path.write_text("existing")
    with pytest.raises(OutputExists):
        _complete(output, labelled, summary)
    output.discard()
    assert output.path.read_text() == "existing"
    assert list(tmp_path.iterdir()) == [output.path]


def test_force_replaces_the_existing_file_at_the_end(
    make: MakeOutput, suffix: str, labelled: list[LabelledFrame], summary: FileSummary, tmp_path: Path
) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_text("old")
    output = make(path, force=True)
    output.write(labelled)
    assert path.read_text() == "old"
    output.finish(summary)
    output.commit()
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_reported_and_leaves_nothing(
    make: MakeOutput,
    suffix: str,
    labelled: list[LabelledFrame],
    summary: FileSummary,
    small_disk: Callable[[int], Path],
) -> None:
    disk = small_disk(64)
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        output = make(disk / f"clip.{suffix}")  # may write immediately, in its own thread
        with suppress(OSError):
            while True:
                ballast.write(bytes(512))
    with pytest.raises(DiskFull, match="Free space") as caught:
        _complete(output, labelled, summary)
    assert str(output.path) in str(caught.value)
    output.discard()
    assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_missing_directory_is_reported(make: MakeOutput, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"does not exist\. Create it first") as caught:
        make(tmp_path / "missing" / f"clip.{suffix}")
    assert str(tmp_path / "missing") in str(caught.value)


def test_read_only_directory_is_reported(
    make: MakeOutput, suffix: str, tmp_path: Path, forbid_writing: Callable[[Path], None]
) -> None:
    forbid_writing(tmp_path)
    with pytest.raises(OutputError, match="permission denied"):
        make(tmp_path / f"clip.{suffix}")


def test_directory_with_the_name_of_the_output_is_reported(make: MakeOutput, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"clip.{suffix}").mkdir()
    with pytest.raises(OutputError, match="it is a directory"):
        make(tmp_path / f"clip.{suffix}", force=True)


def test_too_long_name_is_reported_at_creation(make: MakeOutput, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        make(tmp_path / f"{'x' * 300}.{suffix}")
    assert list(tmp_path.iterdir()) == []
