"""The tables of the live service: per source and day a frames.csv and a segments.jsonl, see docs/reference/live-files.md."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fer_stream.backoff import Backoff
from fer_stream.errors import OutputError, OutputUnavailable
from fer_stream.outputs.backoff import RETRY_MAX_S, RETRY_MIN_S
from fer_stream.outputs.daily_file import DailyFile
from fer_stream.outputs.erasure import prune
from fer_stream.outputs.tables import COLUMNS, rows, segment_document
from fer_stream.records import Gap, LabelledFrame, Segment, stream_start_ms

ROLLING_COLUMNS = (*COLUMNS, "stream_start_ms", "wall_time")
"""The columns of a rolling frames.csv, in order: those of NAME.frames.csv, and the wall clock."""

_FRAMES, _SEGMENTS = ".frames.csv", ".segments.jsonl"
_LOST = "lost_"
_FOLDER = "folder"
_HEADER = (",".join(ROLLING_COLUMNS) + "\n").encode()
_UNIX_EPOCH = datetime(1970, 1, 1)


class DailyTables:
    """Continues the tables of any number of sources in `folder`, which must exist.

    What is appended is with the operating system when the call returns: killing the process loses nothing. An
    append that fails raises `OutputUnavailable` once and counts its rows as lost; so do those that follow, without
    raising, until it is time to try again. When writing resumes, a line in segments.jsonl says what was lost.
    Not for use by several threads, and by one process per source.

    `retention_days` None keeps everything; `clock` tells Unix seconds.
    """

    def __init__(self, folder: Path, *, retention_days: int | None, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._retention_days = retention_days
        self._clock = clock
        self._sources: dict[str, _SourceFiles] = {}

    def append_frames(self, source: str, frames: Sequence[LabelledFrame]) -> None:
        """Append the rows of `frames`, final and in order, of streams of `source`. Raises `OutputUnavailable`."""
        files = self._of(source)
        files.append(files.frames, [_frame_lines(frame) for frame in frames])

    def append_segments(self, source: str, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """Append a line for each of `segments` and `gaps`, by when they ended. Raises `OutputUnavailable`."""
        lines = [*map(_segment_line, segments), *map(_gap_line, gaps)]
        files = self._of(source)
        files.append(files.segments, sorted(lines, key=lambda line: line.at_us))

    def offsets(self, source: str) -> dict[str, int]:
        """Where the files of `source` end, for a checkpoint: file name in its folder → length in bytes.

        What was lost and is not told yet stands there too, so that a restart does not forget it, and a number for
        the folder: another one may have files of the same names.
        """
        return self._of(source).offsets()

    def truncate(self, source: str, offsets: Mapping[str, int]) -> None:
        """Go back to what `offsets` said, and delete what is newer; where they are of another folder, nothing is.

        Raises `OutputUnavailable` where the disk does not let it; then it is done before the next row is written.
        """
        self._of(source).truncate(offsets)

    def lost_rows(self, source: str) -> int:
        """How many rows of `source` were lost since the start."""
        return self._of(source).lost_rows

    def prune(self) -> int:
        """Delete what is too old, of all sources and former ones, and recordings too; returns how many files.

        Raises `OutputError` where that is not possible.
        """
        if self._retention_days is None:
            return 0
        try:
            folders = [path for path in self._folder.iterdir() if path.is_dir()]
        except OSError as error:
            raise OutputError(f"Cannot look for old files in {self._folder}: {error.strerror}.") from error
        return prune(folders, retention_days=self._retention_days, now_s=self._clock())

    def _of(self, source: str) -> _SourceFiles:
        if source not in self._sources:
            self._sources[source] = _SourceFiles(self._folder / source, self._clock)
        return self._sources[source]


class _Lines(NamedTuple):
    """One or more whole lines of text of the same wall time, in Unix µs."""

    at_us: int
    text: str


@dataclass(frozen=True, slots=True)
class _LossCount:
    """What is missing from the files: `rows` that were not written between two wall times, and `bytes` that were."""

    rows: int = 0
    bytes: int = 0
    first_us: int = 0
    last_us: int = 0

    def and_rows(self, lines: Sequence[_Lines]) -> _LossCount:
        times = [line.at_us for line in lines] + ([self.first_us, self.last_us] if self.rows else [])
        return _LossCount(self.rows + _count(lines), self.bytes, min(times, default=0), max(times, default=0))


class _SourceFiles:
    """The two tables of one source, and what is missing from them."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.frames = DailyFile(folder, _FRAMES, _HEADER)
        self.segments = DailyFile(folder, _SEGMENTS)
        self.lost_rows = 0
        self._identity = _identity(folder)
        self._lost = _LossCount()
        self._backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, clock=clock)

    def append(self, file: DailyFile, lines: Sequence[_Lines]) -> None:
        waiting = list(lines)
        try:
            if not self._backoff.active:
                self._write(file, waiting)
        finally:
            self._lost = self._lost.and_rows(waiting)
            self.lost_rows += _count(waiting)

    def _write(self, file: DailyFile, waiting: list[_Lines]) -> None:
        """Write `waiting`, and take from it what is written."""
        if not waiting:
            return
        try:
            self._settle()
            self._tell_lost(_day(waiting[0].at_us))
            for day, group in groupby(list(waiting), key=lambda line: _day(line.at_us)):
                written = list(group)
                file.append(day, "".join(line.text for line in written).encode())
                del waiting[: len(written)]
        except OutputUnavailable:
            self._backoff.failed()
            raise
        self._backoff.reset()

    def _settle(self) -> None:
        for file in (self.frames, self.segments):
            if missing := file.reconcile():
                self._lost = replace(self._lost, bytes=self._lost.bytes + missing)

    def _tell_lost(self, day: str) -> None:
        if self._lost != _LossCount():
            self.segments.append(day, _lost_line(self._lost).encode())
            self._lost = _LossCount()

    def offsets(self) -> dict[str, int]:
        # A file that cannot be looked at has no entry, and nothing will be cut off from it.
        with suppress(OutputUnavailable):
            self._settle()
        lost = {_LOST + name: number for name, number in asdict(self._lost).items() if number}
        return {_FOLDER: self._identity, **self.frames.position(), **self.segments.position(), **lost}

    def truncate(self, offsets: Mapping[str, int]) -> None:
        # Older checkpoints name no folder.
        if offsets.get(_FOLDER, self._identity) == self._identity:
            for file in (self.frames, self.segments):
                file.rewind(offsets)
        self._lost = _LossCount(**{field.name: offsets.get(_LOST + field.name, 0) for field in fields(_LossCount)})
        self._settle()


def _identity(folder: Path) -> int:
    """48 bits, which JSON holds exactly."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=6).digest())


def _count(lines: Sequence[_Lines]) -> int:
    return sum(line.text.count("\n") for line in lines)


# The text of a row


def _frame_lines(frame: LabelledFrame) -> _Lines:
    at_us = _wall_us(frame.stream_id, frame.time_s)
    return _Lines(at_us, rows(frame).replace("\n", f",{stream_start_ms(frame.stream_id)},{_iso(at_us)}\n"))


def _segment_line(closed: Segment) -> _Lines:
    segment = closed
    start_us, end_us = (_wall_us(closed.stream_id, time_s) for time_s in (segment.start_s, segment.end_s))
    about = {"stream_id": closed.stream_id, "person": closed.person_id, **segment_document(segment)}
    return _Lines(end_us, _json_line("segment", about, start_us, end_us))


def _gap_line(closed: Gap) -> _Lines:
    gap = closed
    start_us, end_us = (_wall_us(closed.stream_id, time_s) for time_s in (gap.start_s, gap.end_s))
    times = {"start_s": round(gap.start_s, 6), "end_s": round(gap.end_s, 6)}
    about = {"stream_id": closed.stream_id, "reason": gap.reason, **times}
    return _Lines(end_us, _json_line("gap", about, start_us, end_us))


def _lost_line(lost: _LossCount) -> str:
    times = (lost.first_us, lost.last_us) if lost.rows else (None, None)
    return _json_line("lost", {"rows": lost.rows, "bytes": lost.bytes}, *times)


def _json_line(kind: str, about: Mapping[str, Any], start_us: int | None, end_us: int | None) -> str:
    start, end = (None if time_us is None else _iso(time_us) for time_us in (start_us, end_us))
    return json.dumps({"kind": kind, **about, "start": start, "end": end}, allow_nan=False) + "\n"


def _wall_us(stream_id: str, time_s: float) -> int:
    return 1000 * stream_start_ms(stream_id) + round(1e6 * time_s)


def _iso(time_us: int) -> str:
    return (_UNIX_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds") + "Z"


def _day(time_us: int) -> str:
    return _iso(time_us)[:10]
