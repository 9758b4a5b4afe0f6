from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fer_stream.errors import DiskFull, OutputError, OutputExists
from fer_stream.outputs.atomic_file import AtomicFile


def test_put_writes_all_chunks_and_commits(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    output.write([b"one ", b"two"])
    assert (tmp_path / "a.txt").read_bytes() == b"one two"
    assert not output.partial.exists()


def test_the_hidden_file_lies_beside_the_target_and_keeps_its_suffix(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.annotated.mp4")
    assert output.partial.parent == tmp_path
    assert output.partial.name.startswith(".")
    assert output.partial.suffix == ".mp4"


def test_a_link_to_nowhere_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        AtomicFile(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFull, "No room left"),
        (errno.EDQUOT, DiskFull, "No room left"),
        (errno.EROFS, OutputError, "Not allowed to write"),
        (errno.EIO, OutputError, "Input/output error"),
    ],
)
def test_every_fault_names_the_target_and_the_cure(
    number: int, kind: type[OutputError], words: str, tmp_path: Path
) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    with pytest.raises(kind, match=words) as caught, output.translate_errors():
        raise OSError(number, os.strerror(number), "somewhere/else")
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_hidden_file_that_vanished_is_told(tmp_path: Path) -> None:
    output = AtomicFile(tmp_path / "a.txt")
    output.partial.unlink()
    with pytest.raises(OutputError, match="Cannot write"):
        output.commit()
