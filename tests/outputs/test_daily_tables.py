"""Daily tables contain complete rows, each once, after crashes and disk errors."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_stream.errors import OutputError, OutputUnavailable
from fer_stream.outputs.daily_tables import DAILY_COLUMNS, DailyTables
from fer_stream.outputs.table import COLUMNS
from fer_stream.records import LABELS, UNKNOWN, Gap, LabelledFace, LabelledFrame, Quality, Segment, stream_id_of
from fer_stream.store.schemas import segment_document
from tests.support.waiting import wait_until

NEW_YEAR = 1767225600.0
"""2026-01-01T00:00:00Z"""

DAY_S = 86_400.0
STREAM = stream_id_of("door", round(1000 * NEW_YEAR))
PROBS = np.full(7, 1 / 7, np.float32)
FACE = LabelledFace(3, np.array([10, 20, 50, 60], np.float32), 0.9, Quality(0.8, "ok"), PROBS, PROBS, "happy")


class Clock:
    def __init__(self, now_s: float = NEW_YEAR) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def tables(directory: Path, clock: Clock | None = None, retention_days: int | None = None) -> DailyTables:
    return DailyTables(directory, retention_days=retention_days, clock=clock or Clock())


def frame(index: int, time_s: float, *faces: LabelledFace) -> LabelledFrame:
    return LabelledFrame(STREAM, index, time_s, faces)


def segment(start_s: float, end_s: float, label: str = "sad") -> Segment:
    return Segment(STREAM, 3, label, start_s, end_s, 0.51239)


def gap(start_s: float, end_s: float) -> Gap:
    return Gap(STREAM, start_s=start_s, end_s=end_s, reason="stalled")


def frames(number: int, start: int = 0) -> list[LabelledFrame]:
    return [frame(index, index / 15, FACE) for index in range(start, start + number)]


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def lines(directory: Path) -> list[dict[str, Any]]:
    """Return the lines of segments.jsonl of all days."""
    files = sorted(directory.glob("door/*.segments.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def row_count(directory: Path) -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in directory.glob("door/*.frames.csv"))


# The format


def test_row_consists_of_the_frames_table_columns_and_wall_time(tmp_path: Path) -> None:
    small = replace(FACE, label=UNKNOWN, unknown_reason="small")
    tables(tmp_path).append_frames("door", [frame(7, 1.5, FACE), frame(8, 1.6), frame(9, 1.7, small)])
    with (tmp_path / "door" / "2026-01-01.frames.csv").open(newline="") as file:
        row, empty, unknown = csv.DictReader(file)
    assert tuple(row) == DAILY_COLUMNS == (*COLUMNS, "stream_start_ms", "wall_time")
    assert (row["frame_index"], row["person_id"], row["label"]) == ("7", "3", "happy")
    assert row["stream_start_ms"] == "1767225600000"
    assert row["wall_time"] == "2026-01-01T00:00:01.500000Z"
    assert (empty["frame_index"], empty["person_id"], empty["label"]) == ("8", "", "")
    assert empty["wall_time"] == "2026-01-01T00:00:01.600000Z"
    assert [one["unknown_reason"] for one in (row, empty, unknown)] == ["", "", "small"]


def test_segments_and_gaps_are_lines_ordered_by_their_end(tmp_path: Path) -> None:
    tables(tmp_path).append_segments("door", [segment(0.5, 9.25)], [gap(2.0, 4.0)])
    assert lines(tmp_path) == [
        {
            "kind": "gap", "stream_id": STREAM, "reason": "stalled", "start_s": 2.0, "end_s": 4.0,
            "start": "2026-01-01T00:00:02.000000Z", "end": "2026-01-01T00:00:04.000000Z",
        },
        {
            "kind": "segment", "stream_id": STREAM, **segment_document(segment(0.5, 9.25)),
            "start": "2026-01-01T00:00:00.500000Z", "end": "2026-01-01T00:00:09.250000Z",
        },
    ]  # fmt: skip


def test_new_file_begins_at_midnight_utc(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    writer.append_frames("door", [frame(0, DAY_S - 0.000001), frame(1, DAY_S)])
    writer.append_segments("door", [segment(DAY_S - 5, DAY_S + 1)], [])
    assert sorted(content(tmp_path)) == [
        "door/2026-01-01.frames.csv", "door/2026-01-02.frames.csv", "door/2026-01-02.segments.jsonl",
    ]  # fmt: skip
    for path in tmp_path.glob("door/*.csv"):
        assert path.read_text().splitlines()[0] == ",".join(DAILY_COLUMNS)
        assert len(path.read_text().splitlines()) == 2


def test_late_rows_go_to_the_newest_file(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    writer.append_segments("door", [segment(DAY_S, DAY_S + 1)], [])
    writer.append_segments("door", [segment(1, 2, "happy")], [])
    assert list(content(tmp_path)) == ["door/2026-01-02.segments.jsonl"]
    assert [line["label"] for line in lines(tmp_path)] == ["sad", "happy"]


def test_appending_nothing_creates_no_file(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    writer.append_frames("door", [])
    writer.append_segments("door", [], [])
    assert content(tmp_path) == {}


def test_no_file_stays_open_between_calls(tmp_path: Path) -> None:
    writer, open_before = tables(tmp_path), len(list(Path("/proc/self/fd").iterdir()))
    for number in range(300):
        writer.append_frames(f"cam{number}", frames(2))
    # Not ==: files of earlier tests may be closed in the meantime.
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before
    assert len(content(tmp_path)) == 300


def test_documentation_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "live-files.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    closed = [segment(30 * DAY_S + second, 30 * DAY_S + second + 0.5) for second in range(3)]
    tables(tmp_path).append_segments("front-door", closed, [])
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert re.search(r"sad +3\n", capsys.readouterr().out)


# Restarts


Item = LabelledFrame | Segment


@st.composite
def histories(draw: st.DrawFn) -> list[Item]:
    """Generate frames and segments of some days, with sessions that begin before the end of the previous one."""
    items: list[Item] = []
    end_s = start_s = 0.0
    for index in range(draw(st.integers(1, 25))):
        start_s += draw(st.sampled_from([0.1, 5.0, DAY_S / 3, -DAY_S / 2]))
        end_s = max(end_s, start_s) + 0.25
        if draw(st.booleans()):
            items.append(frame(index, max(start_s, 0.0), *[FACE] * draw(st.integers(0, 2))))
        else:
            items.append(segment(end_s - 0.2, end_s))
    return items


def append_all(writer: DailyTables, items: Sequence[Item]) -> None:
    writer.append_frames("door", [item for item in items if isinstance(item, LabelledFrame)])
    writer.append_segments("door", [item for item in items if isinstance(item, Segment)], [])


@pytest.fixture(scope="module")
def scratch() -> Iterator[Callable[[], Path]]:
    """Create empty directories within one test, because Hypothesis does not reset `tmp_path` between examples."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp()))
        return made[-1]

    yield make
    for directory in made:
        shutil.rmtree(directory)


STEPS = st.lists(st.one_of(st.integers(1, 8), st.sampled_from(["checkpoint", "restart"])), max_size=20)


@settings(max_examples=150, deadline=None)
@given(history=histories(), earlier=st.integers(0, 3), steps=STEPS, partial_bytes=st.integers(0, 60))
def test_restarts_do_not_change_the_files(
    scratch: Callable[[], Path], history: list[Item], earlier: int, steps: list[int | str], partial_bytes: int
) -> None:
    """Any order of appends, checkpoints and restarts results in the same files as one append."""
    expected, directory = scratch(), scratch()
    append_all(tables(expected), history[:earlier])
    append_all(tables(expected), history[earlier:])
    append_all(tables(directory), history[:earlier])
    writer, done = tables(directory), earlier
    checkpoint = done, writer.offsets("door")
    for step in steps:
        if isinstance(step, int):
            append_all(writer, history[done : done + step])
            done += step
        elif step == "checkpoint":
            checkpoint = done, json.loads(json.dumps(writer.offsets("door")))
        else:
            append_partial_row(directory, partial_bytes)
            writer, done = tables(directory), checkpoint[0]
            writer.truncate("door", checkpoint[1])
    append_all(writer, history[done:])
    assert content(directory) == content(expected)


def append_partial_row(directory: Path, length: int) -> None:
    """Append a row without line end to the newest file of each kind, as a killed process can."""
    for ending in (".frames.csv", ".segments.jsonl"):
        for path in sorted(directory.glob(f"door/*{ending}"))[-1:]:
            with path.open("ab") as file:
                file.write(b"9" * length)


def test_without_a_checkpoint_only_a_partial_row_is_removed(tmp_path: Path) -> None:
    tables(tmp_path).append_frames("door", frames(5))
    before = content(tmp_path)
    append_partial_row(tmp_path, 100_000)
    assert tables(tmp_path).offsets("door")["2026-01-01.frames.csv"] == len(before["door/2026-01-01.frames.csv"])
    assert content(tmp_path) == before


def test_empty_checkpoint_deletes_nothing(tmp_path: Path) -> None:
    tables(tmp_path).append_frames("door", frames(5))
    before = content(tmp_path)
    tables(tmp_path).truncate("door", {})
    assert content(tmp_path) == before


def test_checkpoint_does_not_affect_other_files(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    start = writer.offsets("door")
    writer.append_frames("door", frames(2))
    writer.append_frames("hall", frames(2))
    (tmp_path / "door" / "2027-01-01.notes.csv").write_text("foreign")
    (tmp_path / "outside").write_text("foreign")
    tables(tmp_path).truncate("door", {**start, "../outside": 0, "2027-01-01.notes.csv": 0})
    assert sorted(content(tmp_path)) == ["door/2027-01-01.notes.csv", "hall/2026-01-01.frames.csv", "outside"]
    assert (tmp_path / "outside").read_text() == "foreign"


def test_checkpoint_of_another_directory_truncates_nothing(tmp_path: Path) -> None:
    """recordings.dir is changed and changed back on the same day."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory, rows in ((first, 50), (second, 80)):
        directory.mkdir()
        tables(directory).append_frames("door", frames(rows))
    checkpoint: dict[str, int] = {}
    for index, directory in enumerate([first, second, first, second]):
        writer = tables(directory)
        writer.truncate("door", checkpoint)
        writer.append_frames("door", frames(1, 100 + index))
        checkpoint = json.loads(json.dumps(writer.offsets("door")))
    assert (row_count(first), row_count(second)) == (52, 82)


def test_symbolic_link_with_a_new_target_is_another_directory(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "live"
    link.symlink_to("old")
    tables(link).append_frames("door", frames(5))
    checkpoint = tables(link).offsets("door")
    tables(tmp_path / "new").append_frames("door", frames(9))
    link.unlink()
    link.symlink_to("new")
    tables(link).truncate("door", checkpoint)
    assert row_count(link) == 9


def test_checkpoint_without_directory_id_applies_to_the_current_directory(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    writer.append_frames("door", frames(2))
    checkpoint = {name: length for name, length in writer.offsets("door").items() if name != "directory_id"}
    writer.append_frames("door", frames(3, 2))
    tables(tmp_path).truncate("door", checkpoint)
    assert row_count(tmp_path) == 2


CHILD = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_daily_tables as t
writer = t.tables(Path(sys.argv[1]))
for start in range(0, 10**6, 2000):
    print(json.dumps([start, writer.offsets("door")]), flush=True)
    writer.append_frames("door", t.frames(2000, start))
    writer.append_segments("door", [t.segment(start / 15, (start + 1) / 15)], [])
"""


def test_process_killed_while_writing_loses_and_repeats_no_row(tmp_path: Path) -> None:
    directory, expected = tmp_path / "killed", tmp_path / "expected"
    directory.mkdir()
    expected.mkdir()
    command = [sys.executable, "-c", CHILD, str(directory), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        checkpoints = [json.loads(child.stdout.readline()) for _ in range(4)]
        table = directory / "door" / "2026-01-01.frames.csv"
        wait_until(lambda: table.stat().st_size > checkpoints[-1][1][table.name])
        child.kill()
        checkpoints += map(json.loads, child.stdout.read().splitlines())
    assert child.returncode == -signal.SIGKILL
    done, offsets = checkpoints[-1]
    writer = tables(directory)
    writer.truncate("door", offsets)
    writer.append_frames("door", frames(100, done))
    for start in range(0, done, 2000):
        tables(expected).append_segments("door", [segment(start / 15, (start + 1) / 15)], [])
    tables(expected).append_frames("door", frames(done + 100))
    assert content(directory) == content(expected)


def test_bytes_lost_in_a_power_loss_are_reported(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    writer.append_frames("door", frames(100))
    offsets = writer.offsets("door")
    path = tmp_path / "door" / "2026-01-01.frames.csv"
    path.write_bytes(path.read_bytes()[:3000])
    complete = path.read_bytes().rpartition(b"\n")[0] + b"\n"
    again = tables(tmp_path)
    again.truncate("door", offsets)
    assert path.read_bytes() == complete
    again.append_frames("door", frames(1, 100))
    reported = {"kind": "lost", "rows": 0, "bytes": offsets[path.name] - len(complete), "start": None, "end": None}
    assert lines(tmp_path) == [reported]


# Disks


def fill(disk: Path) -> None:
    """Use all free blocks."""
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_writing_resumes_after_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    disk, clock = small_disk(64), Clock()
    writer = tables(disk, clock)
    writer.append_frames("door", frames(10))
    fill(disk)
    with pytest.raises(OutputUnavailable, match=r"2026-01-01\.frames\.csv: the disk is full.*Free space") as caught:
        writer.append_frames("door", frames(100, 10))
    assert isinstance(caught.value, OutputError)
    assert row_count(disk) == 10
    assert (disk / "door" / "2026-01-01.frames.csv").read_bytes().endswith(b"\n")

    writer.append_frames("door", frames(5, 110))  # before the next attempt: counted without an error
    assert writer.lost_rows("door") == 105
    clock.now_s += 1
    with pytest.raises(OutputUnavailable):
        writer.append_segments("door", [segment(0, 8)], [])
    clock.now_s += 1
    (disk / "ballast").unlink()
    writer.append_frames("door", frames(1, 115))
    assert writer.lost_rows("door") == 107  # the delay was doubled
    clock.now_s += 1
    writer.append_frames("door", frames(3, 116))

    assert row_count(disk) == 13
    start, end = "2026-01-01T00:00:00.666667Z", "2026-01-01T00:00:08.000000Z"
    assert lines(disk) == [{"kind": "lost", "rows": 107, "bytes": 0, "start": start, "end": end}]
    writer.append_segments("door", [segment(0, 9)], [])
    assert [line["kind"] for line in lines(disk)] == ["lost", "segment"]
    assert writer.lost_rows("door") == 107


def test_losses_are_reported_after_a_restart(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(64)
    writer = tables(disk)
    fill(disk)
    with pytest.raises(OutputUnavailable):
        writer.append_frames("door", frames(2, 15))
    offsets = json.loads(json.dumps(writer.offsets("door")))
    (disk / "ballast").unlink()
    again = tables(disk)
    again.truncate("door", offsets)
    again.append_frames("door", frames(1, 17))
    assert row_count(disk) == 1
    assert [(line["kind"], line["rows"]) for line in lines(disk)] == [("lost", 2)]
    assert again.offsets("door").keys() == {"directory_id", "2026-01-01.frames.csv", "2026-01-01.segments.jsonl"}


def test_rows_before_midnight_are_written_if_the_file_of_the_next_day_fails(tmp_path: Path) -> None:
    clock = Clock()
    writer = tables(tmp_path, clock)
    writer.append_frames("door", frames(1))
    blocker = tmp_path / "door" / "2026-01-02.frames.csv"
    blocker.mkdir()
    with pytest.raises(OutputUnavailable, match=blocker.name):
        writer.append_frames("door", [frame(1, 0.1), *[frame(index, DAY_S, FACE) for index in range(2, 80)]])
    blocker.rmdir()
    assert row_count(tmp_path) == 2
    assert writer.lost_rows("door") == 78
    clock.now_s += 1
    writer.append_frames("door", [frame(80, DAY_S + 1)])
    assert row_count(tmp_path) == 3
    assert [(line["kind"], line["rows"]) for line in lines(tmp_path)] == [("lost", 78)]


def test_error_of_one_source_does_not_affect_others(tmp_path: Path) -> None:
    (tmp_path / "door").write_text("a file instead of a directory")
    writer = tables(tmp_path)
    with pytest.raises(OutputUnavailable, match="door"):
        writer.append_frames("door", frames(1))
    writer.append_frames("hall", frames(1))
    assert (tmp_path / "hall" / "2026-01-01.frames.csv").exists()


def test_missing_directory_is_reported_and_not_created(tmp_path: Path) -> None:
    disk, clock = tmp_path / "disk", Clock()
    disk.mkdir()
    writer = tables(disk, clock)
    writer.append_frames("door", frames(3))
    shutil.rmtree(disk)
    with pytest.raises(OutputUnavailable, match=r"its directory no longer exists.*mount"):
        writer.append_frames("door", frames(2, 3))
    assert not disk.exists()
    disk.mkdir()
    clock.now_s += 1
    writer.append_frames("door", frames(1, 5))
    assert row_count(disk) == 1
    assert [(line["kind"], line["rows"], line["bytes"]) for line in lines(disk)] == [("lost", 2, 0)]


def test_read_only_directory_is_reported(tmp_path: Path, forbid_writing: Callable[[Path], None]) -> None:
    writer = tables(tmp_path)
    forbid_writing(tmp_path)
    with pytest.raises(OutputUnavailable, match=r"permission denied.*Make .* writable"):
        writer.append_frames("door", frames(1))
    assert writer.lost_rows("door") == 1


def test_files_are_truncated_later_if_the_disk_fails_at_a_restart(tmp_path: Path) -> None:
    disk, elsewhere, clock = tmp_path / "disk", tmp_path / "elsewhere", Clock()
    disk.mkdir()
    writer = tables(disk)
    writer.append_frames("door", frames(3))
    offsets = writer.offsets("door")
    writer.append_frames("door", frames(2, 3))
    (disk / "door").rename(elsewhere)
    (disk / "door").write_text("a file instead of a directory")
    again = tables(disk, clock)
    with pytest.raises(OutputUnavailable):
        again.truncate("door", offsets)
    (disk / "door").unlink()
    elsewhere.rename(disk / "door")
    again.append_frames("door", frames(2, 3))
    assert row_count(disk) == 5
    assert lines(disk) == []


def test_files_are_truncated_later_if_the_disk_is_missing_at_two_restarts(tmp_path: Path) -> None:
    disk, unmounted, clock = tmp_path / "disk", tmp_path / "unmounted", Clock()
    disk.mkdir()
    writer = tables(disk)
    writer.append_frames("door", frames(3))
    offsets = writer.offsets("door")
    writer.append_frames("door", frames(2, 3))
    disk.rename(unmounted)
    for _ in range(2):  # the second restart reads the checkpoint of the first
        again = tables(disk, clock)
        with pytest.raises(OutputUnavailable, match="no longer exists"):
            again.truncate("door", offsets)
        assert again.offsets("door") == offsets
        offsets = again.offsets("door")
    unmounted.rename(disk)
    again.append_frames("door", frames(2, 3))
    assert row_count(disk) == 5


def test_table_that_cannot_be_opened_keeps_its_rows(tmp_path: Path) -> None:
    table, clock = tmp_path / "door" / "2026-01-01.frames.csv", Clock()
    tables(tmp_path).append_frames("door", frames(3))
    table.rename(tmp_path / "aside")
    table.mkdir()
    writer = tables(tmp_path, clock)
    with pytest.raises(OutputUnavailable):
        writer.append_frames("door", frames(1, 3))
    table.rmdir()
    (tmp_path / "aside").rename(table)
    clock.now_s += 1
    writer.append_frames("door", frames(1, 4))
    assert row_count(tmp_path) == 4


def test_rows_of_another_process_are_not_truncated(tmp_path: Path) -> None:
    clock = Clock()
    suspended = tables(tmp_path, clock)
    suspended.append_frames("door", frames(3))
    owner = tables(tmp_path)
    owner.append_frames("door", frames(3, 3))
    before = content(tmp_path)
    with pytest.raises(OutputUnavailable, match="Another process wrote"):
        suspended.append_frames("door", frames(3, 3))
    assert content(tmp_path) == before
    owner.append_frames("door", frames(1, 6))
    assert row_count(tmp_path) == 7


def test_deleted_table_is_created_again(tmp_path: Path) -> None:
    writer = tables(tmp_path)
    writer.append_frames("door", frames(3))
    offsets = writer.offsets("door")
    (tmp_path / "door" / "2026-01-01.frames.csv").unlink()
    writer.append_frames("door", frames(2, 3))
    assert row_count(tmp_path) == 2
    (tmp_path / "door" / "2026-01-01.frames.csv").unlink()
    again = tables(tmp_path)
    again.truncate("door", offsets)
    again.append_frames("door", frames(1, 3))
    assert row_count(tmp_path) == 1
    assert lines(tmp_path) == []


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str, int]]:
    """Return event, output, source and number of lost rows of each log record."""
    fields = [vars(record) for record in caplog.records]
    return [(one["message"], one["output"], one["source"], one["lost_rows"]) for one in fields]


def test_writing_resumed_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fer_stream")
    (tmp_path / "door").write_text("a file instead of a directory")
    clock = Clock()
    writer = DailyTables(tmp_path, retention_days=None, clock=clock)
    with pytest.raises(OutputUnavailable):
        writer.append_frames("door", frames(2))
    (tmp_path / "door").unlink()
    assert "writing_resumed" not in caplog.text
    clock.now_s += 1
    writer.append_frames("door", frames(1, 2))
    writer.append_frames("door", frames(1, 3))
    assert events(caplog) == [("writing_resumed", "tables", "door", 2)]


def test_writing_resumed_is_logged_if_the_directory_was_missing_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fer_stream")
    writer = DailyTables(tmp_path, retention_days=None, clock=Clock(), stopped=True)
    writer.append_frames("door", frames(1))
    writer.append_frames("hall", frames(1))
    assert events(caplog) == [("writing_resumed", "tables", "door", 0)]


# Retention


def test_only_expired_files_are_deleted(tmp_path: Path) -> None:
    clock = Clock()
    writer = tables(tmp_path, clock, retention_days=2)
    for day in range(5):
        writer.append_frames("door", [frame(day, day * DAY_S)])
        writer.append_segments("former", [segment(day * DAY_S, day * DAY_S + 1)], [])
    for name in ("2026-01-01.notes.txt", "old-2026-01-01.frames.csv", "2026-01-01.mp4", "2026-01-03T000000.000Z.mp4"):
        (tmp_path / "door" / name).write_text("foreign")
    for name in ("2026-01-02T235959.999Z.mp4", ".2026-01-02T235000.000Z.mp4"):
        (tmp_path / "door" / name).write_text("recording")
    clock.now_s = NEW_YEAR + 5 * DAY_S - 1
    assert writer.prune() == 6
    assert sorted(content(tmp_path)) == [
        "door/2026-01-01.mp4", "door/2026-01-01.notes.txt",
        "door/2026-01-03.frames.csv", "door/2026-01-03T000000.000Z.mp4", "door/2026-01-04.frames.csv",
        "door/2026-01-05.frames.csv",
        "door/old-2026-01-01.frames.csv",
        "former/2026-01-03.segments.jsonl", "former/2026-01-04.segments.jsonl", "former/2026-01-05.segments.jsonl",
    ]  # fmt: skip
    assert writer.prune() == 0


def test_source_continues_after_its_newest_table_expired(tmp_path: Path) -> None:
    clock = Clock()
    writer = tables(tmp_path, clock, retention_days=0)
    writer.append_frames("door", frames(3))
    offsets = writer.offsets("door")
    clock.now_s += 3 * DAY_S
    assert writer.prune() == 1
    again = tables(tmp_path, clock)
    again.truncate("door", offsets)
    again.append_frames("door", [frame(3, 3 * DAY_S)])
    assert list(content(tmp_path)) == ["door/2026-01-04.frames.csv"]


def test_no_file_is_deleted_without_retention(tmp_path: Path) -> None:
    clock = Clock()
    writer = tables(tmp_path, clock)
    writer.append_frames("door", frames(1))
    clock.now_s += 10_000 * DAY_S
    assert writer.prune() == 0
    assert row_count(tmp_path) == 1


def test_tables_that_cannot_be_deleted_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbid_writing: Callable[[Path], None]
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # because only root may access the parent directories
    clock = Clock()
    writer = tables(Path(), clock, retention_days=1)
    writer.append_frames("door", frames(1))
    clock.now_s += 9 * DAY_S
    forbid_writing(Path("door"))
    with pytest.raises(OutputError, match=r"Cannot delete 1 .*2026-01-01\.frames\.csv"):
        writer.prune()


def test_probabilities_are_written_with_four_decimals(tmp_path: Path) -> None:
    probs = np.array([0.1, 0.2, 0.05, 0.4, 0.05, 0.1, 0.1], np.float32)
    tables(tmp_path).append_frames("door", [frame(0, 0.0, replace(FACE, probs=probs))])
    with (tmp_path / "door" / "2026-01-01.frames.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert [float(row[label]) for label in LABELS] == pytest.approx(probs, abs=5e-5)
