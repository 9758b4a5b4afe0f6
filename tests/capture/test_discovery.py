"""Expansion of arguments to files, and names of sources and outputs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.discovery import discover, ensure_readable, is_image, output_names, slugify
from fer_stream.errors import SourceError, SourceNotFound, UnreadableSource

FILE_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80
).filter(lambda name: name not in (".", ".."))


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def test_files_are_returned_in_order_without_duplicates(tmp_path: Path) -> None:
    b, a, odd = touch(tmp_path, "b.mp4", "a.mp4", "odd.data")
    (tmp_path / "link.mp4").symlink_to(b)
    arguments: list[str | Path] = [b, str(a), tmp_path / "x" / ".." / "b.mp4", odd, tmp_path / "link.mp4"]
    (tmp_path / "x").mkdir()
    assert discover(arguments) == [b, a, odd]


def test_folder_yields_videos_and_images_in_natural_order(tmp_path: Path) -> None:
    expected = touch(tmp_path, "clip2.MP4", "clip10.mkv", "Photo.jpeg", "sub/1.gif", "sub/deep/z.png")
    touch(tmp_path, "notes.txt", "clip.frames.csv", ".hidden.mp4", ".git/a.mp4", "sub/report.html")
    assert discover([tmp_path]) == expected


def test_outputs_of_fer_stream_are_excluded_from_folders(tmp_path: Path) -> None:
    (clip,) = touch(tmp_path, "a.mp4")
    own = touch(tmp_path, "a.annotated.mp4", "b.annotated.png", "a.timeline.png")
    assert discover([tmp_path]) == [clip]
    assert discover(own) == own, "files passed by name are included"


def test_patterns_are_expanded(tmp_path: Path) -> None:
    two, ten, deep = touch(tmp_path, "c2.mp4", "c10.mp4", "sub/c3.mp4")
    assert discover([f"{tmp_path}/c*.mp4"]) == [two, ten]
    assert discover([f"{tmp_path}/**/*.mp4"]) == [two, ten, deep]
    assert discover([f"{tmp_path}/s*"]) == [deep]


def test_file_named_like_a_pattern_takes_precedence(tmp_path: Path) -> None:
    named, _ = touch(tmp_path, "clip[1].mp4", "clip1.mp4")
    assert discover([named]) == [named]


@pytest.mark.parametrize("argument", ["absent.mp4", "absent-*.mp4", "empty", "long" * 75])
def test_argument_without_matches_is_named_in_the_error(tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFound, match=re.escape(argument)):
        discover([tmp_path / argument])


@pytest.mark.parametrize("prefix", ["rtsp://", "rtsp:/"])
@pytest.mark.parametrize("suffix", ["", "*"])
def test_url_is_rejected_without_its_password(prefix: str, suffix: str) -> None:
    with pytest.raises(SourceError, match=r"camera\.example/1") as caught:
        discover([f"{prefix}admin:canary-7@camera.example/1{suffix}"])
    assert "canary" not in str(caught.value)


def test_unreadable_folder_is_rejected(
    unprotected_folder: Path, error_as_nobody: Callable[[str, str, str], str]
) -> None:
    locked = unprotected_folder / "locked"
    locked.mkdir()
    locked.chmod(0o000)
    error = error_as_nobody("fer_stream.capture.discovery", "discover", f"[{str(unprotected_folder)!r}]")
    assert error.startswith("UnreadableSource")
    assert str(locked) in error
    assert "permissions" in error


def test_images_are_recognised_by_their_suffix() -> None:
    assert [is_image(Path(name)) for name in ("a.JPG", "a.png", "a.gif", "a.mp4", "png")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_output_names_use_stem_then_suffix_then_number() -> None:
    paths = [Path(p) for p in ("x/solo.mp4", "a.mp4", "A.mov", "b/c.mp4", "d/c.mp4", "d/C.MP4", "b/a.mp4.mkv")]
    assert output_names(paths) == ["solo", "a.mp4", "A.mov", "c.mp4", "c.mp4-2", "C.MP4-3", "a.mp4-2"]


@given(st.lists(FILE_NAMES.map(Path), max_size=20))
def test_output_names_are_unique_and_deterministic(paths: list[Path]) -> None:
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(names) == len(paths)
    assert output_names(paths) == names


@pytest.mark.parametrize(
    ("text", "name"),
    [("Front Door.mp4", "front-door-mp4"), ("Café_Ä 2", "cafe_a-2"), ("--x--", "x"), ("ok-1", "ok-1")],
)
def test_slugs_are_readable(text: str, name: str) -> None:
    assert slugify(text) == name


@given(st.text(max_size=200))
def test_slugs_are_valid_source_names(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", slugify(text))


def test_slugs_of_non_latin_names_differ() -> None:
    assert slugify("会议") != slugify("門口")


def test_unreadable_paths_are_rejected_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (file,) = touch(tmp_path, "file.mp4")
    for path, error, message in [
        (tmp_path / "absent.mp4", SourceNotFound, "File not found"),
        (file / "below.mp4", SourceNotFound, "File not found"),
        (tmp_path / ("x" * 300), UnreadableSource, "cannot be opened"),
        (tmp_path / "nul\0", UnreadableSource, "cannot be opened"),
        (tmp_path / "empty.mp4", UnreadableSource, "empty"),
        (tmp_path / "pipe.mp4", UnreadableSource, "pipe"),
        (tmp_path, UnreadableSource, "folder"),
        (Path("rtsp://u:canary@host/x"), SourceNotFound, r"rtsp://\*\*\*@host"),
    ]:
        with pytest.raises(error, match=message):
            ensure_readable(path)
