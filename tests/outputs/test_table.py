"""NAME.frames.csv."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from fer_stream.errors import DiskFull
from fer_stream.outputs.table import COLUMNS, FrameTable
from fer_stream.records import LABELS, UNKNOWN, FileSummary, LabelledFrame


@pytest.fixture
def table(frames: list[LabelledFrame], summary: FileSummary, tmp_path: Path) -> Path:
    output = FrameTable(tmp_path / "clip.frames.csv")
    for frame in frames:
        output.write([frame])
    output.finish(summary)
    output.commit()
    return output.path


def test_header_has_the_documented_columns(table: Path) -> None:
    header = table.read_text().splitlines()[0]
    assert header == (
        "frame_index,time_s,person_id,x1,y1,x2,y2,confidence,quality,quality_reason,"
        "angry,disgust,fear,happy,sad,surprise,neutral,label,unknown_reason"
    )
    assert header == ",".join(COLUMNS)


def test_one_row_per_face_and_one_per_frame_without_faces(table: Path) -> None:
    rows = table.read_text().splitlines()[1:]
    assert rows[0] == (
        "0,0.000000,1,40.00,30.00,80.00,90.00,0.8765,0.9000,ok,0.0500,0.0500,0.0500,0.7000,0.0500,0.0500,0.0500,happy,"
    )
    assert rows[-2].endswith(",0.9000,ok,0.0500,0.0500,0.0500,0.0500,0.0500,0.0500,0.7000,unknown,undecided")
    assert rows[10] == "10,0.400000" + "," * 17
    assert len(rows) == 50 + 25


def test_pandas_reads_the_documented_types(table: Path, frames: list[LabelledFrame]) -> None:
    data = pd.read_csv(table, dtype={"person_id": "Int64"})
    assert data["frame_index"].dtype == "int64"
    assert data["person_id"].dtype == "Int64"
    for column in ("time_s", "x1", "confidence", "quality", *LABELS):
        assert data[column].dtype == "float64"
    assert data["person_id"].isna().sum() == 5
    assert data.groupby("person_id").size().to_dict() == {1: 45, 2: 25}
    faces = data.dropna(subset="person_id")
    assert faces[list(LABELS)].sum(axis=1).sub(1).abs().max() < 0.0005
    assert list(faces["label"]) == [face.label for frame in frames for face in frame.faces]
    assert (faces["unknown_reason"].notna() == (faces["label"] == UNKNOWN)).all()


def test_failed_write_leaves_whole_rows_and_can_be_repeated(
    frames: list[LabelledFrame], summary: FileSummary, small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    disk = small_disk(256)
    output = FrameTable(disk / "clip.frames.csv")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(248 * 1024))
    written = 0
    with suppress(DiskFull):
        while True:
            output.write(frames)
            written += 1
    ballast.unlink()
    for _ in range(10 - written):
        output.write(frames)
    output.finish(summary)
    output.commit()
    expected = FrameTable(tmp_path / "clip.frames.csv")
    for _ in range(10):
        expected.write(frames)
    expected.finish(summary)
    expected.commit()
    assert output.path.read_bytes() == expected.path.read_bytes()


def test_rows_are_readable_before_the_end(frames: list[LabelledFrame], tmp_path: Path) -> None:
    output = FrameTable(tmp_path / "clip.frames.csv")
    output.write(frames[:1])
    (partial,) = tmp_path.iterdir()
    assert len(partial.read_text().splitlines()) == 2
    output.discard()
