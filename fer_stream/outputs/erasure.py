"""Erasure of a time range from the files of the live service, also while they are written, and retention."""

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
"""Last column of an erased line and of the header."""

# A recording is written every 2 s. One without a write for this time was left by a process that died.
_ABANDONED_S = 60.0


@dataclass(slots=True)
class ErasedFiles:
    """Numbers of table rows and recordings that were erased, or would be in a dry run.

    `in_progress` are recordings that are still being written and cannot be erased yet. `unparsable` is the number of
    lines without a readable time: foreign or damaged ones, which are kept.
    """

    rows: int = 0
    recordings: int = 0
    unparsable: int = 0
    in_progress: list[Path] = field(default_factory=list)


def erase_files(
    directory: Path, from_s: float, to_s: float, *, segment_s: float, now_s: float, dry_run: bool = False
) -> ErasedFiles:
    """Erase the wall time from `from_s` to before `to_s`, in Unix seconds, from the files of one source.

    Rows of frames.csv in the range, and segments of segments.jsonl that overlap it, are overwritten with empty lines
    in place. No byte moves, so the process that appends to the file is not affected and its checkpoint stays valid.
    Recordings that can overlap the range are deleted as a whole; none lasts longer than `segment_s` or contains
    frames after its last write. With `dry_run` nothing is changed. Raises `OutputError` if a file cannot be changed.
    """
    erased = ErasedFiles()
    first_day, from_iso, to_iso = _iso(from_s)[:10], _iso(from_s), _iso(to_s)
    try:
        for path in sorted(directory.iterdir()) if directory.exists() else ():
            if (table := _TABLE.fullmatch(path.name)) and table[1] >= first_day:
                _blank(path, partial(_MATCHERS[table[2]], from_iso=from_iso, to_iso=to_iso), erased, dry_run)
            elif recording := _RECORDING.fullmatch(path.name):
                start_s, written_s = _unix(recording[2]), path.stat().st_mtime
                if start_s < to_s and max(start_s + segment_s, written_s) > from_s:
                    in_progress = bool(recording[1]) and now_s - written_s < _ABANDONED_S
                    _erase_recording(path, in_progress, erased, dry_run)
    except OSError as error:
        raise OutputError(
            f"Cannot erase data from {error.filename or directory}: {error.strerror}. Make it writable and try "
            "again. Data erased so far stays erased."
        ) from error
    return erased


def _erase_recording(path: Path, in_progress: bool, erased: ErasedFiles, dry_run: bool) -> None:
    if in_progress:
        erased.in_progress.append(path)
        return
    if not dry_run:
        path.unlink()
    erased.recordings += 1


def _blank(path: Path, matches: Callable[[bytes], bool], erased: ErasedFiles, dry_run: bool) -> None:
    """Overwrite the lines for which `matches` returns True."""
    rows_before = erased.rows
    with path.open("rb" if dry_run else "r+b") as file:
        for start, line in _lines(path):
            try:
                matched = matches(line)
            except (ValueError, RecursionError):
                erased.unparsable += 1
                continue
            if matched:
                erased.rows += 1
                if not dry_run:
                    file.seek(start)
                    file.write(b"\n" * len(line))
        if erased.rows > rows_before and not dry_run:
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines of a file with their offsets."""
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
        raise ValueError("not a row of frames.csv")
    return from_iso <= time.decode() < to_iso


def _is_segment_within(line: bytes, from_iso: str, to_iso: str) -> bool:
    if not line.strip():
        return False
    match json.loads(line):
        case {"kind": "segment", "start": str(start), "end": str(end)}:
            # A segment with equal start and end has no duration, but is within the range if its start is.
            return start < to_iso and (end > from_iso or start >= from_iso)
        case {"kind": str(kind)} if kind != "segment":
            return False
    raise ValueError("not a line of segments.jsonl")


_MATCHERS = {".frames.csv": _is_row_within, ".segments.jsonl": _is_segment_within}


def _iso(at: float) -> str:
    moment = datetime.fromtimestamp(round(at, 6), UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _unix(name: str) -> float:
    return datetime.strptime(name, "%Y-%m-%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()


# Retention

# 2026-01-31.frames.csv, 2026-01-31.segments.jsonl, 2026-01-31T120000.000Z.mp4 and, while it is written, with a dot.
_DATED_FILE = re.compile(r"\.?(\d{4}-[01]\d-[0-3]\d)(?:\.frames\.csv|\.segments\.jsonl|T\d{6}\.\d{3}Z\.mp4)")


def prune(directories: Iterable[Path], *, retention_days: int, now_s: float) -> int:
    """Delete expired tables and recordings in `directories`; return their number.

    Files of the day (UTC) of `now_s`, in Unix seconds, and of the `retention_days` days before it are kept. A missing
    directory counts as empty. Raises `OutputError` if a file cannot be deleted, after deleting all others.
    """
    first_kept = (datetime.fromtimestamp(now_s, UTC) - timedelta(days=retention_days)).date().isoformat()
    deleted, errors = 0, list[OSError]()
    for directory in directories:
        try:
            expired = [path for path in directory.iterdir() if _is_expired(path.name, first_kept)]
        except FileNotFoundError:
            continue
        except OSError as error:
            errors.append(error)
            continue
        for path in expired:
            try:
                path.unlink(missing_ok=True)
                deleted += 1
            except OSError as error:
                errors.append(error)
    if errors:
        raise OutputError(
            f"Cannot delete {len(errors)} expired files or directories, the first is {errors[0].filename}: "
            f"{errors[0].strerror}. Delete them, or make their directory writable."
        )
    return deleted


def _is_expired(name: str, first_kept: str) -> bool:
    match = _DATED_FILE.fullmatch(name)
    return match is not None and match[1] < first_kept
