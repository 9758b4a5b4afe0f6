"""A file that is written out of sight and put in place only when it is whole."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_stream.errors import DiskFull, OutputError, OutputExists

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


class AtomicFile:
    """A file beside `path` whose name begins with a dot, until `commit` gives it its name.

    Both lie in one folder, so that the renaming is atomic: a reader finds the old file, the new one or none, and
    never a part. Raises `OutputExists` where something is at `path` and `force` is not set, and `OutputError`
    where nothing can be written there.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self.partial = path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(6)}{path.suffix}")
        self._force = force
        with self.translate_errors():
            self._refuse_existing()
            # Not tempfile: its files are private (0600), and results should follow the user's umask.
            os.close(os.open(self.partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn an `OSError` of the body into an `OutputError` that names `path` and the cure."""
        try:
            yield
        except OSError as error:
            raise self._explained(error) from error

    def write(self, chunks: Iterable[bytes]) -> None:
        """Write `chunks`, one after the other, and commit."""
        with self.translate_errors(), self.partial.open("wb") as file:
            file.writelines(chunks)
        self.commit()

    def commit(self) -> None:
        """Put the file in place. Everything must have been written and closed."""
        with self.translate_errors():
            self._refuse_existing()
            _sync(self.partial)
            self.partial.replace(self.path)

    def discard(self) -> None:
        """Remove the hidden file. After `commit` there is none, and nothing happens."""
        with self.translate_errors():
            self.partial.unlink(missing_ok=True)

    def _refuse_existing(self) -> None:
        if self.path.is_dir():
            raise OutputError(f"Cannot write {self.path}: a folder has that name. Name another folder with --out.")
        if not self._force and (self.path.exists() or self.path.is_symlink()):
            raise OutputExists(f"{self.path} exists. Use --force to replace it, or name another folder with --out.")

    def _explained(self, error: OSError) -> OutputError:
        folder = self.path.parent
        if error.errno in _NO_ROOM:
            return DiskFull(f"No room left for {self.path}: free some space there or name another folder with --out.")
        if error.errno in _NOT_ALLOWED:
            return OutputError(
                f"Not allowed to write {self.path}: make {folder} writable or name another folder with --out."
            )
        if error.errno == errno.ENOENT and not folder.exists():
            return OutputError(f"Cannot write {self.path}: make the folder {folder} first.")
        return OutputError(f"Cannot write {self.path}: {error.strerror or error}. Name another folder with --out.")


def discard_partials_of(process: int, folder: Path) -> None:
    """Remove the hidden files in `folder` that a process of this machine, which has died, did not finish."""
    for path in folder.glob(f".partial-{process}-*"):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    # Some file systems report a full disk only here, and a name must not survive a power cut that its bytes did not.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
