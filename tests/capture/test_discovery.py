"""What the arguments of a run mean, and what its sources are called."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.discovery import check_file, find_sources, is_image, output_names, source_name
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


def test_takes_files_as_named_in_order_and_once(tmp_path: Path) -> None:
    b, a, odd = touch(tmp_path, "b.mp4", "a.mp4", "odd.data")
    (tmp_path / "link.mp4").symlink_to(b)
    arguments: list[str | Path] = [b, str(a), tmp_path / "x" / ".." / "b.mp4", odd, tmp_path / "link.mp4"]
    (tmp_path / "x").mkdir()
    assert find_sources(arguments) == [b, a, odd]


def test_takes_the_videos_and_images_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    wanted = touch(tmp_path, "clip2.MP4", "clip10.mkv", "Photo.jpeg", "sub/1.gif", "sub/deep/z.png")
    touch(tmp_path, "notes.txt", "clip.frames.csv", ".hidden.mp4", ".git/a.mp4", "sub/report.html")
    assert find_sources([tmp_path]) == wanted


def test_leaves_out_what_fer_stream_wrote(tmp_path: Path) -> None:
    (clip,) = touch(tmp_path, "a.mp4")
    own = touch(tmp_path, "a.annotated.mp4", "b.annotated.png", "a.timeline.png")
    assert find_sources([tmp_path]) == [clip]
    assert find_sources(own) == own, "what is named outright is taken"


def test_expands_patterns_that_the_shell_left_alone(tmp_path: Path) -> None:
    two, ten, deep = touch(tmp_path, "c2.mp4", "c10.mp4", "sub/c3.mp4")
    assert find_sources([f"{tmp_path}/c*.mp4"]) == [two, ten]
    assert find_sources([f"{tmp_path}/**/*.mp4"]) == [two, ten, deep]
    assert find_sources([f"{tmp_path}/s*"]) == [deep]


def test_prefers_a_file_of_that_very_name_to_a_pattern(tmp_path: Path) -> None:
    named, _ = touch(tmp_path, "clip[1].mp4", "clip1.mp4")
    assert find_sources([named]) == [named]


@pytest.mark.parametrize("argument", ["absent.mp4", "absent-*.mp4", "empty", "long" * 75])
def test_names_the_argument_that_yields_nothing(tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFound, match=re.escape(argument)):
        find_sources([tmp_path / argument])


@pytest.mark.parametrize("beginning", ["rtsp://", "rtsp:/"])
@pytest.mark.parametrize("end", ["", "*"])
def test_refuses_addresses_without_telling_their_password(beginning: str, end: str) -> None:
    with pytest.raises(SourceError, match=r"camera\.example/1") as caught:
        find_sources([f"{beginning}admin:canary-7@camera.example/1{end}"])
    assert "canary" not in str(caught.value)


def test_refuses_a_folder_that_may_not_be_listed(
    forbidden_folder: Path, error_as_nobody: Callable[[str, str, str], str]
) -> None:
    locked = forbidden_folder / "locked"
    locked.mkdir()
    locked.chmod(0o000)
    said = error_as_nobody("fer_stream.capture.discovery", "find_sources", f"[{str(forbidden_folder)!r}]")
    assert said.startswith("UnreadableSource")
    assert str(locked) in said
    assert "permissions" in said


def test_tells_images_by_their_suffix() -> None:
    assert [is_image(Path(name)) for name in ("a.JPG", "a.png", "a.gif", "a.mp4", "png")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_names_outputs_by_stem_then_suffix_then_number() -> None:
    paths = [Path(p) for p in ("x/solo.mp4", "a.mp4", "A.mov", "b/c.mp4", "d/c.mp4", "d/C.MP4", "b/a.mp4.mkv")]
    assert output_names(paths) == ["solo", "a.mp4", "A.mov", "c.mp4", "c.mp4-2", "C.MP4-3", "a.mp4-2"]


@given(st.lists(FILE_NAMES.map(Path), max_size=20))
def test_output_names_are_unique_and_repeatable(paths: list[Path]) -> None:
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(names) == len(paths)
    assert output_names(paths) == names


@pytest.mark.parametrize(
    ("text", "name"),
    [("Front Door.mp4", "front-door-mp4"), ("Café_Ä 2", "cafe_a-2"), ("--x--", "x"), ("ok-1", "ok-1")],
)
def test_source_names_stay_readable(text: str, name: str) -> None:
    assert source_name(text) == name


@given(st.text(max_size=200))
def test_source_names_are_valid(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", source_name(text))


def test_source_names_of_another_script_differ() -> None:
    assert source_name("会议") != source_name("門口")


def test_tells_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (file,) = touch(tmp_path, "file.mp4")
    for path, error, said in [
        (tmp_path / "absent.mp4", SourceNotFound, "no file"),
        (file / "below.mp4", SourceNotFound, "no file"),
        (tmp_path / ("x" * 300), UnreadableSource, "cannot be opened"),
        (tmp_path / "nul\0", UnreadableSource, "cannot be opened"),
        (tmp_path / "empty.mp4", UnreadableSource, "empty"),
        (tmp_path / "pipe.mp4", UnreadableSource, "pipe"),
        (tmp_path, UnreadableSource, "folder"),
        (Path("rtsp://u:canary@host/x"), SourceNotFound, r"rtsp://\*\*\*@host"),
    ]:
        with pytest.raises(error, match=said):
            check_file(path)
