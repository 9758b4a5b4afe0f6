"""Files that appear under their name only when they are complete, and errors of writing files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fer_stream.errors import DiskFull, OutputError, OutputExists
from fer_stream.outputs.atomic_file import AtomicFile, discard_partial_files, output_error, refuse_existing


def test_write_joins_chunks_and_commits(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    output.write([b"half"])
    output.write([b"one ", b"two"])
    assert not (tmp_path / "a.txt").exists()
    assert output.size() == 7
    assert output.commit() == tmp_path / "a.txt"
    assert (tmp_path / "a.txt").read_bytes() == b"one two"
    assert not output.partial.exists()


def test_incomplete_file_gets_no_name(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    output.partial.write_text("half")
    assert output.commit() is None
    assert not (tmp_path / "a.txt").exists()


def test_commit_to_another_path_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("old")
    output = AtomicFile(tmp_path / "a.txt")
    output.write([b"new"])
    assert output.commit(tmp_path / "b.txt") == tmp_path / "b.txt"
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    assert (tmp_path / "b.txt").read_text() == "new"


def test_hidden_file_is_in_the_same_directory_and_keeps_the_suffix(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.annotated.mp4")
    assert output.partial.parent == tmp_path
    assert output.partial.name.startswith(".")
    assert output.partial.suffix == ".mp4"


def test_broken_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "missing")
    with pytest.raises(OutputExists):
        AtomicFile(tmp_path / "a.txt")
    with pytest.raises(OutputExists, match=r"a\.txt exists\. Use --existing replace to replace it"):
        refuse_existing([tmp_path / "b.txt", tmp_path / "a.txt"])


def test_missing_files_are_not_refused(tmp_path: Path) -> None:
    refuse_existing([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "error_type", "message"),
    [
        (errno.ENOSPC, DiskFull, "the disk is full"),
        (errno.EDQUOT, DiskFull, "the disk is full"),
        (errno.EROFS, OutputError, "permission denied"),
        (errno.EIO, OutputError, "Input/output error"),
    ],
)
def test_errors_contain_path_and_remedy(
    number: int, error_type: type[OutputError], message: str, tmp_path: Path
) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    with pytest.raises(error_type, match=message) as caught, output.translate_errors():
        raise OSError(number, os.strerror(number), "another/path")
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert "--out" in str(caught.value)


def test_deleted_hidden_file_is_reported(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    output.partial.unlink()
    with pytest.raises(OutputError, match="Cannot write"):
        output.complete()


def test_partial_files_are_discarded_by_process(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    discard_partial_files(os.getpid() + 1, tmp_path)
    assert output.partial.exists()
    discard_partial_files(os.getpid(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"Cannot write /data/door/x\.csv: the disk is full\. .* Free space"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, r"permission denied\. .* Make /data/door writable"),
        (errno.ENOENT, r"its directory no longer exists\. .* Create it or mount its disk"),
        (errno.EIO, r"Input/output error\. .* Check the disk"),
    ],
)
def test_errors_of_live_files_contain_path_and_remedy(code: int, message: str) -> None:
    error = output_error(OSError(code, os.strerror(code)), Path("/data/door/x.csv"))
    with pytest.raises(type(error), match=f"{message}.*; writing resumes automatically"):
        raise error
