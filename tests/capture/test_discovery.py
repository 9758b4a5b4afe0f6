"""Expansion of arguments to files, and names of sources and outputs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import pytest
from av.video.stream import VideoStream
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from fer_stream.capture.discovery import _matching_paths, discover, ensure_readable, slugify
from fer_stream.capture.source import EVERYTHING
from fer_stream.errors import ConfigError, SourceError, SourceNotFound, UnreadableSource
from fer_stream.factory import open_file

FILE_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80
).filter(lambda name: name not in (".", ".."))


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def found(arguments: Sequence[str | Path]) -> list[Path]:
    return [file.path for file in discover(arguments).files]


def test_files_are_returned_in_order_without_duplicates(tmp_path: Path) -> None:
    b, a, odd = touch(tmp_path, "b.mp4", "a.mp4", "odd.data")
    (tmp_path / "link.mp4").symlink_to(b)
    arguments: list[str | Path] = [b, str(a), tmp_path / "x" / ".." / "b.mp4", odd, tmp_path / "link.mp4"]
    (tmp_path / "x").mkdir()
    assert found(arguments) == [b, a, odd]


def test_folder_yields_videos_and_images_in_natural_order(tmp_path: Path) -> None:
    expected = touch(tmp_path, "clip2.MP4", "clip10.mkv", "Photo.jpeg", "sub/1.gif", "sub/deep/z.png")
    touch(tmp_path, "notes.txt", "clip.frames.csv", ".hidden.mp4", ".git/a.mp4", "sub/report.html")
    assert found([tmp_path]) == expected


def test_outputs_of_fer_stream_are_excluded_from_folders(tmp_path: Path) -> None:
    (clip,) = touch(tmp_path, "a.mp4")
    own = touch(tmp_path, "a.annotated.mp4", "b.annotated.png", "a.timeline.png")
    assert found([tmp_path]) == [clip]
    assert found(own) == own, "files passed by name are included"


def test_files_skipped_in_a_folder_are_counted_by_kind(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "x.HEX", "sub/y.hex", "notes", "Dr. Smith on anger", ".hidden.mp4", ".DS_Store")
    touch(tmp_path, "a.frames.csv")
    (message,) = discover([tmp_path]).messages()
    assert message == (
        f"{tmp_path}: skipped 6 files (2 .hex, 2 other, 1 hidden, 1 results of fer-stream). To analyse files of "
        "other types, pass them by name."
    )
    assert list(discover([tmp_path / "a.mp4", tmp_path / "notes"]).messages()) == []


def test_message_names_the_most_frequent_kinds(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", *(f"{number}.x{kind}" for kind in range(9) for number in range(9 - kind)))
    (message,) = discover([tmp_path]).messages()
    assert "skipped 45 files (9 .x0, 8 .x1, 7 .x2, 6 .x3, 5 .x4, 4 .x5, 6 of other types)" in message


def test_error_of_a_folder_without_videos_names_what_it_contains(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt")
    with pytest.raises(SourceNotFound, match=r"contains no supported files \(2 \.txt\)"):
        discover([tmp_path])


def test_symbolic_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (own,) = touch(folder, "sub/a.mp4")
    touch(tmp_path, "outside/b.mp4", "outside/deep/c.mp4")
    links = {"again": folder / "sub", "linked": tmp_path / "outside", "loop": folder, "sub/parent": tmp_path}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert found([folder]) == [folder / "linked/b.mp4", folder / "linked/deep/c.mp4", own]
    assert found([folder / "linked"]) == [folder / "linked/b.mp4", folder / "linked/deep/c.mp4"]


def test_links_that_multiply_paths_are_searched_in_linear_time(tmp_path: Path) -> None:
    """Thirty levels with two links each would be a billion paths."""
    for level in range(30):
        touch(tmp_path, f"{level}/{level}.mp4")
        for name in ("x", "y"):
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))
    assert len(found([tmp_path / "0"])) == 30
    assert len(found([f"{tmp_path}/0/**/*.mp4"])) == 30


def test_recursive_pattern_finds_a_file_under_its_own_path(tmp_path: Path) -> None:
    """With two links to the folder itself, a pattern has exponentially many matches."""
    (own,) = touch(tmp_path, "sub/z.mp4")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(tmp_path)
    assert found([f"{tmp_path}/**/*.mp4"]) == [own]
    assert results(f"{tmp_path}/**/*.mp4") == ["sub/z"]
    with pytest.raises(SourceNotFound, match="No file matches"):
        discover([f"{tmp_path}/missing/**/*.mp4"])


@pytest.mark.parametrize(
    "pattern", ["**", "**/", "**/*.mp4", "*/**", "a/**/c.mp4", "**/b", "**/a*/*", "**/.h.*", "a/**/**/*.m*"]
)
def test_recursive_patterns_match_as_in_a_shell(pattern: str, tmp_path: Path) -> None:
    touch(
        tmp_path, "x.mp4", "a/c.mp4", "a/b/c.mp4", "a/b/deep/c.mp4", "a1/d.mp4", ".hid/e.mp4", "a/.hid.mp4", ".h.mp4"
    )
    expected = {Path(name) for name in glob(f"{tmp_path}/{pattern}", recursive=True)}  # noqa: PTH207
    assert set(_matching_paths(f"{tmp_path}/{pattern}", tmp_path)) == expected


def test_empty_argument_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="empty"):
        discover([""])


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        ("m1v", "mpeg1video", "mpeg1video"), ("m2t", "mpegts", "mpeg2video"), ("mod", "vob", "mpeg2video"),
        ("mpe", "mpeg", "mpeg1video"), ("mp4v", "mp4", "mpeg4"), ("tod", "mpegts", "mpeg2video"),
        ("qt", "mov", "mjpeg"), ("insv", "mp4", "libx264"), ("lrv", "mp4", "libx264"),
    ],
)  # fmt: skip
def test_suffixes_of_camcorders_are_videos(suffix: str, container: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for _ in range(10):
            file.mux(stream.encode(av.VideoFrame(160, 120, "yuv420p").reformat(format=stream.pix_fmt)))
        file.mux(stream.encode())
    assert found([tmp_path]) == [path]
    assert _shape_and_frames(path) == ((120, 160), 10)


def test_mpo_is_a_still_image(tmp_path: Path) -> None:
    """An MPO of a stereo camera contains two JPEGs, of which the first is used."""
    left, right = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")
    left.save(tmp_path / "stereo.mpo", format="MPO", save_all=True, append_images=[right])
    (path,) = found([tmp_path])
    assert _shape_and_frames(path) == ((48, 64), 1)


def _shape_and_frames(path: Path) -> tuple[tuple[int, int], int]:
    source = open_file(path, name="clip", stream_start_ms=0, options=EVERYTHING, threads=1)
    shapes = [frame.pixels.shape for frame in source.frames()]
    source.close()
    return shapes[0], len(shapes)


def test_patterns_are_expanded(tmp_path: Path) -> None:
    two, ten, deep = touch(tmp_path, "c2.mp4", "c10.mp4", "sub/c3.mp4")
    assert found([f"{tmp_path}/c*.mp4"]) == [two, ten]
    assert found([f"{tmp_path}/**/*.mp4"]) == [two, ten, deep]
    assert found([f"{tmp_path}/s*"]) == [deep]


def test_file_named_like_a_pattern_takes_precedence(tmp_path: Path) -> None:
    named, _ = touch(tmp_path, "clip[1].mp4", "clip1.mp4")
    assert found([named]) == [named]


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


def results(*arguments: str | Path) -> list[str]:
    """Return folder and name of the results of each file."""
    return [str(file.folder / file.name) for file in discover(arguments).files]


def test_results_mirror_the_folders_below_the_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(
        tmp_path, "study/P01/interview.mp4", "study/P02/interview.mp4", "study/P02/deep/er/x.png", "study/intro.mov"
    )
    expected = ["P01/interview", "P02/deep/er/x", "P02/interview", "intro"]
    monkeypatch.chdir(tmp_path / "study")
    for argument in (tmp_path / "study", ".", f"{tmp_path}/study/", "../study", "P02/.."):
        assert sorted(results(argument)) == expected
    assert results(tmp_path / "study/P02") == ["deep/er/x", "interview"]
    assert results("P01/interview.mp4") == ["interview"]


@pytest.mark.parametrize("pattern", ["study/P*/interview.mp4", "study/P*", "study/**/interview.mp4", "./study/P??"])
def test_results_mirror_the_folders_below_the_constant_part_of_a_pattern(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "study/P01/interview.mp4", "study/P02/interview.mp4")
    monkeypatch.chdir(tmp_path)
    assert results(pattern) == results(f"{tmp_path}/{pattern}") == ["P01/interview", "P02/interview"]
    assert results("s*/P01/*.mp4") == ["study/P01/interview"]


def test_names_include_the_suffix_if_the_folder_contains_another_file_with_the_stem(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "A.mov", "a.txt", "a.annotated.mp4", ".a.png", "sub/a.mp4", "b.mp4", "b.frames.csv")
    assert sorted(results(tmp_path)) == ["A.mov", "a.mp4", "b", "sub/a"]
    assert results(tmp_path / "a.mp4") == ["a.mp4"], "independent of the other files of the call"
    assert results(tmp_path / "a.txt") == ["a.txt"]


def test_files_with_the_same_results_are_an_error(tmp_path: Path) -> None:
    mon, tue = touch(tmp_path, "mon/video1.mp4", "tue/video1.mp4")
    assert results(tmp_path) == ["mon/video1", "tue/video1"]
    assert results(mon, tmp_path / "mon") == ["video1"]
    with pytest.raises(ConfigError, match="same names") as caught:
        discover([mon, tue])
    assert str(mon) in str(caught.value)
    assert str(tue) in str(caught.value)


@given(st.lists(FILE_NAMES.filter(lambda name: len(name.encode()) < 250), max_size=8, unique=True))
def test_names_of_a_folder_are_unique_and_those_of_its_files_alone(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        paths = [path for name in names for path in touch(Path(folder), f"{name}.mp4")]
        for path in paths[::2]:
            path.with_suffix(".mkv").touch()
        visible = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
        if not visible:
            return
        try:
            together = discover([folder]).files
        except ConfigError:
            assume(False)
        assert len({file.name for file in together}) == len(together) == len(visible)
        for file in together:
            assert results(file.path) == [file.name]


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
