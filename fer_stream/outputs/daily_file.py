"""Files of rows, one per day, that contain only complete rows after a crash or a disk error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fer_stream.errors import OutputUnavailable
from fer_stream.outputs.atomic_file import output_error

_NO_DAY = "0001-01-01"
"""Placeholder for the day of the newest file while no file exists; earlier than every real day."""

_DAY = r"\d{4}-[01]\d-[0-3]\d"
_BLOCK_BYTES = 65_536


class DailyFile:
    """The files `<directory>/<YYYY-MM-DD><suffix>`, of which only the newest is written.

    The object records the length to which it wrote the newest file; `reconcile` truncates the file to that length. No
    file is kept open between calls: opening is cheap, hundreds of sources need no descriptors, and a directory that
    disappears is noticed.
    """

    def __init__(self, directory: Path, suffix: str, header: bytes = b"") -> None:
        self._directory = directory
        self._suffix = suffix
        self._header = header
        self._name = re.compile(f"({_DAY}){re.escape(suffix)}")
        self._day: str | None = None
        self._length = 0
        self._reconciled = False

    def position(self) -> dict[str, int]:
        """Return the name of the newest file and its length in bytes, 0 if it does not exist.

        The result is empty before the first `reconcile`, `rewind` or `append`.
        """
        return {} if self._day is None else {self._day + self._suffix: self._length}

    def rewind(self, position: Mapping[str, int]) -> None:
        """Set the position, if `position` names one of these files. The next `reconcile` truncates the file."""
        for name, length in position.items():
            if match := self._name.fullmatch(name):
                self._day, self._length, self._reconciled = match[1], length, False

    def reconcile(self) -> int:
        """Truncate or delete what is beyond the position; return the number of bytes missing before it.

        Without a position, the newest file is kept up to its last complete row. A missing file was deleted on purpose
        and does not count. Raises `OutputUnavailable`.
        """
        if self._reconciled:
            return 0
        with _output_errors(self._directory):
            missing = self._find_newest() if self._day is None else self._truncate(self._day)
        self._reconciled = True
        return missing

    def append(self, day: str, rows: bytes) -> None:
        """Write `rows` to the file of `day`, or to the newest file if that is of a later day.

        Raises `OutputUnavailable`; the file then contains none of `rows`.
        """
        self.reconcile()
        day = max(day, self._day or _NO_DAY)
        with _output_errors(self._path(day)):
            # Without parents: if a disk was unmounted, the files would fill the one below it.
            self._directory.mkdir(exist_ok=True)
            with _opened(self._path(day), os.O_CREAT | os.O_WRONLY | os.O_APPEND) as file:
                self._check_length(day, os.fstat(file).st_size)
                rows = rows if self._length else self._header + rows
                self._write(file, rows)
        # After closing: some file systems report a full disk only then.
        self._length += len(rows)
        self._reconciled = True

    def _check_length(self, day: str, length: int) -> None:
        expected = self._length if day == self._day else 0
        if length not in (0, expected):
            # For example a second service, or this process after a suspension that outlasted its lease.
            self._day, self._reconciled = None, False
            raise OutputUnavailable(
                f"Another process wrote to {self._path(day)}; the current rows were dropped. Only one service may "
                "write to a directory."
            )
        self._day, self._length, self._reconciled = day, length, False

    def _write(self, file: int, rows: bytes) -> None:
        remaining = memoryview(rows)
        try:
            while remaining:
                remaining = remaining[os.write(file, remaining) :]
        except OSError:
            # If this fails too, the next `reconcile` removes the partial row.
            with suppress(OSError):
                os.ftruncate(file, self._length)
            raise

    def _find_newest(self) -> int:
        newest = max(self._days(), default=_NO_DAY)
        length = 0 if newest == _NO_DAY else _truncate_to_rows(self._path(newest))
        # Both at once: after an error between them, the newest file would be truncated to 0.
        self._day, self._length = newest, length
        return 0

    def _truncate(self, day: str) -> int:
        for later in self._days():
            if later > day or (later == day and not self._length):
                self._path(later).unlink(missing_ok=True)
        expected, path = self._length, self._path(day)
        if not path.exists():
            self._length = 0
            return 0
        if path.stat().st_size < expected:
            self._length = _truncate_to_rows(path)
            return expected - self._length
        os.truncate(path, expected)
        return 0

    def _days(self) -> list[str]:
        if not self._directory.exists():
            self._directory.parent.stat()  # raises if the disk is gone, because its files may still exist
            return []
        return [match[1] for entry in self._directory.iterdir() if (match := self._name.fullmatch(entry.name))]

    def _path(self, day: str) -> Path:
        return self._directory / (day + self._suffix)


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _truncate_to_rows(path: Path) -> int:
    """Remove what follows the last line end of `path`; return the new length."""
    with _opened(path, os.O_RDWR) as file:
        end = os.fstat(file).st_size
        while end:
            start = max(0, end - _BLOCK_BYTES)
            newline = os.pread(file, end - start, start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        os.ftruncate(file, end)
    return end
