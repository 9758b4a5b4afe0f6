"""Output files that appear under their name only when they are complete, and errors of writing files."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_stream.errors import DiskFull, OutputError, OutputExists, OutputUnavailable

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
ACCESS_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

REPLACE_REMEDY = "Use --existing replace to replace it, or choose another directory with --out."
"""Remedy for an existing result."""

# Retries of live files. A full disk is rarely freed within seconds, so one attempt per minute is frequent enough.
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0


class AtomicFile:
    """A file that is written under a hidden name beside `path` and renamed by `commit`.

    Both names are in the same directory, so the rename is atomic: a reader finds the old file, the new one or none,
    but never a part. Raises `OutputExists` if `path` exists and `force` is False, and `OutputError` if the file
    cannot be written.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self.partial = path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(6)}{path.suffix}")
        self._force = force
        self._complete = False
        with self.translate_errors():
            self._check_target()
            # Not tempfile: its files are private (0600), but results should follow the user's umask.
            os.close(os.open(self.partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Convert an `OSError` of the body to an `OutputError` that contains `path` and a remedy."""
        try:
            yield
        except OSError as error:
            raise self._output_error(error) from error

    def write(self, chunks: Iterable[bytes]) -> None:
        """Write `chunks` as the contents. Can be called again if it fails."""
        with self.translate_errors(), self.partial.open("wb") as file:
            file.writelines(chunks)
        self.complete()

    def complete(self) -> None:
        """Mark the hidden file, which must be closed, as complete, and move its contents to the disk."""
        with self.translate_errors():
            _sync(self.partial)
        self._complete = True

    def commit(self, path: Path | None = None) -> Path | None:
        """Rename the hidden file to `path`, replacing it, or to its own path; return its path.

        Returns None if it is not complete, as a video without frames.
        """
        if not self._complete:
            return None
        with self.translate_errors():
            if path is None:
                self._check_target()
            self.partial.replace(path or self.path)
        return path or self.path

    def size(self) -> int:
        """Return the size of the hidden file in bytes; 0 if there is none."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def discard(self) -> None:
        """Remove the hidden file. Does nothing after `commit`."""
        self._complete = False
        with self.translate_errors():
            self.partial.unlink(missing_ok=True)

    def _check_target(self) -> None:
        if self.path.is_dir():
            raise OutputError(
                f"Cannot write {self.path}: it is a directory. Choose another output directory with --out."
            )
        if not self._force:
            refuse_existing([self.path])

    def _output_error(self, error: OSError) -> OutputError:
        directory = self.path.parent
        if error.errno in DISK_FULL_ERRNOS:
            return disk_full(self.path)
        if error.errno in ACCESS_ERRNOS:
            return OutputError(
                f"Cannot write {self.path}: permission denied. Make {directory} writable or choose another directory "
                "with --out."
            )
        if error.errno == errno.ENOENT and not directory.exists():
            return OutputError(
                f"Cannot write {self.path}: the directory {directory} does not exist. Create it first."
            )
        return OutputError(
            f"Cannot write {self.path}: {error.strerror or error}. Choose another directory with --out."
        )


class FileOutput:
    """Base of outputs of `fer-stream run`: one file, renamed when all outputs of its source are complete."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._output = AtomicFile(path, force=force)

    def size(self) -> int:
        """Return the number of bytes that the incomplete file takes on the disk."""
        return self._output.size()

    def commit(self, path: Path | None = None) -> Path | None:
        """Rename the complete file to `path`, replacing it, or to its own path; return its path.

        Returns None if no file was written: a video without analysed frames has none.
        """
        return self._output.commit(path)

    def discard(self) -> None:
        """Remove the incomplete file. Does nothing after `commit`."""
        self._output.discard()


def disk_full(path: Path) -> DiskFull:
    """Return the error of a file that does not fit on the disk."""
    return DiskFull(f"Cannot write {path}: the disk is full. Free space or choose another directory with --out.")


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise `OutputExists` if one of `paths` exists, even as a broken symbolic link."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise OutputExists(f"{path} exists. {REPLACE_REMEDY}")


def discard_partial_files(pid: int, directory: Path) -> None:
    """Remove the hidden files that the dead process `pid` of this machine left in `directory`."""
    for path in directory.glob(f".partial-{pid}-*"):
        path.unlink(missing_ok=True)


def output_error(error: OSError, path: Path) -> OutputUnavailable:
    """Convert an error of writing the live file `path`; the message contains the path and a remedy."""
    if error.errno in DISK_FULL_ERRNOS:
        reason, remedy = "the disk is full", "Free space"
    elif error.errno in ACCESS_ERRNOS:
        reason, remedy = "permission denied", f"Make {path.parent} writable"
    elif error.errno == errno.ENOENT:
        reason, remedy = "its directory no longer exists", "Create it or mount its disk"
    else:
        reason, remedy = str(error.strerror or error), "Check the disk"
    return OutputUnavailable(
        f"Cannot write {path}: {reason}. The service continues without it. {remedy}; writing resumes automatically."
    )


def _sync(path: Path) -> None:
    # Some file systems report a full disk only here, and after a power loss the name must not exist without its data.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_output_dir(path: Path) -> None:
    """Create a directory for results, and its parents. Raises `OutputError` if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot create the directory {path}: {error.strerror or error}. Choose another directory with --out."
        ) from error
