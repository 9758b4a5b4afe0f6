"""Rows that go on in a new file every day, whole whatever happens to the process or the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from fer_stream.errors import OutputUnavailable
from fer_stream.outputs.backoff import output_error

_NEVER = "0001-01-01"
"""The day of the newest file where there is none yet: every real one is newer."""

_DAY = r"\d{4}-[01]\d-[0-3]\d"
_BLOCK = 65_536


class DailyFile:
    """The files `<folder>/<YYYY-MM-DD><ending>`, of which only the newest is written to.

    The object knows how far the newest was written by it; `settle` makes the disk agree. No file is held open in
    between: opening costs little, hundreds of sources need no descriptors, and a folder that is gone is noticed.
    """

    def __init__(self, folder: Path, ending: str, header: bytes = b"") -> None:
        self._folder = folder
        self._ending = ending
        self._header = header
        self._name = re.compile(f"({_DAY}){re.escape(ending)}")
        self._day: str | None = None
        self._length = 0
        self._settled = False

    def position(self) -> dict[str, int]:
        """The name of the newest file and its length in bytes, 0 where it is not there; empty if not known yet."""
        return {} if self._day is None else {self._day + self._ending: self._length}

    def rewind(self, position: Mapping[str, int]) -> None:
        """Take `position` for what is written, if it names one of these files. `settle` carries it out."""
        for name, length in position.items():
            if match := self._name.fullmatch(name):
                self._day, self._length, self._settled = match[1], length, False

    def reconcile(self) -> int:
        """Cut off and delete what lies beyond the position; returns how many bytes before it are not there.

        Without a position the newest file is taken up to its last whole row. A file that is gone altogether was
        deleted on purpose and counts for nothing. Raises `OutputUnavailable`.
        """
        if self._settled:
            return 0
        with self._guard(self._folder):
            missing = self._find_newest() if self._day is None else self._cut_back(self._day)
        self._settled = True
        return missing

    def append(self, day: str, rows: bytes) -> None:
        """Write `rows` into the file of `day`, or into the newest one if that is of a later day.

        Raises `OutputUnavailable`, and then nothing of `rows` stays.
        """
        self.reconcile()
        day = max(day, self._day or _NEVER)
        with self._guard(self._path(day)):
            # Not its parents: where a disk was unmounted, the files would fill the one below it.
            self._folder.mkdir(exist_ok=True)
            with _opened(self._path(day), os.O_CREAT | os.O_WRONLY | os.O_APPEND) as file:
                self._begin(day, os.fstat(file).st_size)
                rows = rows if self._length else self._header + rows
                self._write(file, rows)
        # Not before the file is closed: some file systems tell of a full disk only then.
        self._length += len(rows)
        self._settled = True

    def _begin(self, day: str, found: int) -> None:
        known = self._length if day == self._day else 0
        if found not in (0, known):
            # As a second service would, or this process if it slept through the end of its lease.
            self._day, self._settled = None, False
            raise OutputUnavailable(
                f"Somebody else wrote to {self._path(day)}, so these rows were left out. "
                "Let only one service write to a folder."
            )
        self._day, self._length, self._settled = day, found, False

    def _write(self, file: int, rows: bytes) -> None:
        rest = memoryview(rows)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            # Where even this fails, the next call of `settle` cuts the torn row off.
            with suppress(OSError):
                os.ftruncate(file, self._length)
            raise

    def _find_newest(self) -> int:
        newest = max(self._days(), default=_NEVER)
        length = 0 if newest == _NEVER else _cut_to_rows(self._path(newest))
        # Both at once, or a fault in between would make an empty file of the newest.
        self._day, self._length = newest, length
        return 0

    def _cut_back(self, day: str) -> int:
        for later in self._days():
            if later > day or (later == day and not self._length):
                self._path(later).unlink(missing_ok=True)
        expected, path = self._length, self._path(day)
        if not path.exists():
            self._length = 0
            return 0
        if path.stat().st_size < expected:
            self._length = _cut_to_rows(path)
            return expected - self._length
        os.truncate(path, expected)
        return 0

    def _days(self) -> list[str]:
        if not self._folder.exists():
            self._folder.parent.stat()  # where the disk itself is gone, this raises: the files may be there still
            return []
        return [match[1] for entry in self._folder.iterdir() if (match := self._name.fullmatch(entry.name))]

    def _path(self, day: str) -> Path:
        return self._folder / (day + self._ending)

    @contextmanager
    def _guard(self, path: Path) -> Iterator[None]:
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


def _cut_to_rows(path: Path) -> int:
    """Cut off what follows the last line end of `path`; returns the length."""
    with _opened(path, os.O_RDWR) as file:
        end = os.fstat(file).st_size
        while end:
            start = max(0, end - _BLOCK)
            newline = os.pread(file, end - start, start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        os.ftruncate(file, end)
    return end
