"""Errors of live files that cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fer_stream.outputs.backoff import output_error


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "No room left for /data/door/x.csv. .* free some space there"),
        (errno.EDQUOT, "No room left"),
        (errno.EROFS, "Not allowed to write /data/door/x.csv. .* make /data/door writable"),
        (errno.ENOENT, "The folder for /data/door/x.csv is gone. .* mount its disk"),
        (errno.EIO, "Cannot write /data/door/x.csv: Input/output error. .* look after the disk"),
    ],
)
def test_the_error_names_the_file_and_the_cure(code: int, says: str) -> None:
    error = output_error(OSError(code, os.strerror(code)), Path("/data/door/x.csv"))
    with pytest.raises(type(error), match=f"{says}.*, and writing resumes by itself"):
        raise error
