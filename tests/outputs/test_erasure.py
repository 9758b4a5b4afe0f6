"""Taking a stretch of time out of the files, while somebody writes to them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_stream.errors import OutputError
from fer_stream.outputs.daily_tables import DailyTables
from fer_stream.outputs.erasure import ErasedFiles, erase_files
from fer_stream.records import Gap, LabelledFace, LabelledFrame, Quality, Segment, stream_id_of

NOON = 1767268800.0
"""2026-01-01T12:00:00Z"""

STREAM = stream_id_of("door", round(1000 * NOON))
PROBS = np.full(7, 1 / 7, np.float32)
FACE = LabelledFace(3, np.array([10, 20, 50, 60], np.float32), 0.9, Quality(0.8, "ok"), PROBS, PROBS, "happy")


def frames(first: int, end: int) -> list[LabelledFrame]:
    return [LabelledFrame(STREAM, index, float(index), (FACE,) if index % 2 else ()) for index in range(first, end)]


def segments(*spans: tuple[float, float]) -> list[Segment]:
    return [Segment(STREAM, 3, "happy", *span, 0.8) for span in spans]


@pytest.fixture
def tables(tmp_path: Path) -> DailyTables:
    """Ten rows, three segments and a gap, by a writer that goes on."""
    writer = DailyTables(tmp_path, retention_days=None, clock=lambda: NOON)
    writer.append_frames("door", frames(0, 10))
    writer.append_segments(
        "door", segments((0, 2.5), (3, 4), (5.5, 9)), [Gap(STREAM, 4, 5, "stalled")]
    )
    return writer


def erase(folder: Path, from_s: float, to_s: float, *, dry_run: bool = False, now_s: float = NOON) -> ErasedFiles:
    return erase_files(folder / "door", NOON + from_s, NOON + to_s, segment_s=600, now_s=now_s, dry_run=dry_run)


def kept(folder: Path) -> tuple[list[int], list[tuple[str, float]]]:
    """Frame indexes of the table, and kind and start of each line, as others read them."""
    [table] = (folder / "door").glob("*.frames.csv")
    [lines] = (folder / "door").glob("*.segments.jsonl")
    told = [json.loads(line) for line in lines.read_text().splitlines() if line]
    assert len(pd.read_json(lines, lines=True)) == len(told)
    return pd.read_csv(table)["frame_index"].tolist(), [(line["kind"], line["start_s"]) for line in told]


def test_what_was_seen_in_that_time_is_gone_and_nothing_else(tables: DailyTables, tmp_path: Path) -> None:
    assert erase(tmp_path, 2, 6).rows == 4 + 3
    assert kept(tmp_path) == ([0, 1, 6, 7, 8, 9], [("gap", 4.0)])
    assert erase(tmp_path, 2, 6).rows == 0


def test_the_ends_of_the_time(tables: DailyTables, tmp_path: Path) -> None:
    assert erase(tmp_path, 4, 5.5).rows == 2  # a segment that ends when it begins, or begins when it ends, is out
    assert kept(tmp_path)[1] == [("segment", 0.0), ("segment", 3.0), ("gap", 4.0), ("segment", 5.5)]


def test_the_writer_goes_on_and_a_restart_finds_its_place(tables: DailyTables, tmp_path: Path) -> None:
    before = tables.offsets("door")
    erase(tmp_path, 2, 6)
    assert tables.offsets("door") == before
    tables.append_frames("door", frames(10, 12))
    tables.append_segments("door", segments((9, 11)), [])
    assert tables.lost_rows("door") == 0
    again = DailyTables(tmp_path, retention_days=None, clock=lambda: NOON)
    again.truncate("door", before)
    again.append_frames("door", frames(10, 13))
    assert again.lost_rows("door") == 0
    assert kept(tmp_path) == ([0, 1, 6, 7, 8, 9, 10, 11, 12], [("gap", 4.0)])


def test_looking_changes_nothing(tables: DailyTables, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert erase(tmp_path, 0, 100, dry_run=True).rows == 13
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\n", b"not ours\n", b"\0\0\0\0\n", b"[1]\n", b'{"kind": 1}\n', b'{"start": "2026"}\n',
     b'{"kind": "segment", "start": null}\n', b"[" * 100_000 + b"\n"],
)  # fmt: skip
def test_a_line_that_is_not_ours_stops_nothing_and_is_counted(
    line: bytes, tables: DailyTables, tmp_path: Path
) -> None:
    for path in (tmp_path / "door").iterdir():
        with path.open("ab") as file:
            file.write(line)
    again = DailyTables(tmp_path, retention_days=None, clock=lambda: NOON)
    again.append_frames("door", frames(10, 12))
    again.append_segments("door", segments((10, 11)), [])
    told = erase(tmp_path, 0, 100)
    assert (told.rows, told.unparsable) == (10 + 3 + 2 + 1, 2)
    for path in (tmp_path / "door").iterdir():
        assert line in path.read_bytes()


def test_recordings_go_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "door"
    folder.mkdir()
    names = ["2026-01-01T113000.000Z.mp4", "2026-01-01T115500.000Z.mp4", ".2026-01-01T120000.000Z.mp4",
             "2026-01-01T121000.000Z.mp4", "holiday.mp4"]  # fmt: skip
    for name in names:
        (folder / name).write_bytes(b"video")
        os.utime(folder / name, (NOON - 290, NOON - 290))
    os.utime(folder / names[0], (NOON - 1200, NOON - 1200))
    growing = folder / names[2]
    os.utime(growing, (NOON + 100, NOON + 100))
    told = erase(tmp_path, 10, 20, now_s=NOON + 101)
    assert (told.recordings, told.in_progress) == (1, [growing])
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(names) - {names[1]})
    # Nobody wrote to it for a while: its process died.
    assert erase(tmp_path, 10, 20, now_s=NOON + 200).recordings == 1
    assert not growing.exists()


def test_a_source_without_files(tmp_path: Path) -> None:
    assert erase(tmp_path, 0, 10) == ErasedFiles()


def test_a_file_that_cannot_be_changed_is_named(tmp_path: Path) -> None:
    (tmp_path / "door" / "2026-01-01.frames.csv").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"2026-01-01\.frames\.csv cannot be erased from: Is a directory"):
        erase(tmp_path, 0, 10)
