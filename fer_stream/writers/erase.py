"""Taking a stretch of time out of the files of the live service, while it may be writing to them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fer_stream.errors import OutputError

_TABLE = re.compile(r"(\d{4}-[01]\d-[0-3]\d)(\.frames\.csv|\.segments\.jsonl)")
_RECORDING = re.compile(r"(\.?)(\d{4}-[01]\d-[0-3]\dT\d{6}\.\d{3})Z\.mp4")

# A recording is written to every 2 s; one that was not for so long was left by a process that died.
_ABANDONED_S = 60.0


@dataclass(slots=True)
class ErasedFiles:
    """How much was erased, or would be: `rows` of tables, `recordings`. `growing` ones cannot be yet."""

    rows: int = 0
    recordings: int = 0
    growing: list[Path] = field(default_factory=list)


def erase_files(
    folder: Path, from_s: float, to_s: float, *, recording_s: float, now_s: float, dry_run: bool = False
) -> ErasedFiles:
    """Erase the wall time from `from_s` to before `to_s`, in Unix seconds, from the files of one source.

    Rows of frames.csv in that time, and segments of segments.jsonl that reach into it, are overwritten with empty
    lines in place: no byte moves, so that the process that appends to the file notices nothing and its checkpoint
    holds. Recordings that may reach into that time are deleted as a whole; none lasts longer than `recording_s` or
    is of pictures after its last write. With `dry_run` nothing is changed. Raises `OutputError` where a file cannot
    be changed.
    """
    erased = ErasedFiles()
    first_day, from_iso, to_iso = _iso(from_s)[:10], _iso(from_s), _iso(to_s)
    try:
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            if (table := _TABLE.fullmatch(path.name)) and table[1] >= first_day:
                is_meant = _is_row_within if table[2] == ".frames.csv" else _is_segment_within
                erased.rows += _blank(path, lambda line, meant=is_meant: meant(line, from_iso, to_iso), dry_run)  # type: ignore[misc]
            elif recording := _RECORDING.fullmatch(path.name):
                start_s, written_s = _unix(recording[2]), path.stat().st_mtime
                if start_s < to_s and max(start_s + recording_s, written_s) > from_s:
                    _erase_recording(path, bool(recording[1]) and now_s - written_s < _ABANDONED_S, erased, dry_run)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder} cannot be erased from: {error.strerror}. Make it writable and try again; "
            f"what was erased by then stays erased."
        ) from error
    return erased


def _erase_recording(path: Path, growing: bool, erased: ErasedFiles, dry_run: bool) -> None:
    if growing:
        erased.growing.append(path)
        return
    if not dry_run:
        path.unlink()
    erased.recordings += 1


def _blank(path: Path, is_meant: Callable[[bytes], bool], dry_run: bool) -> int:
    """Overwrite the lines that are meant; how many lines."""
    count = 0
    with path.open("rb" if dry_run else "r+b") as file:
        for start, line in _lines(path):
            if is_meant(line):
                count += 1
                if not dry_run:
                    file.seek(start)
                    file.write(b"\n" * len(line))
        if count and not dry_run:
            file.flush()
            os.fsync(file.fileno())
    return count


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file and where they begin."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)


def _is_row_within(line: bytes, from_iso: str, to_iso: str) -> bool:
    # The last column is the wall time; the header's is no time and lies after all of them.
    return from_iso <= line.rstrip().rpartition(b",")[2].decode() < to_iso


def _is_segment_within(line: bytes, from_iso: str, to_iso: str) -> bool:
    if not line.strip():
        return False
    told = json.loads(line)
    if told["kind"] != "segment":
        return False
    # A segment is never without an end: the same moment is one that lasts no time.
    return bool(told["start"] < to_iso and (told["end"] > from_iso or told["start"] >= from_iso))


def _iso(at: float) -> str:
    moment = datetime.fromtimestamp(round(at, 6), UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _unix(name: str) -> float:
    return datetime.strptime(name, "%Y-%m-%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()
