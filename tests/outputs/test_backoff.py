"""When files that stopped are tried again, and what is said of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fer_stream.outputs.backoff import Retry, stopped_by


def test_every_failure_doubles_the_rest_up_to_a_minute() -> None:
    now_s = 1000.0
    retry, rests = Retry(lambda: now_s), list[float]()
    for _ in range(8):
        retry.failed()
        failed_at = now_s
        while retry.resting:
            now_s += 0.5
        rests.append(now_s - failed_at)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_success_makes_the_next_rest_short() -> None:
    now_s = 1000.0
    retry = Retry(lambda: now_s)
    for _ in range(5):
        retry.failed()
    retry.succeeded()
    retry.failed()
    now_s += 1
    assert not retry.resting


def test_nothing_failed_yet() -> None:
    assert not Retry(lambda: 0.0).resting


def test_a_clock_that_is_set_back_does_not_stop_writing_for_ever() -> None:
    now_s = 1000.0
    retry = Retry(lambda: now_s)
    retry.failed()
    now_s = 10.0
    assert not retry.resting


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
    error = stopped_by(OSError(code, os.strerror(code)), Path("/data/door/x.csv"))
    with pytest.raises(type(error), match=f"{says}.*, and writing resumes by itself"):
        raise error
