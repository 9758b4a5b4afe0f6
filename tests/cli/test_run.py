"""The command line as a person meets it: results, exit codes, Ctrl-C, full disks."""

from __future__ import annotations

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
from pathlib import Path
from typing import Any, NamedTuple

import av
import pandas as pd
import pytest

from fer_stream import model_files
from fer_stream.cli import main
from tests.support.waiting import wait_until

FER_STREAM = Path(sys.executable).with_name("fer-stream")
OUTPUTS = ("frames.csv", "timeline.json", "timeline.png", "annotated.mp4", "report.html")


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def fer(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process."""

    def run(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["fer-stream", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        return Said(end.value.code if isinstance(end.value.code, int) else 0, said.out, said.err)

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_help_has_examples_and_exit_codes(fer: Run) -> None:
    said = fer("run", "--help")
    assert said.code == 0
    assert "fer-stream run talk.mp4 --fps 5" in said.out
    assert "130 after Ctrl-C" in said.out


def test_a_video_becomes_all_its_outputs(fer: Run, clips: Path, tmp_path: Path) -> None:
    said = fer("run", clips / "one_face_smile.mp4", "--out", tmp_path)
    assert said.code == 0
    assert names(tmp_path) == {f"one_face_smile.{ending}" for ending in OUTPUTS}
    assert "one_face_smile.mp4: 1 person, 72 frames" in said.out
    assert said.err == "", "no progress bar where there is no terminal"


def test_outputs_can_be_left_out(fer: Run, clips: Path, tmp_path: Path) -> None:
    options = ("--no-video", "--no-report", "--no-plot", "--no-table", "--quiet")
    said = fer("run", clips / "one_face_smile.mp4", "--out", tmp_path, *options)
    assert said == Said(0, "", "")
    assert names(tmp_path) == {"one_face_smile.timeline.json"}


def test_a_still_image(fer: Run, portrait: Path, tmp_path: Path) -> None:
    said = fer("run", portrait, "--out", tmp_path / "out")
    assert said.code == 0
    assert names(tmp_path / "out") == {"portrait.frames.csv", "portrait.timeline.json", "portrait.annotated.png"}
    assert pd.read_csv(tmp_path / "out" / "portrait.frames.csv").label.tolist() == ["happy"]


def test_the_small_model(fer: Run, portrait: Path, tmp_path: Path) -> None:
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


def test_a_bad_file_is_reported_and_the_others_go_on(fer: Run, clips: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("buy milk")
    (tmp_path / "empty.mp4").touch()
    said = fer(
        "run", text, tmp_path / "empty.mp4", clips / "one_face_smile.mp4", "--out", tmp_path / "out", "--no-video"
    )
    assert said.code == 3
    assert "notes.mp4" in said.err
    assert "empty.mp4" in said.err
    assert "one_face_smile.mp4: 1 person" in said.out
    assert {name.partition(".")[0] for name in names(tmp_path / "out")} == {"one_face_smile"}


def test_nothing_to_do(fer: Run, tmp_path: Path) -> None:
    said = fer("run", tmp_path / "none.mp4", "--out", tmp_path / "out")
    assert said.code == 3
    assert "none.mp4" in said.err


def test_results_are_not_replaced_without_force(fer: Run, clips: Path, tmp_path: Path) -> None:
    command = ("run", clips / "one_face_smile.mp4", "--out", tmp_path, "--no-video", "--no-report", "--no-plot")
    kept = tmp_path / "one_face_smile.frames.csv"
    kept.write_text("mine")
    said = fer(*command)
    assert said.code == 5
    assert "--force" in said.err
    assert names(tmp_path) == {kept.name}
    assert kept.read_text() == "mine"
    assert fer(*command, "--force").code == 0
    assert len(pd.read_csv(kept)) == 72


def test_wrong_settings(fer: Run, clips: Path, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("detector:\n  knid: yunet\n")
    said = fer("run", clips / "one_face_smile.mp4", "--config", config, "--out", tmp_path)
    assert said.code == 2
    assert "my.yaml:2: detector.knid is no setting; did you mean kind?" in said.err
    assert fer("run", clips / "one_face_smile.mp4", "--fps", "-1", "--out", tmp_path).code == 2


def test_thumbnails_would_undo_redaction(fer: Run, clips: Path, tmp_path: Path) -> None:
    said = fer("run", clips / "one_face_smile.mp4", "--thumbnails", "--redact", "blur", "--out", tmp_path)
    assert said.code == 2
    assert "leave one of them out" in said.err


def test_people_to_redact_need_a_way_to_do_it(fer: Run, clips: Path, tmp_path: Path) -> None:
    said = fer("run", clips / "one_face_smile.mp4", "--redact-person", "1", "--out", tmp_path)
    assert said.code == 2
    assert "but not how: with redact (--redact) blur or black" in said.err
    assert names(tmp_path) == set()


def test_missing_weights_say_what_to_do(
    fer: Run, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_STREAM_CACHE", str(tmp_path / "cache"))
    said = fer("run", clips / "one_face_smile.mp4", "--detector", "yunet", "--out", tmp_path / "out")
    assert said.code == 4
    assert "fer-stream models pull" in said.err


def test_an_output_folder_that_cannot_be(fer: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = fer("run", clips / "one_face_smile.mp4", "--out", tmp_path / "file" / "out")
    assert said.code == 5
    assert "--out" in said.err


def test_a_full_disk(fer: Run, clips: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(16)
    said = fer("run", clips / "one_face_crying.mp4", "--out", disk)
    assert said.code == 5
    assert str(disk) in said.err
    assert "free some space" in said.err
    assert names(disk) == set()


def test_files_side_by_side_give_what_one_by_one_gives(fer: Run, clips: Path, tmp_path: Path) -> None:
    sources = [clips / "one_face_smile.mp4", clips / "two_faces.mp4", clips / "three_faces.mp4"]
    for jobs in ("1", "2"):
        assert (
            fer("run", *sources, "--workers", jobs, "--out", tmp_path / jobs, "--no-video", "--no-report").code == 0
        )
    assert names(tmp_path / "1") == names(tmp_path / "2")
    for table in (tmp_path / "1").glob("*.csv"):
        assert table.read_bytes() == (tmp_path / "2" / table.name).read_bytes()


def run_apart(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `fer-stream run --no-video` in a process of its own."""
    return subprocess.run([FER_STREAM, "run", "--no-video", *arguments], timeout=240, **options)


def test_a_name_that_cannot_be_printed_is_escaped(clips: Path, tmp_path: Path) -> None:
    sources = [tmp_path / os.fsdecode(b"caf\xe9.mp4"), tmp_path / "b.mp4"]
    for source in sources:
        shutil.copy(clips / "three_faces.mp4", source)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = run_apart(*sources, "--workers", "2", "--out", tmp_path / "out", capture_output=True, env=strict)
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9.mp4: 3 people" in done.stdout
    assert b"b.mp4: 3 people" in done.stdout


def test_where_nothing_can_be_said_the_results_are_written_all_the_same(clips: Path, tmp_path: Path) -> None:
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for source in sources:
        shutil.copy(clips / "three_faces.mp4", source)
    with Path("/dev/full").open("w") as full:
        done = run_apart(*sources, "--workers", "1", "--out", tmp_path / "out", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0
    told = done.stderr.decode()
    for source in sources:
        assert f"Cannot say what came of {source} on the standard output: No space left on device." in told
    assert "Traceback" not in told
    assert {"a.timeline.json", "b.timeline.json"} <= names(tmp_path / "out")


def test_it_ends_where_not_even_faults_can_be_told(clips: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.mp4", tmp_path / "out"
    broken.write_bytes(b"no video")
    with Path("/dev/full").open("w") as full:
        done = run_apart(broken, clips / "long_mostly_no_face.mp4", "--workers", "2", "--out", out, stderr=full)
    assert done.returncode != 0
    assert not list(out.glob(".*")), "nothing half-written is left"


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    """What a test starts hears SIGHUP, even if the tests do not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_under_nohup")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_when_stopped_the_outputs_are_whole(
    clips: Path, tmp_path: Path, number: signal.Signals, code: int, jobs: str
) -> None:
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4"][: int(jobs)]
    for source in sources:
        shutil.copy(clips / "long_mostly_no_face.mp4", source)
    out = tmp_path / "out"
    process = subprocess.Popen([FER_STREAM, "run", *sources, "--workers", jobs, "--out", out], stdout=subprocess.PIPE)
    wait_until(lambda: sum(path.stat().st_size > 2000 for path in out.glob(".partial-*.csv")) == len(sources))
    process.send_signal(number)
    assert process.wait(60) == code
    for source in sources:
        table = pd.read_csv(out / f"{source.stem}.frames.csv")
        document = json.loads((out / f"{source.stem}.timeline.json").read_text())
        assert document["analysed"]["stopped"] == "interrupted"
        assert 0 < len(table.frame_index.unique()) == document["analysed"]["frames"] < 1394
        with av.open(str(out / f"{source.stem}.annotated.mp4")) as video:
            assert sum(1 for _ in video.decode(video=0)) == document["analysed"]["frames"]
    assert not list(out.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGSEGV, "crashed the process that worked on it (SIGSEGV, exit code -11)"), (signal.SIGKILL, "memory")],
)
def test_a_file_that_crashes_its_process_is_named_and_the_others_go_on(
    clips: Path, tmp_path: Path, number: signal.Signals, said: str
) -> None:
    bad, good, out = tmp_path / "bad.mp4", tmp_path / "good.mp4", tmp_path / "out"
    shutil.copy(clips / "long_mostly_no_face.mp4", bad)
    shutil.copy(clips / "one_face_smile.mp4", good)
    command: list[str | Path] = [FER_STREAM, "run", bad, good, "--workers", "1", "--no-video", "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(path.stat().st_size > 2000 for path in out.glob(".partial-*.csv")))
    (partial,) = out.glob(".partial-*.csv")
    os.kill(int(partial.name.split("-")[1]), number)
    told, faults = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "good.mp4: 1 person, 72 frames" in told
    (fault,) = faults.splitlines()
    assert str(bad) in fault
    assert said in fault
    assert {name.partition(".")[0] for name in names(out)} == {"good"}, "nothing half-written is left"


def test_an_interrupt_while_the_workers_start(clips: Path, tmp_path: Path) -> None:
    """Ctrl-C in a terminal goes to every process at once."""
    sources = [tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4"]
    for source in sources:
        shutil.copy(clips / "long_mostly_no_face.mp4", source)
    command: list[str | Path] = [FER_STREAM, "run", *sources, "--workers", "2", "--out", tmp_path / "out"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: any(b"spawn_main" in _command_line(child) for child in children.read_text().split()))
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=240)[0] == ""
    assert process.returncode == 130
    assert names(tmp_path / "out") == set()


def test_with_nohup_it_outlives_its_terminal(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        ["nohup", FER_STREAM, "run", clips / "three_faces.mp4", clips / "two_faces.mp4", "--workers", "1", "--out", out],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: any(out.glob(".partial-*.csv")))
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(240) == 0
    assert {"three_faces.timeline.json", "two_faces.timeline.json"} <= names(out)


def _command_line(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it is gone
        return b""


def test_a_second_interrupt_ends_it_at_once(clips: Path, tmp_path: Path) -> None:
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
    os.kill(worker, signal.SIGSTOP)  # as if it hung
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert not Path(f"/proc/{worker}").exists()
    assert names(out) == set()


def watched(process: subprocess.Popen[bytes], screen: int) -> bytes:
    """Everything that `process` shows on its terminal."""
    shown = b""
    try:
        while chunk := os.read(screen, 4096):
            shown += chunk
    except OSError:  # the terminal is gone when the process is
        pass
    os.close(screen)
    assert process.wait(60) == 0, shown
    return shown


@pytest.mark.parametrize("options", [(), ("--fps", "5")])
def test_a_terminal_sees_progress_and_a_file_the_results(
    clips: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    master, slave = pty.openpty()
    command: list[str | Path] = [FER_STREAM, "run", clips / "one_face_crying.mp4", "--out", tmp_path, "--no-video"]
    with (tmp_path / "said.txt").open("wb") as file:
        terminal = {**os.environ, "TERM": "xterm"}
        process = subprocess.Popen([*command, *options], stderr=slave, stdout=file, env=terminal)
    os.close(slave)
    shown = watched(process, master)
    assert b"one_face_crying.mp4" in shown
    assert re.search(rb"[1-9]\d* fps", shown)
    assert max(map(int, re.findall(rb"(\d+)%", shown))) == 100
    assert "one_face_crying.mp4: 1 person" in (tmp_path / "said.txt").read_text()


def test_progress_and_results_share_a_terminal(clips: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command: list[str | Path] = [FER_STREAM, "run", clips / "three_faces.mp4", "--out", tmp_path, "--no-video"]
    process = subprocess.Popen(command, stderr=slave, stdout=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    assert b"three_faces.mp4: 3 people" in watched(process, master)


def test_the_api_needs_no_main_thread_or_folder(clips: Path) -> None:
    code = "from fer_stream import analyze; print(len(analyze({!r}).timelines))".format(str(clips / "two_faces.mp4"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_live_settings_to_start_from(fer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "live.yaml"
    said = fer("init", path)
    assert said.code == 0
    assert f"fer-stream validate {path}" in said.out
    shipped = Path(__file__).resolve().parents[2] / "configs" / "live.yaml"
    assert path.read_text() == shipped.read_text()
    monkeypatch.delenv("CAMERA_PASSWORD", raising=False)
    said = fer("validate", path)
    assert said.code == 2
    assert "sources.front-door.url needs the environment variable CAMERA_PASSWORD, which is not set." in said.err
    monkeypatch.setenv("CAMERA_PASSWORD", "abc")
    assert fer("validate", path) == Said(0, f"{path} is valid: 2 sources (front-door, back-yard).\n", "")


def test_init_replaces_nothing_unless_told_to(fer: Run, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text("mine")
    said = fer("init", path)
    assert said.code == 5
    assert "--force" in said.err
    assert path.read_text() == "mine"
    assert fer("init", path, "--force").code == 0
    assert path.read_text() != "mine"
    assert fer("init", tmp_path / "none" / "live.yaml").code == 5


def test_validate_tells_every_fault(fer: Run, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text("sources:\n  hall:\n    url: rtps://me:Canary7@cam\n    fsp: 5\nlog: {level: loud}\n")
    said = fer("validate", path)
    assert (said.code, said.out) == (2, "")
    assert [line.partition("live.yaml:")[2].split(":")[0] for line in said.err.splitlines()] == ["3", "4", "5"]
    assert "Canary7" not in said.err
    path.write_text("log: {level: debug}\n")
    assert fer("validate", path).out == f"{path} is valid: 0 sources (none yet).\n"


def test_the_schema_is_json(fer: Run) -> None:
    said = fer("schema")
    assert said.code == 0
    assert "sources" in json.loads(said.out)["properties"]
