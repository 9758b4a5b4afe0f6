"""What stops the files of the live service, and when they are tried again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from fer_stream.errors import FilesStopped

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}

# A full disk is seldom emptied within seconds; after a minute at the most its emptying is noticed.
_FIRST_REST_S, _LONGEST_REST_S = 1.0, 60.0


def stopped_by(error: OSError, path: Path) -> FilesStopped:
    """`error`, met while writing `path`, as an error that names the file and the cure."""
    if error.errno in _NO_ROOM:
        what, cure = f"No room left for {path}", "free some space there"
    elif error.errno in _NOT_ALLOWED:
        what, cure = f"Not allowed to write {path}", f"make {path.parent} writable"
    elif error.errno == errno.ENOENT:
        what, cure = f"The folder for {path} is gone", "make it, or mount its disk, again"
    else:
        what, cure = f"Cannot write {path}: {error.strerror or error}", "look after the disk"
    return FilesStopped(f"{what}. The service goes on without it; {cure}, and writing resumes by itself.")


class Retry:
    """Says when to try again: after 1 s, and after twice as long with every further failure, up to a minute.

    `clock` tells Unix seconds; where it is set back, the rest is over.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed_at = 0.0
        self._rest_s = 0.0

    @property
    def resting(self) -> bool:
        """Is it too early to try again?"""
        return 0 <= self._clock() - self._failed_at < self._rest_s

    def failed(self) -> None:
        """Rest, and longer than the last time."""
        self._failed_at = self._clock()
        self._rest_s = min(max(2 * self._rest_s, _FIRST_REST_S), _LONGEST_REST_S)

    def succeeded(self) -> None:
        """Begin with a short rest at the next failure."""
        self._rest_s = 0.0
