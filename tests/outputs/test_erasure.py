"""Erasure of a time range from files, also while they are written."""

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
    """Write ten rows, three segments and a gap; return the writer."""
    writer = DailyTables(tmp_path, retention_days=None, clock=lambda: NOON)
    writer.append_frames("door", frames(0, 10))
    writer.append_segments("door", segments((0, 2.5), (3, 4), (5.5, 9)), [Gap(STREAM, 4, 5, "stalled")])
    return writer


def erase(directory: Path, from_s: float, to_s: float, *, dry_run: bool = False, now_s: float = NOON) -> ErasedFiles:
    return erase_files(directory / "door", NOON + from_s, NOON + to_s, segment_s=600, now_s=now_s, dry_run=dry_run)


def remaining(directory: Path) -> tuple[list[int], list[tuple[str, float]]]:
    """Return the frame indexes of the table, and kind and start of each line, as pandas and json read them."""
    [table] = (directory / "door").glob("*.frames.csv")
    [lines] = (directory / "door").glob("*.segments.jsonl")
    parsed = [json.loads(line) for line in lines.read_text().splitlines() if line]
    assert len(pd.read_json(lines, lines=True)) == len(parsed)
    return pd.read_csv(table)["frame_index"].tolist(), [(line["kind"], line["start_s"]) for line in parsed]


def test_only_data_of_the_range_is_erased(tables: DailyTables, tmp_path: Path) -> None:
    assert erase(tmp_path, 2, 6).rows == 4 + 3
    assert remaining(tmp_path) == ([0, 1, 6, 7, 8, 9], [("gap", 4.0)])
    assert erase(tmp_path, 2, 6).rows == 0


def test_range_includes_its_start_but_not_its_end(tables: DailyTables, tmp_path: Path) -> None:
    assert erase(tmp_path, 4, 5.5).rows == 2  # segments that only touch the range stay
    assert remaining(tmp_path)[1] == [("segment", 0.0), ("segment", 3.0), ("gap", 4.0), ("segment", 5.5)]


def test_writer_continues_and_its_checkpoint_stays_valid(tables: DailyTables, tmp_path: Path) -> None:
    before = tables.offsets("door")
    erase(tmp_path, 2, 6)
    assert tables.offsets("door") == before
    tables.append_frames("door", frames(10, 12))
    tables.append_segments("door", segments((9, 11)), [])
    assert tables.lost_rows("door") == 0
    restarted = DailyTables(tmp_path, retention_days=None, clock=lambda: NOON)
    restarted.truncate("door", before)
    restarted.append_frames("door", frames(10, 13))
    assert restarted.lost_rows("door") == 0
    assert remaining(tmp_path) == ([0, 1, 6, 7, 8, 9, 10, 11, 12], [("gap", 4.0)])


def test_dry_run_changes_nothing(tables: DailyTables, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert erase(tmp_path, 0, 100, dry_run=True).rows == 13
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\n", b"foreign\n", b"\0\0\0\0\n", b"[1]\n", b'{"kind": 1}\n', b'{"start": "2026"}\n',
     b'{"kind": "segment", "start": null}\n', b"[" * 100_000 + b"\n"],
)  # fmt: skip
def test_unparsable_lines_are_kept_and_counted(line: bytes, tables: DailyTables, tmp_path: Path) -> None:
    for path in (tmp_path / "door").iterdir():
        with path.open("ab") as file:
            file.write(line)
    restarted = DailyTables(tmp_path, retention_days=None, clock=lambda: NOON)
    restarted.append_frames("door", frames(10, 12))
    restarted.append_segments("door", segments((10, 11)), [])
    erased = erase(tmp_path, 0, 100)
    assert (erased.rows, erased.unparsable) == (10 + 3 + 2 + 1, 2)
    for path in (tmp_path / "door").iterdir():
        assert line in path.read_bytes()


def test_overlapping_recordings_are_deleted(tmp_path: Path) -> None:
    directory = tmp_path / "door"
    directory.mkdir()
    names = ["2026-01-01T113000.000Z.mp4", "2026-01-01T115500.000Z.mp4", ".2026-01-01T120000.000Z.mp4",
             "2026-01-01T121000.000Z.mp4", "holiday.mp4"]  # fmt: skip
    for name in names:
        (directory / name).write_bytes(b"video")
        os.utime(directory / name, (NOON - 290, NOON - 290))
    os.utime(directory / names[0], (NOON - 1200, NOON - 1200))
    in_progress = directory / names[2]
    os.utime(in_progress, (NOON + 100, NOON + 100))
    erased = erase(tmp_path, 10, 20, now_s=NOON + 101)
    assert (erased.recordings, erased.in_progress) == (1, [in_progress])
    assert sorted(path.name for path in directory.iterdir()) == sorted(set(names) - {names[1]})
    # Without writes for 60 s it counts as left by a process that died.
    assert erase(tmp_path, 10, 20, now_s=NOON + 200).recordings == 1
    assert not in_progress.exists()


def test_source_without_files(tmp_path: Path) -> None:
    assert erase(tmp_path, 0, 10) == ErasedFiles()


def test_error_contains_the_file_that_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "door" / "2026-01-01.frames.csv").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"Cannot erase data from .*2026-01-01\.frames\.csv: Is a directory"):
        erase(tmp_path, 0, 10)
