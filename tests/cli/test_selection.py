"""Command line: parts of a file, rotation and standard input."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pandas as pd
import pytest

from fer_stream.config.loader import load
from fer_stream.config.settings import FileSettings
from fer_stream.errors import ConfigError
from tests.support.waiting import wait_until

FER_STREAM = Path(sys.executable).with_name("fer-stream")
DETECTOR = ("--detector", "blazeface")


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([FER_STREAM, "run", *arguments, *DETECTOR], input=stdin, capture_output=True, check=False)


def test_part_keeps_the_times_of_the_source(clips: Path, tmp_path: Path) -> None:
    result = run(clips / "one_face_crying.mp4", "--start", "5", "--end", "0:07", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert b"48 frames in 0:02.0 (0:05.0 to 0:07.0)" in result.stdout
    table = pd.read_csv(tmp_path / "one_face_crying.frames.csv")
    assert (table.frame_index.min(), table.frame_index.max()) == (0, 47)
    assert 5 <= table.time_s.min() < 5.05 < 6.9 < table.time_s.max() < 7
    analysed = json.loads((tmp_path / "one_face_crying.timeline.json").read_text())["analysed"]
    assert (analysed["start_s"], analysed["frames"]) == (5.0, 48)
    assert analysed["duration_s"] == pytest.approx(2, abs=0.1)
    with av.open(str(tmp_path / "one_face_crying.annotated.mp4")) as video:
        for stream in video.streams:
            time_base = stream.time_base or Fraction(0)
            assert float((stream.start_time or 0) * time_base) < 0.05
            assert float((stream.duration or 0) * time_base) == pytest.approx(2, abs=0.1)


def test_rotated_file_is_analysed_upright(clips: Path, tmp_path: Path) -> None:
    """The clip is first rotated to the left, and `--rotate 90` turns it back."""
    left = tmp_path / "left.mp4"
    source = str(clips / "one_face_smile.mp4")
    command = ["ffmpeg", "-v", "error", "-i", source, "-vf", "transpose=cclock", "-an", str(left)]
    subprocess.run(command, check=True)
    assert run(left, "--rotate", "90", "--out", tmp_path).returncode == 0
    document = json.loads((tmp_path / "left.timeline.json").read_text())
    assert (document["source"]["width"], document["source"]["height"]) == (640, 360)
    assert document["settings"]["rotate"] == 90
    assert [person["person_id"] for person in document["people"]] == [1]
    assert max(document["people"][0]["shares"], key=document["people"][0]["shares"].get) == "happy"
    with av.open(str(tmp_path / "left.annotated.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (640, 360)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--start", "5", "--end", "5"), 2, "end_s (--end) must be after start_s (--start)"),
        (("--start", "1:90"), 2, "'1:90' is not a valid time. Use seconds (90.5) or hh:mm:ss"),
        (("--rotate", "45"), 2, "'45' is not one of '90', '180', '270'"),
        (("--start", "1:00:00"), 3, "one_face_smile.mp4 has no frame from 1:00:00.0. It ends at 0:02.4: choose an"),
    ],
)
def test_invalid_part_names_the_cure(
    clips: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    result = run(clips / "one_face_smile.mp4", *options, "--out", tmp_path)
    assert result.returncode == code
    assert message in " ".join(result.stderr.decode().replace("│", "").split())
    assert list(tmp_path.iterdir()) == []


def test_settings_file_selects_a_part(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("start_s: 5\nend_s: 9.5\nrotate: 270\n")
    settings = load(path, FileSettings)
    assert (settings.start_s, settings.end_s, settings.rotate) == (5, 9.5, 270)
    path.write_text("start_s: 5\nend_s: 4\n")
    with pytest.raises(ConfigError, match="must be after start_s"):
        load(path, FileSettings)


# Standard input


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for temporary files of the command."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("name", ["three_faces.mp4", "three_faces.ts"])
def test_standard_input_gives_the_results_of_the_file(
    clips: Path, tmp_path: Path, temporary: Path, name: str
) -> None:
    path = tmp_path / name
    source = clips / "three_faces.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c", "copy", path], check=True)
    result = run("-", "--out", tmp_path / "out", stdin=path.read_bytes())
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"stdin: 3 people, 41 frames")
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        f"stdin.{suffix}"
        for suffix in ("frames.csv", "timeline.json", "timeline.png", "annotated.mp4", "report.html")
    }
    assert run(path, "--out", tmp_path / "expected").returncode == 0
    expected = tmp_path / "expected" / "three_faces.frames.csv"
    assert (tmp_path / "out" / "stdin.frames.csv").read_bytes() == expected.read_bytes()
    assert list(temporary.iterdir()) == []
    timeline = json.loads((tmp_path / "out" / "stdin.timeline.json").read_text())
    assert timeline["source"]["path"] == "-"
    assert timeline["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_standard_input_can_be_a_still_image_beside_files(
    clips: Path, portrait: Path, tmp_path: Path, temporary: Path
) -> None:
    result = run("-", clips / "one_face_smile.mp4", "--out", tmp_path / "out", stdin=portrait.read_bytes())
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "stdin.annotated.png").exists()
    assert (tmp_path / "out" / "one_face_smile.timeline.json").exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Standard input is empty. Check the command before the pipe."),
        (b"text" * 99, "neither an image nor a video"),
    ],
)
def test_unusable_standard_input_is_an_error(tmp_path: Path, temporary: Path, data: bytes, message: str) -> None:
    result = run("-", "--out", tmp_path / "out", stdin=data)
    assert result.returncode == 3
    assert message in result.stderr.decode()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("complete", [False, True])
def test_copy_is_removed_when_the_run_is_stopped(
    clips: Path, tmp_path: Path, temporary: Path, number: signal.Signals, code: int, complete: bool
) -> None:
    """During the copy, and during the analysis."""
    process = subprocess.Popen(
        [FER_STREAM, "run", "-", "--out", tmp_path / "out", *DETECTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    data = (clips / "long_mostly_no_face.mp4").read_bytes()
    process.stdin.write(data if complete else data[:100_000])
    if complete:
        process.stdin.close()
        wait_until(lambda: any(path.stat().st_size > 2000 for path in (tmp_path / "out").glob(".partial-*.csv")))
    else:
        process.stdin.flush()
        wait_until(lambda: any(path.stat().st_size for path in temporary.glob("*/stdin")))
    process.send_signal(number)
    assert process.wait(60) == code
    assert list(temporary.iterdir()) == []
    assert (tmp_path / "out" / "stdin.interrupted.timeline.json").exists() == complete


def test_full_disk_names_the_folder(small_disk: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = small_disk(64)  # type: ignore[operator]
    monkeypatch.setenv("TMPDIR", str(disk))
    result = run("-", "--out", tmp_path / "out", stdin=os.urandom(200_000))
    assert result.returncode == 5
    assert "Cannot store standard input in" in result.stderr.decode()
    assert "Set TMPDIR to a folder with more space" in result.stderr.decode()
    assert list(disk.iterdir()) == []
