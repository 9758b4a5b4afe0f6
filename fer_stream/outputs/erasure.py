"""Taking a stretch of time out of the files of the live service, while it may be writing to them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from fer_stream.errors import OutputError

_TABLE = re.compile(r"(\d{4}-[01]\d-[0-3]\d)(\.frames\.csv|\.segments\.jsonl)")
_RECORDING = re.compile(r"(\.?)(\d{4}-[01]\d-[0-3]\dT\d{6}\.\d{3})Z\.mp4")

_WALL_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_NO_TIMES = (b"", b"wall_time")
"""What stands where the wall time would: in a line that was erased, and in the header."""

# A recording is written to every 2 s; one that was not for so long was left by a process that died.
_ABANDONED_S = 60.0


@dataclass(slots=True)
class ErasedFiles:
    """How much was erased, or would be: `rows` of tables, `recordings`. `growing` ones cannot be yet.

    `unread` lines are not ours, or no longer whole: nobody can tell their time, and they stay.
    """

    rows: int = 0
    recordings: int = 0
    unparsable: int = 0
    in_progress: list[Path] = field(default_factory=list)


def erase_files(
    folder: Path, from_s: float, to_s: float, *, segment_s: float, now_s: float, dry_run: bool = False
) -> ErasedFiles:
    """Erase the wall time from `from_s` to before `to_s`, in Unix seconds, from the files of one source.

    Rows of frames.csv in that time, and segments of segments.jsonl that reach into it, are overwritten with empty
    lines in place: no byte moves, so that the process that appends to the file notices nothing and its checkpoint
    holds. Recordings that may reach into that time are deleted as a whole; none lasts longer than `segment_s` or
    is of pictures after its last write. With `dry_run` nothing is changed. Raises `OutputError` where a file cannot
    be changed.
    """
    erased = ErasedFiles()
    first_day, from_iso, to_iso = _iso(from_s)[:10], _iso(from_s), _iso(to_s)
    try:
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            if (table := _TABLE.fullmatch(path.name)) and table[1] >= first_day:
                _blank(path, partial(_MEANT[table[2]], from_iso=from_iso, to_iso=to_iso), erased, dry_run)
            elif recording := _RECORDING.fullmatch(path.name):
                start_s, written_s = _unix(recording[2]), path.stat().st_mtime
                if start_s < to_s and max(start_s + segment_s, written_s) > from_s:
                    _erase_recording(path, bool(recording[1]) and now_s - written_s < _ABANDONED_S, erased, dry_run)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder} cannot be erased from: {error.strerror}. Make it writable and try again; "
            f"what was erased by then stays erased."
        ) from error
    return erased


def _erase_recording(path: Path, growing: bool, erased: ErasedFiles, dry_run: bool) -> None:
    if growing:
        erased.in_progress.append(path)
        return
    if not dry_run:
        path.unlink()
    erased.recordings += 1


def _blank(path: Path, is_meant: Callable[[bytes], bool], erased: ErasedFiles, dry_run: bool) -> None:
    """Overwrite the lines that are meant."""
    rows = erased.rows
    with path.open("rb" if dry_run else "r+b") as file:
        for start, line in _lines(path):
            try:
                meant = is_meant(line)
            except (ValueError, RecursionError):
                erased.unparsable += 1
                continue
            if meant:
                erased.rows += 1
                if not dry_run:
                    file.seek(start)
                    file.write(b"\n" * len(line))
        if erased.rows > rows and not dry_run:
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file and where they begin."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)


def _is_row_within(line: bytes, from_iso: str, to_iso: str) -> bool:
    time = line.rstrip().rpartition(b",")[2]
    if time in _NO_TIMES:
        return False
    if not _WALL_TIME.fullmatch(time):
        raise ValueError("no row of ours")
    return from_iso <= time.decode() < to_iso


def _is_segment_within(line: bytes, from_iso: str, to_iso: str) -> bool:
    if not line.strip():
        return False
    match json.loads(line):
        case {"kind": "segment", "start": str(start), "end": str(end)}:
            # A segment is never without an end: the same moment is one that lasts no time.
            return start < to_iso and (end > from_iso or start >= from_iso)
        case {"kind": str(kind)} if kind != "segment":
            return False
    raise ValueError("no line of ours")


_MEANT = {".frames.csv": _is_row_within, ".segments.jsonl": _is_segment_within}


def _iso(at: float) -> str:
    moment = datetime.fromtimestamp(round(at, 6), UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _unix(name: str) -> float:
    return datetime.strptime(name, "%Y-%m-%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()


# 2026-01-31.frames.csv, 2026-01-31.segments.jsonl, 2026-01-31T120000.000Z.mp4 and, while it grows, a dot before it.
_OURS = re.compile(r"\.?(\d{4}-[01]\d-[0-3]\d)(?:\.frames\.csv|\.segments\.jsonl|T\d{6}\.\d{3}Z\.mp4)")


def prune(folders: Iterable[Path], *, retention_days: int, now_s: float) -> int:
    """Delete the tables and recordings in `folders` that are too old; returns how many there were.

    The day (UTC) of `now_s`, in Unix seconds, and the `retention_days` days before it stay. Raises `OutputError`
    where something cannot be deleted, after everything else was. A folder that is not there holds nothing.
    """
    first_kept = (datetime.fromtimestamp(now_s, UTC) - timedelta(days=retention_days)).date().isoformat()
    deleted, faults = 0, list[OSError]()
    for folder in folders:
        try:
            old = [path for path in folder.iterdir() if _is_old(path.name, first_kept)]
        except FileNotFoundError:
            continue
        except OSError as fault:
            faults.append(fault)
            continue
        for path in old:
            try:
                path.unlink(missing_ok=True)
                deleted += 1
            except OSError as fault:
                faults.append(fault)
    if faults:
        raise OutputError(
            f"{len(faults)} files or folders that are older than the retention cannot be deleted, first "
            f"{faults[0].filename}: {faults[0].strerror}. Delete them, or make their folder writable."
        )
    return deleted


def _is_old(name: str, first_kept: str) -> bool:
    match = _OURS.fullmatch(name)
    return match is not None and match[1] < first_kept
