"""What stops the files of the live service, and when they are tried again."""

from __future__ import annotations

import errno
from pathlib import Path

from fer_stream.errors import OutputUnavailable

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}

# A full disk is rarely freed within seconds; an attempt per minute notices it soon enough.
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0


def output_error(error: OSError, path: Path) -> OutputUnavailable:
    """`error`, met while writing `path`, as an error that names the file and the cure."""
    if error.errno in _NO_ROOM:
        what, cure = f"No room left for {path}", "free some space there"
    elif error.errno in _NOT_ALLOWED:
        what, cure = f"Not allowed to write {path}", f"make {path.parent} writable"
    elif error.errno == errno.ENOENT:
        what, cure = f"The folder for {path} is gone", "make it, or mount its disk, again"
    else:
        what, cure = f"Cannot write {path}: {error.strerror or error}", "look after the disk"
    return OutputUnavailable(f"{what}. The service goes on without it; {cure}, and writing resumes by itself.")
