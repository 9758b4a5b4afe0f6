"""Command line: results, exit codes, interrupts, full disks."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_stream import model_files
from fer_stream.cli import main
from tests.support.heif import grid_image
from tests.support.waiting import wait_until

FER_STREAM = Path(sys.executable).with_name("fer-stream")
OUTPUTS = ("frames.csv", "timeline.json", "timeline.png", "annotated.mp4", "report.html")


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., CommandResult]


@pytest.fixture
def fer(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the command line in this process."""

    def run(*arguments: str | Path) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["fer-stream", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        result = capfd.readouterr()
        return CommandResult(end.value.code if isinstance(end.value.code, int) else 0, result.out, result.err)

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_help_has_examples_and_exit_codes(fer: Run) -> None:
    result = fer("run", "--help")
    assert result.code == 0
    assert "fer-stream run talk.mp4 --fps 5" in result.out
    assert "130 after Ctrl-C" in result.out


def test_video_gives_all_outputs(fer: Run, clips: Path, tmp_path: Path) -> None:
    result = fer("run", clips / "one_face_smile.mp4", "--detector", "blazeface", "--out", tmp_path)
    assert result.code == 0
    assert names(tmp_path) == {f"one_face_smile.{suffix}" for suffix in OUTPUTS}
    assert "one_face_smile.mp4: 1 person, 72 frames in 0:02.4, detector blazeface-full-range" in result.out
    assert re.search(r"person 1, .*: happy for \d+ % of the time \(mean probability 0\.\d\d\)", result.out)
    assert result.err == "", "progress bar without a terminal"


def test_outputs_can_be_disabled(fer: Run, clips: Path, tmp_path: Path) -> None:
    options = ("--no-video", "--no-report", "--no-plot", "--no-table", "--quiet")
    result = fer("run", clips / "one_face_smile.mp4", "--out", tmp_path, *options)
    assert result == CommandResult(0, "", "")
    assert names(tmp_path) == {"one_face_smile.timeline.json"}


def test_still_image_gives_table_timeline_and_annotated_image(fer: Run, portrait: Path, tmp_path: Path) -> None:
    result = fer("run", portrait, "--out", tmp_path / "out")
    assert result.code == 0
    assert names(tmp_path / "out") == {"portrait.frames.csv", "portrait.timeline.json", "portrait.annotated.png"}
    assert re.search(r"\n  person 1: happy \(probability 0\.\d\d\)\n", result.out)
    assert pd.read_csv(tmp_path / "out" / "portrait.frames.csv").label.tolist() == ["happy"]


def test_unused_pictures_of_a_file_are_stated(fer: Run, portrait: Path, tmp_path: Path) -> None:
    with Image.open(portrait) as image:
        image.save(tmp_path / "pages.tif", save_all=True, append_images=[image, image])
    result = fer("run", tmp_path / "pages.tif", "--out", tmp_path / "out", "--detector", "blazeface")
    assert result.code == 0
    assert "1 of 3 pictures in the file" in result.out
    timeline = json.loads((tmp_path / "out" / "pages.timeline.json").read_text())
    assert (timeline["source"]["frames"], timeline["analysed"]["frames"]) == (3, 1)


def test_heic_in_a_folder_is_analysed(fer: Run, portrait: Path, tmp_path: Path) -> None:
    with Image.open(portrait) as image:
        bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)[..., ::-1])
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "IMG_1.HEIC").write_bytes(grid_image(bgr, codec="heic"))
    result = fer("run", folder, "--out", tmp_path / "out", "--detector", "blazeface")
    assert (result.code, result.err) == (0, "")
    assert "IMG_1.HEIC: 1 person" in result.out


def test_home_that_is_not_writable_causes_no_warning(clips: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG"))}
    command: list[str | Path] = [FER_STREAM, "run", clips / "one_face_smile.mp4", "--out", tmp_path]
    command += ["--detector", "blazeface"]
    done = subprocess.run(
        command, env={**environment, "HOME": "/proc/1"}, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""


def test_model_size_selects_the_model(fer: Run, portrait: Path, tmp_path: Path) -> None:
    ids = []
    for size in ("standard", "small"):
        assert fer("run", portrait, "--out", tmp_path / size, "--model-size", size).code == 0
        ids.append(json.loads((tmp_path / size / "portrait.timeline.json").read_text())["model"]["id"])
        assert pd.read_csv(tmp_path / size / "portrait.frames.csv").label.tolist() == ["happy"]
    assert ids == [
        json.loads((model_files.shipped_model_dir(size) / "card.json").read_text())["model_id"]
        for size in ("standard", "small")
    ]
    assert ids[0] != ids[1]


def test_results_mirror_the_folders_of_a_study(fer: Run, portrait: Path, tmp_path: Path) -> None:
    for day in ("mon", "tue"):
        (tmp_path / "d" / day).mkdir(parents=True)
        shutil.copy(portrait, tmp_path / "d" / day / "photo1.png")
    result = fer("run", tmp_path / "d", "--out", tmp_path / "o", "--no-video", "--no-table")
    assert result.code == 0
    assert names(tmp_path / "o") == {"mon", "tue"}
    for day in ("mon", "tue"):
        assert names(tmp_path / "o" / day) == {"photo1.timeline.json"}
        assert f"{day}/photo1.png: 1 person" in result.out
    result = fer("run", tmp_path / "d/mon/photo1.png", tmp_path / "d/tue/photo1.png", "--out", tmp_path / "o")
    assert result.code == 2
    assert "would have the same names" in result.err


def test_timeline_records_how_it_was_produced(fer: Run, portrait: Path, tmp_path: Path) -> None:
    """The output folder looks like a URL with a password."""
    source = tmp_path / "a b.png"
    shutil.copy(portrait, source)
    started_s = time.time()
    options = ("--backend", "onnx", "--detector", "blazeface", "--no-video")
    assert fer("run", source, "--out", f"{tmp_path}/rtsp://ada:canary@host", *options).code == 0
    document = json.loads((tmp_path / "rtsp:/ada:canary@host" / "a b.timeline.json").read_text())
    assert document["source"]["path"] == str(source)
    assert document["source"]["size_bytes"] == source.stat().st_size
    assert document["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    at_s = datetime.fromisoformat(document["analysed"]["at"]).timestamp()
    assert started_s - 1 <= at_s <= time.time()
    assert document["analysed"]["command"].startswith(f"fer-stream run '{source}' --out")
    assert "canary" not in json.dumps(document)
    assert document["backend"] == "onnx"
    assert document["detector"] == "blazeface-full-range"
    assert document["settings"]["detector"]["type"] == "blazeface"
    assert "fer-stream" in document["versions"]


def test_unreadable_files_are_reported_and_the_others_processed(fer: Run, clips: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("buy milk")
    (tmp_path / "empty.mp4").touch()
    result = fer(
        "run", text, tmp_path / "empty.mp4", clips / "one_face_smile.mp4", "--out", tmp_path / "out", "--no-video"
    )
    assert result.code == 3
    assert "notes.mp4" in result.err
    assert "empty.mp4" in result.err
    assert "one_face_smile.mp4: 1 person" in result.out
    assert {name.partition(".")[0] for name in names(tmp_path / "out")} == {"one_face_smile"}


def test_missing_file_is_reported(fer: Run, tmp_path: Path) -> None:
    result = fer("run", tmp_path / "none.mp4", "--out", tmp_path / "out")
    assert result.code == 3
    assert "none.mp4" in result.err


def test_files_skipped_in_a_folder_are_reported(fer: Run, portrait: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").touch()
    shutil.copy(portrait, tmp_path / "real.png")
    (tmp_path / "d" / "linked.png").symlink_to(tmp_path / "real.png")
    command = ("run", tmp_path / "d", "--out", tmp_path / "out", "--no-video", "--no-table", "--existing", "replace")
    result = fer(*command)
    assert result.code == 0
    assert f"{tmp_path / 'd'}: skipped 1 file (1 .txt)" in result.err
    assert "linked.png: 1 person" in result.out
    assert fer(*command, "--quiet").err == ""


@pytest.mark.parametrize(
    "arguments", [("run", ""), ("run", "a.mp4", "--out", ""), ("run", "a.mp4", "--out="), ("validate", "")]
)
def test_empty_argument_is_an_error(
    fer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(portrait, tmp_path)
    result = fer(*arguments)
    assert result.code == 2
    assert f"Argument {len(arguments)} of the command line is empty" in result.err
    assert names(tmp_path) == {"portrait.png"}


@pytest.mark.parametrize("name", ["-talk.mp4", "-q", "--fps"])
def test_hint_for_a_file_name_that_starts_with_a_dash(
    fer: Run, portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(portrait, tmp_path / name)
    result = fer("run", name, "--out", "out")
    assert result.code == 2
    assert f"must follow --, as in: fer-stream run -- {name}" in result.err
    assert fer("run", "--out", "out", "--no-video", "--", name).code in (0, 3)
    assert "must follow" not in fer("run", "portrait.png", "--fps", "-1.5").err
    assert "must follow" not in fer("run", "--no-such-option", "portrait.png").err


def test_existing_results_are_replaced_only_on_request(fer: Run, clips: Path, tmp_path: Path) -> None:
    command = ("run", clips / "one_face_smile.mp4", "--out", tmp_path, "--no-video", "--no-report", "--no-plot")
    existing = tmp_path / "one_face_smile.frames.csv"
    existing.write_text("not a result")
    result = fer(*command)
    assert result.code == 5
    assert "--existing replace" in result.err
    assert names(tmp_path) == {existing.name}
    assert existing.read_text() == "not a result"
    assert fer(*command, "--existing", "replace").code == 0
    assert len(pd.read_csv(existing)) == 72


DATA_ONLY = ("--no-video", "--no-report", "--no-plot")


def test_second_run_of_a_folder_analyses_only_what_is_new(fer: Run, portrait: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "d", tmp_path / "o"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.copy(portrait, folder / f"{name}.png")
    (folder / "broken.png").write_text("no image")
    command = ("run", folder, "--out", out, *DATA_ONLY)
    assert fer(*command).out.splitlines()[-1] == "2 new, 1 failed"
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    shutil.copy(portrait, folder / "c.png")
    result = fer(*command)
    assert result.out.startswith("c.png: 1 person")
    assert result.out.splitlines()[-1] == "2 already done, 1 new, 1 failed"
    assert result.code == 3
    assert {name: (out / name).stat().st_mtime_ns for name in written} == written
    (folder / "broken.png").unlink()
    result = fer(*command)
    assert (result.code, result.out) == (0, "3 already done\n")
    assert fer("run", folder / "a.png", "--out", out, *DATA_ONLY).out.startswith("a.png: already done\n  results: ")
    assert fer(*command, "--existing", "error").out == "3 failed\n"
    assert fer(*command, "--existing", "replace").out.splitlines()[-1] == "3 new"


def test_changed_file_or_settings_are_an_error(fer: Run, portrait: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "a.png", tmp_path / "o"
    shutil.copy(portrait, source)
    command = ("run", source, "--out", out, "--no-video")
    assert fer(*command).code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for arguments, message in [
        (("--model-size", "small"), 'settings.model.size is "small" and was "standard"'),
        (("--backend", "onnx"), 'backend is "onnx" and was'),
        (("--redact", "blur"), 'settings.outputs.redact is "blur" and was "none"'),
    ]:
        result = fer(*command, *arguments)
        assert result.code == 5
        assert message in result.err
    with source.open("ab") as file:
        file.write(b"\n")
    result = fer(*command)
    assert result.code == 5
    assert "the file has other contents. Use --existing replace" in result.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert fer(*command, "--existing", "replace").code == 0


def test_missing_outputs_are_added_and_the_others_kept(fer: Run, clips: Path, tmp_path: Path) -> None:
    command = ("run", clips / "one_face_smile.mp4", "--out", tmp_path, "--no-report", "--no-plot")
    assert fer(*command, "--no-video").code == 0
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    result = fer(*command)
    assert result.code == 0
    assert names(tmp_path) == {*kept, "one_face_smile.annotated.mp4"}
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept
    assert fer(*command).out.startswith("one_face_smile.mp4: already done")
    assert fer(*command, "--no-video").out.startswith("one_face_smile.mp4: already done")


def test_replacing_removes_results_that_would_not_fit_the_new_ones(fer: Run, portrait: Path, tmp_path: Path) -> None:
    command = ("run", portrait, "--out", tmp_path, "--existing", "replace")
    assert fer(*command).code == 0
    assert "portrait.annotated.png" in names(tmp_path)
    assert fer(*command, "--no-video", "--model-size", "small").code == 0
    assert names(tmp_path) == {"portrait.frames.csv", "portrait.timeline.json"}


def test_run_after_a_full_disk_adds_what_is_missing(fer: Run, clips: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(64)
    command = ("run", clips / "two_faces.mp4", "--out", disk)
    assert fer(*command).code == 5
    kept = {path.name: path.stat().st_mtime_ns for path in disk.iterdir()}
    assert kept.keys() == {"two_faces.frames.csv", "two_faces.timeline.json"}
    assert fer(*command).code == 5, "the disk is still full"
    assert {path.name: path.stat().st_mtime_ns for path in disk.iterdir()} == kept
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    assert fer(*command).code == 0
    assert names(disk) == {f"two_faces.{suffix}" for suffix in OUTPUTS}
    assert {name: (disk / name).stat().st_mtime_ns for name in kept} == kept


def test_invalid_settings_are_reported_with_their_line(fer: Run, clips: Path, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("detector:\n  tpye: yunet\n")
    result = fer("run", clips / "one_face_smile.mp4", "--config", config, "--out", tmp_path)
    assert result.code == 2
    assert "my.yaml:2: unknown setting 'detector.tpye'. Did you mean 'type'?" in result.err
    assert fer("run", clips / "one_face_smile.mp4", "--fps", "-1", "--out", tmp_path).code == 2


def test_thumbnails_and_redaction_exclude_each_other(fer: Run, clips: Path, tmp_path: Path) -> None:
    result = fer("run", clips / "one_face_smile.mp4", "--thumbnails", "--redact", "blur", "--out", tmp_path)
    assert result.code == 2
    assert "thumbnails show the faces that redact hides: remove one of the two" in result.err


def test_redact_person_requires_redact(fer: Run, clips: Path, tmp_path: Path) -> None:
    result = fer("run", clips / "one_face_smile.mp4", "--redact-person", "1", "--out", tmp_path)
    assert result.code == 2
    assert "redact_persons needs redact (--redact) blur or black" in result.err
    assert names(tmp_path) == set()


def test_missing_weights_suggest_the_download(
    fer: Run, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_STREAM_CACHE", str(tmp_path / "cache"))
    result = fer("run", clips / "one_face_smile.mp4", "--detector", "yunet", "--out", tmp_path / "out")
    assert result.code == 4
    assert "fer-stream models pull" in result.err


def test_output_folder_that_cannot_be_created_is_reported(fer: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = fer("run", clips / "one_face_smile.mp4", "--out", tmp_path / "file" / "out")
    assert result.code == 5
    assert "--out" in result.err


@pytest.mark.parametrize(
    ("kib", "missing"), [(240, {"report.html"}), (64, {"report.html", "annotated.mp4", "timeline.png"})]
)
def test_full_disk_keeps_the_results_that_fit(
    fer: Run, clips: Path, small_disk: Callable[[int], Path], kib: int, missing: set[str]
) -> None:
    """The report takes 4.8 MB, video and plot 70 kB each, the others 16 kB."""
    disk = small_disk(kib)
    result = fer("run", clips / "two_faces.mp4", "--out", disk)
    assert result.code == 5
    assert names(disk) == {f"two_faces.{suffix}" for suffix in set(OUTPUTS) - missing}
    for suffix in missing:
        assert f"{disk / 'two_faces'}.{suffix}: the disk is full. Free space or choose another" in result.err
    assert "To add what is missing, run the command again" in result.err
    assert len(pd.read_csv(disk / "two_faces.frames.csv").frame_index.unique()) == 56
    assert "two_faces.mp4: 2 people" in result.out


def test_disk_without_room_for_the_timeline_stays_empty(
    fer: Run, portrait: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(4)
    (disk / "ballast").write_bytes(bytes(4096))
    result = fer("run", portrait, "--out", disk)
    assert result.code == 5
    assert "the disk is full. Free space or choose another directory with --out" in result.err
    assert names(disk) == {"ballast"}


def test_parallel_processes_give_the_same_results(fer: Run, clips: Path, tmp_path: Path) -> None:
    sources = [clips / "one_face_smile.mp4", clips / "two_faces.mp4", clips / "three_faces.mp4"]
    for workers in ("1", "2"):
        assert (
            fer("run", *sources, "--workers", workers, "--out", tmp_path / workers, "--no-video", "--no-report").code
            == 0
        )
    assert names(tmp_path / "1") == names(tmp_path / "2")
    for table in (tmp_path / "1").glob("*.csv"):
        assert table.read_bytes() == (tmp_path / "2" / table.name).read_bytes()


def run_process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `fer-stream run --no-video` in its own process."""
    return subprocess.run([FER_STREAM, "run", "--no-video", *arguments], timeout=240, **options)


def test_unprintable_file_name_is_escaped(clips: Path, tmp_path: Path) -> None:
    sources = [tmp_path / os.fsdecode(b"caf\xe9.mp4"), tmp_path / "b.mp4"]
    for source in sources:
        shutil.copy(clips / "three_faces.mp4", source)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    completed = run_process(*sources, "--workers", "2", "--out", tmp_path / "out", capture_output=True, env=strict)
    assert completed.returncode == 0, completed.stderr
    assert rb"caf\udce9.mp4: 3 people" in completed.stdout
    assert b"b.mp4: 3 people" in completed.stdout


def test_results_are_written_even_if_stdout_is_full(clips: Path, tmp_path: Path) -> None:
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for source in sources:
        shutil.copy(clips / "three_faces.mp4", source)
    with Path("/dev/full").open("w") as full:
        completed = run_process(
            *sources, "--workers", "1", "--out", tmp_path / "out", stdout=full, stderr=subprocess.PIPE
        )
    assert completed.returncode != 0
    errors = completed.stderr.decode()
    lines = [line for line in errors.splitlines() if "No space left on device" in line]
    assert [source for source in sources if any(str(source) in line for line in lines)] == sources
    assert "Traceback" not in errors
    assert {"a.timeline.json", "b.timeline.json"} <= names(tmp_path / "out")


def test_run_ends_if_stderr_is_full(clips: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.mp4", tmp_path / "out"
    broken.write_bytes(b"no video")
    with Path("/dev/full").open("w") as full:
        completed = run_process(
            broken, clips / "long_mostly_no_face.mp4", "--workers", "2", "--out", out, stderr=full
        )
    assert completed.returncode != 0
    assert not list(out.glob(".*")), "partial files remain"


@pytest.fixture
def default_sighup() -> Iterator[None]:
    """Reset SIGHUP, which child processes inherit as ignored if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def interrupted(number: signal.Signals, out: Path, *arguments: str | Path) -> tuple[int, str]:
    """Send a signal to a run that is in the middle of a file; return its exit code and output."""
    command: list[str | Path] = [FER_STREAM, "run", *arguments, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: any(path.stat().st_size > 2000 for path in out.glob(".partial-*.csv")))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_interrupted_batch_is_continued(fer: Run, clips: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "d", tmp_path / "o"
    folder.mkdir()
    shutil.copy(clips / "one_face_smile.mp4", folder / "1.mp4")
    shutil.copy(clips / "long_mostly_no_face.mp4", folder / "2.mp4")
    shutil.copy(clips / "one_face_smile.mp4", folder / "3.mp4")
    assert fer("run", folder / "1.mp4", "--out", out, *DATA_ONLY).code == 0
    code, output = interrupted(signal.SIGINT, out, folder, "--workers", "1", *DATA_ONLY)
    assert (code, output.splitlines()[-1]) == (130, "1 already done, 1 interrupted, 1 not started")
    assert names(out) == {
        f"{name}.{suffix}" for name in ("1", "2.interrupted") for suffix in ("frames.csv", "timeline.json")
    }
    result = fer("run", folder, "--out", out, "--fps", "2", *DATA_ONLY, "--workers", "1")
    assert result.out.splitlines()[-1] == "2 new, 1 failed", "other settings than those of the first result"
    assert names(out) == {f"{name}.{suffix}" for name in "123" for suffix in ("frames.csv", "timeline.json")}


def test_killed_run_leaves_no_results(clips: Path, tmp_path: Path) -> None:
    source = clips / "long_mostly_no_face.mp4"
    assert interrupted(signal.SIGKILL, tmp_path, source, *DATA_ONLY)[0] == -signal.SIGKILL
    assert all(name.startswith(".partial-") for name in names(tmp_path))


@pytest.mark.usefixtures("default_sighup")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_stopped_run_leaves_complete_results_under_other_names(
    clips: Path, tmp_path: Path, number: signal.Signals, code: int, workers: str
) -> None:
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4"][: int(workers)]
    for source in sources:
        shutil.copy(clips / "long_mostly_no_face.mp4", source)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [FER_STREAM, "run", *sources, "--workers", workers, "--out", out], stdout=subprocess.PIPE
    )
    wait_until(lambda: sum(path.stat().st_size > 2000 for path in out.glob(".partial-*.csv")) == len(sources))
    process.send_signal(number)
    assert process.wait(60) == code
    for source in sources:
        table = pd.read_csv(out / f"{source.stem}.interrupted.frames.csv")
        document = json.loads((out / f"{source.stem}.interrupted.timeline.json").read_text())
        assert document["analysed"]["stopped"] == "interrupted"
        assert 0 < len(table.frame_index.unique()) == document["analysed"]["frames"] < 1394
        with av.open(str(out / f"{source.stem}.interrupted.annotated.mp4")) as video:
            assert sum(1 for _ in video.decode(video=0)) == document["analysed"]["frames"]
    assert not list(out.glob(".*")), "partial files remain"


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGSEGV, "the worker process crashed (SIGSEGV, exit code -11)"), (signal.SIGKILL, "memory")],
)
def test_file_that_crashes_its_process_is_reported_and_the_others_processed(
    clips: Path, tmp_path: Path, number: signal.Signals, message: str
) -> None:
    bad, good, out = tmp_path / "bad.mp4", tmp_path / "good.mp4", tmp_path / "out"
    shutil.copy(clips / "long_mostly_no_face.mp4", bad)
    shutil.copy(clips / "one_face_smile.mp4", good)
    command: list[str | Path] = [
        FER_STREAM,
        "run",
        bad,
        good,
        "--detector",
        "blazeface",
        "--workers",
        "1",
        "--no-video",
        "--out",
        out,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(path.stat().st_size > 2000 for path in out.glob(".partial-*.csv")))
    (partial,) = out.glob(".partial-*.csv")
    os.kill(int(partial.name.split("-")[1]), number)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "good.mp4: 1 person, 72 frames" in output
    (error,) = errors.splitlines()
    assert str(bad) in error
    assert message in error
    assert {name.partition(".")[0] for name in names(out)} == {"good"}, "partial files remain"


def test_interrupt_during_the_start_of_workers_ends_quietly(clips: Path, tmp_path: Path) -> None:
    """Ctrl-C in a terminal sends SIGINT to every process."""
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4"]
    for source in sources:
        shutil.copy(clips / "long_mostly_no_face.mp4", source)
    command: list[str | Path] = [
        FER_STREAM,
        "run",
        *sources,
        "--detector",
        "blazeface",
        "--workers",
        "2",
        "--out",
        tmp_path / "out",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: any(b"spawn_main" in _command_line(child) for child in children.read_text().split()))
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=240)[0] == "3 not started\n"
    assert process.returncode == 130
    assert names(tmp_path / "out") == set()


def test_run_under_nohup_ignores_sighup(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        ["nohup", FER_STREAM, "run", clips / "three_faces.mp4", clips / "two_faces.mp4", "--workers", "1",
         "--out", out],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: any(out.glob(".partial-*.csv")))
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(240) == 0
    assert {"three_faces.timeline.json", "two_faces.timeline.json"} <= names(out)


def _command_line(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # the process has exited
        return b""


def test_second_interrupt_ends_the_run_immediately(clips: Path, tmp_path: Path) -> None:
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for source in sources:
        shutil.copy(clips / "long_mostly_no_face.mp4", source)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [FER_STREAM, "run", *sources, "--workers", "1", "--out", out], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: any(path.stat().st_size > 2000 for path in out.glob(".partial-*.csv")))
    (partial,) = out.glob(".partial-*.csv")
    worker = int(partial.name.split("-")[1])
    os.kill(worker, signal.SIGSTOP)  # simulates a hanging process
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert not Path(f"/proc/{worker}").exists()
    assert names(out) == set()


def read_terminal(process: subprocess.Popen[bytes], screen: int) -> bytes:
    """Return the output of `process` on its terminal until it exits."""
    shown = b""
    try:
        while chunk := os.read(screen, 4096):
            shown += chunk
    except OSError:  # the terminal closes when the process exits
        pass
    os.close(screen)
    assert process.wait(60) == 0, shown
    return shown


@pytest.mark.parametrize("options", [(), ("--fps", "5")])
def test_progress_goes_to_the_terminal_and_results_to_a_file(
    clips: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    master, slave = pty.openpty()
    command: list[str | Path] = [FER_STREAM, "run", clips / "one_face_crying.mp4", "--out", tmp_path, "--no-video"]
    with (tmp_path / "result.txt").open("wb") as file:
        terminal = {**os.environ, "TERM": "xterm"}
        process = subprocess.Popen([*command, *options], stderr=slave, stdout=file, env=terminal)
    os.close(slave)
    shown = read_terminal(process, master)
    assert b"one_face_crying.mp4" in shown
    assert re.search(rb"[1-9]\d* fps", shown)
    assert max(map(int, re.findall(rb"(\d+)%", shown))) == 100
    assert "one_face_crying.mp4: 1 person" in (tmp_path / "result.txt").read_text()


def test_progress_and_results_share_a_terminal(clips: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command: list[str | Path] = [FER_STREAM, "run", clips / "three_faces.mp4", "--out", tmp_path, "--no-video"]
    process = subprocess.Popen(command, stderr=slave, stdout=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    assert b"three_faces.mp4: 3 people" in read_terminal(process, master)


def test_api_runs_without_main_guard(clips: Path) -> None:
    code = "from fer_stream import analyze; print(len(analyze({!r}).timelines))".format(str(clips / "two_faces.mp4"))
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "2"


def test_init_creates_valid_settings(fer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "live.yaml"
    result = fer("init", path)
    assert result.code == 0
    assert f"fer-stream validate {path}" in result.out
    shipped = Path(__file__).resolve().parents[2] / "configs" / "live.yaml"
    assert path.read_text() == shipped.read_text()
    monkeypatch.delenv("CAMERA_PASSWORD", raising=False)
    result = fer("validate", path)
    assert result.code == 2
    assert (
        "sources.front-door.password needs the environment variable CAMERA_PASSWORD, which is not set." in result.err
    )
    monkeypatch.setenv("CAMERA_PASSWORD", "abc")
    assert fer("validate", path) == CommandResult(0, f"{path} is valid: 2 sources (front-door, back-yard).\n", "")


def test_init_replaces_a_file_only_with_force(fer: Run, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text("existing")
    result = fer("init", path)
    assert result.code == 5
    assert "--force" in result.err
    assert path.read_text() == "existing"
    assert fer("init", path, "--force").code == 0
    assert path.read_text() != "existing"
    assert fer("init", tmp_path / "none" / "live.yaml").code == 5


def test_validate_lists_every_error(fer: Run, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text("sources:\n  hall:\n    url: rtps://me:Canary7@cam\n    fsp: 5\nlog: {level: loud}\n")
    result = fer("validate", path)
    assert (result.code, result.out) == (2, "")
    assert [line.partition("live.yaml:")[2].split(":")[0] for line in result.err.splitlines()] == ["3", "4", "5"]
    assert "Canary7" not in result.err
    path.write_text("log: {level: debug}\n")
    assert fer("validate", path).out == f"{path} is valid: 0 sources (none).\n"


def test_schema_is_json(fer: Run) -> None:
    result = fer("schema")
    assert result.code == 0
    assert "sources" in json.loads(result.out)["properties"]


def test_exports_of_a_run_equal_those_of_its_timeline(fer: Run, clips: Path, tmp_path: Path) -> None:
    formats = ("eaf", "textgrid", "vtt", "srt", "boris")
    options = ("--no-video", "--no-report", "--no-plot", "--export", ",".join(formats))
    assert fer("run", clips / "one_face_smile.mp4", "--out", tmp_path / "run", *options).code == 0
    timeline = tmp_path / "run" / "one_face_smile.timeline.json"
    result = fer("export", timeline, "--to", ",".join(formats), "--out", tmp_path / "export")
    written = sorted(map(Path, result.out.splitlines()))
    assert len(written) == len(formats)
    assert [path.read_bytes() for path in written] == [
        (tmp_path / "run" / path.name).read_bytes() for path in written
    ]


def test_an_unknown_export_format_is_an_error(fer: Run, clips: Path, tmp_path: Path) -> None:
    result = fer("run", clips / "one_face_smile.mp4", "--export", "elan", "--out", tmp_path)
    assert result.code == 2
    assert "eaf" in result.err
    result = fer("export", tmp_path / "talk.timeline.json", "--to", "eaf,elan")
    assert result.code == 2
    assert "--to elan is not a format: use eaf, textgrid, vtt, srt, boris." in result.err
