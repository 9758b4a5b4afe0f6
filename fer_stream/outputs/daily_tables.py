"""Tables of the live service: frames.csv and segments.jsonl per source and day, see docs/reference/live-files.md."""

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
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import RETRY_MAX_S, RETRY_MIN_S
from fer_stream.outputs.daily_file import DailyFile
from fer_stream.outputs.erasure import prune
from fer_stream.outputs.table import COLUMNS, frame_rows
from fer_stream.records import Gap, LabelledFrame, Segment, stream_start_ms
from fer_stream.store.schemas import gap_document, segment_document

_log = get_logger(__name__)

DAILY_COLUMNS = (*COLUMNS, "stream_start_ms", "wall_time")
"""Columns of DAY.frames.csv, in order: those of NAME.frames.csv, session start and wall time."""

_FRAMES, _SEGMENTS = ".frames.csv", ".segments.jsonl"
_HEADER = (",".join(DAILY_COLUMNS) + "\n").encode()
_UNIX_EPOCH = datetime(1970, 1, 1)

# Keys of a checkpoint beside the file names.
_LOST = "lost_"
_DIRECTORY = "directory_id"


class DailyTables:
    """Tables of any number of sources in `directory`, which must exist.

    Rows are passed to the operating system before a call returns, so killing the process loses nothing. An append
    that fails raises `OutputUnavailable` once and counts its rows as lost. The following appends count their rows
    without raising until the next attempt is due. When writing resumes, a line in segments.jsonl reports the loss.
    Not thread-safe; only one process may write the tables of a source.

    `retention_days` None keeps all files. `clock` returns Unix seconds. With `stopped`, a failure was logged before,
    so the first row that is written logs `writing_resumed`.
    """

    def __init__(
        self, directory: Path, *, retention_days: int | None, clock: Callable[[], float], stopped: bool = False
    ) -> None:
        self._directory = directory
        self._retention_days = retention_days
        self._clock = clock
        self._stopped = stopped
        self._sources: dict[str, _SourceFiles] = {}

    def append_frames(self, source: str, frames: Sequence[LabelledFrame]) -> None:
        """Append the rows of `frames`, which must be final and in order. Raises `OutputUnavailable`."""
        files = self._files(source)
        self._append(files, files.frames, [_frame_lines(frame) for frame in frames])

    def append_segments(self, source: str, segments: Sequence[Segment], gaps: Sequence[Gap]) -> None:
        """Append a line per segment and gap, ordered by their ends. Raises `OutputUnavailable`."""
        lines = [*map(_segment_line, segments), *map(_gap_line, gaps)]
        files = self._files(source)
        self._append(files, files.segments, sorted(lines, key=lambda line: line.at_us))

    def offsets(self, source: str) -> dict[str, int]:
        """Return the lengths of the files of `source` for a checkpoint: file name → bytes.

        The result also contains losses that are not reported yet, so that a restart reports them, and a number that
        identifies the directory, because another one can have files of the same names.
        """
        return self._files(source).offsets()

    def truncate(self, source: str, offsets: Mapping[str, int]) -> None:
        """Truncate the files to `offsets` and delete newer ones, unless `offsets` are of another directory.

        Raises `OutputUnavailable` if the disk prevents it; it is then repeated before the next row is written.
        """
        self._files(source).truncate(offsets)

    def lost_rows(self, source: str) -> int:
        """Return the number of rows of `source` lost since the start."""
        return self._files(source).lost_rows

    def prune(self) -> int:
        """Delete expired tables and recordings of current and former sources; return the number of files.

        Raises `OutputError` if a file cannot be deleted.
        """
        if self._retention_days is None:
            return 0
        try:
            directories = [path for path in self._directory.iterdir() if path.is_dir()]
        except OSError as error:
            raise OutputError(f"Cannot search {self._directory} for expired files: {error.strerror}.") from error
        return prune(directories, retention_days=self._retention_days, now_s=self._clock())

    def _append(self, files: _SourceFiles, file: DailyFile, lines: Sequence[_Lines]) -> None:
        files.append(file, lines)
        # Sources that are added after the first success do not log that writing resumed.
        self._stopped = self._stopped and files.stopped

    def _files(self, source: str) -> _SourceFiles:
        if source not in self._sources:
            self._sources[source] = _SourceFiles(self._directory / source, self._clock, self._stopped)
        return self._sources[source]


class _Lines(NamedTuple):
    """Complete lines of text with the same wall time, in Unix µs."""

    at_us: int
    text: str


@dataclass(frozen=True, slots=True)
class LossCount:
    """Losses of the files: `rows` not written, between two wall times in Unix µs, and missing `bytes`."""

    rows: int = 0
    bytes: int = 0
    first_us: int = 0
    last_us: int = 0

    def add_rows(self, lines: Sequence[_Lines]) -> LossCount:
        """Return the sum with `lines`."""
        times = [line.at_us for line in lines] + ([self.first_us, self.last_us] if self.rows else [])
        return LossCount(self.rows + _count(lines), self.bytes, min(times, default=0), max(times, default=0))


class _SourceFiles:
    """The two tables of one source, and their losses."""

    def __init__(self, directory: Path, clock: Callable[[], float], stopped: bool) -> None:
        self.frames = DailyFile(directory, _FRAMES, _HEADER)
        self.segments = DailyFile(directory, _SEGMENTS)
        self.lost_rows = 0
        self.stopped = stopped
        self._source = directory.name
        self._directory_id = _directory_id(directory)
        self._losses = LossCount()
        self._backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, clock=clock)

    def append(self, file: DailyFile, lines: Sequence[_Lines]) -> None:
        remaining = list(lines)
        try:
            if not self._backoff.active:
                self._write(file, remaining)
        finally:
            self._losses = self._losses.add_rows(remaining)
            self.lost_rows += _count(remaining)

    def _write(self, file: DailyFile, remaining: list[_Lines]) -> None:
        """Write `remaining` and remove from it the lines that were written."""
        if not remaining:
            return
        try:
            self._reconcile()
            self._report_losses(_day(remaining[0].at_us))
            for day, group in groupby(list(remaining), key=lambda line: _day(line.at_us)):
                lines = list(group)
                file.append(day, "".join(line.text for line in lines).encode())
                del remaining[: len(lines)]
        except OutputUnavailable:
            self._backoff.failed()
            self.stopped = True
            raise
        if self.stopped:
            self.stopped = False
            _log.info("writing_resumed", output="tables", source=self._source, lost_rows=self.lost_rows)
        self._backoff.reset()

    def _reconcile(self) -> None:
        for file in (self.frames, self.segments):
            if missing := file.reconcile():
                self._losses = replace(self._losses, bytes=self._losses.bytes + missing)

    def _report_losses(self, day: str) -> None:
        if self._losses != LossCount():
            self.segments.append(day, _lost_line(self._losses).encode())
            self._losses = LossCount()

    def offsets(self) -> dict[str, int]:
        # A file that cannot be read has no entry and is not truncated.
        with suppress(OutputUnavailable):
            self._reconcile()
        losses = {_LOST + name: number for name, number in asdict(self._losses).items() if number}
        return {_DIRECTORY: self._directory_id, **self.frames.position(), **self.segments.position(), **losses}

    def truncate(self, offsets: Mapping[str, int]) -> None:
        # Older checkpoints contain no directory.
        if offsets.get(_DIRECTORY, self._directory_id) == self._directory_id:
            for file in (self.frames, self.segments):
                file.rewind(offsets)
        self._losses = LossCount(**{field.name: offsets.get(_LOST + field.name, 0) for field in fields(LossCount)})
        try:
            self._reconcile()
        except OutputUnavailable:
            self.stopped = True
            raise


def _directory_id(directory: Path) -> int:
    """Return a hash of 48 bits, which JSON represents exactly."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(directory.resolve()), digest_size=6).digest())


def _count(lines: Sequence[_Lines]) -> int:
    return sum(line.text.count("\n") for line in lines)


# Text of the rows


def _frame_lines(frame: LabelledFrame) -> _Lines:
    at_us = _wall_us(frame.stream_id, frame.time_s)
    return _Lines(at_us, frame_rows(frame).replace("\n", f",{stream_start_ms(frame.stream_id)},{_iso(at_us)}\n"))


def _segment_line(segment: Segment) -> _Lines:
    document = {"stream_id": segment.stream_id, **segment_document(segment)}
    return _timed_line("segment", document, segment)


def _gap_line(gap: Gap) -> _Lines:
    return _timed_line("gap", {"stream_id": gap.stream_id, **gap_document(gap)}, gap)


def _timed_line(kind: str, document: Mapping[str, Any], record: Segment | Gap) -> _Lines:
    start_us, end_us = (_wall_us(record.stream_id, time_s) for time_s in (record.start_s, record.end_s))
    return _Lines(end_us, _json_line(kind, document, start_us, end_us))


def _lost_line(losses: LossCount) -> str:
    times = (losses.first_us, losses.last_us) if losses.rows else (None, None)
    return _json_line("lost", {"rows": losses.rows, "bytes": losses.bytes}, *times)


def _json_line(kind: str, document: Mapping[str, Any], start_us: int | None, end_us: int | None) -> str:
    start, end = (None if time_us is None else _iso(time_us) for time_us in (start_us, end_us))
    return json.dumps({"kind": kind, **document, "start": start, "end": end}, allow_nan=False) + "\n"


def _wall_us(stream_id: str, time_s: float) -> int:
    return 1000 * stream_start_ms(stream_id) + round(1e6 * time_s)


def _iso(time_us: int) -> str:
    return (_UNIX_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds") + "Z"


def _day(time_us: int) -> str:
    return _iso(time_us)[:10]
