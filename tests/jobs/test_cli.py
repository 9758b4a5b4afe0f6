"""`fer-stream submit` and `fer-stream jobs`, as a person or a script meets them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fer_stream.cli import main
from fer_stream.jobs.record import IDS

if TYPE_CHECKING:
    from tests.jobs.conftest import Desk

FIRST_WORD = re.compile(r"^\w+", re.MULTILINE)


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def fer(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def run(*arguments: str | Path) -> Said:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return Said(end.value.code if isinstance(end.value.code, int) else 0, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def idle_desk(make_desk: Callable[..., Desk]) -> Desk:
    """A store without a worker, which tests of this module share."""
    return make_desk()


@pytest.mark.parametrize("command", ["submit", "jobs"])
def test_help_has_examples_and_exit_codes(fer: Run, command: str) -> None:
    said = fer(command, "--help")
    assert said.code == 0
    assert "Examples:" in said.out
    assert "6  the service does not run" in said.out


def test_without_a_service_the_cure_is_named(fer: Run, clips: Path, tmp_path: Path) -> None:
    config = tmp_path / "live.yaml"
    config.write_text(f"state_dir: {tmp_path / 'state'}")
    for words in (["submit", clips / "no_face.mp4"], ["jobs"], ["jobs", "show", "abc"]):
        said = fer(*words, "--config", config)
        assert said.code == 6
        assert "start `fer-stream serve` first" in said.err


def test_from_submit_to_results(busy_desk: Desk, fer: Run, clips: Path, tmp_path: Path) -> None:
    how = tmp_path / "quick.yaml"
    how.write_text("fps: 5\noutputs: {video: false, report: false, picture: false}")
    config = ("--config", busy_desk.config)
    said = fer("submit", clips / "no_face.mp4", clips / "two_faces.mp4", "--settings", how, "--ids", *config)
    assert said.code == 0, said.err
    first, second = said.out.split()
    said = fer("jobs", "wait", first, second, *config)
    assert said.code == 0, said.err
    assert said.out.count("done: ") == 2
    folder = busy_desk.live.jobs_output_dir
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{ending}" for name in ("no_face", "two_faces") for ending in ("frames.csv", "timeline.json")
    ]
    said = fer("submit", clips / "no_face.mp4", "--settings", how, *config)
    assert said.code == 5
    assert "Use --force" in said.err
    (document,) = json.loads(
        fer("submit", clips / "no_face.mp4", "--settings", how, "--force", "--json", *config).out
    )
    assert (document["state"], document["name"], document["out"]) == ("queued", "no_face", str(folder))
    assert fer("jobs", "wait", document["job_id"], *config).code == 0
    lines = fer("jobs", *config).out.splitlines()
    assert lines[0].split() == ["id", "state", "part", "file", "age", "results,", "or", "why", "not"]
    assert lines[1].split()[:4] == [document["job_id"], "done", "100%", "no_face.mp4"]
    assert f"written      {folder / 'two_faces.timeline.json'}" in fer("jobs", "show", second, *config).out
    assert fer("jobs", "delete", second, "--outputs", *config).code == 0
    assert {path.stem for path in folder.glob("*.json")} == {"no_face.timeline"}


def test_where_one_file_is_refused_none_is_submitted(idle_desk: Desk, fer: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "two_faces.timeline.json").write_text("theirs")
    files = [clips / f"{name}.mp4" for name in ("no_face", "one_face_smile", "two_faces", "three_faces")]
    said = fer("submit", *files, "--out", tmp_path, "--ids", "--config", idle_desk.config)
    assert (said.code, said.out) == (5, "")
    assert "two_faces.timeline.json exists" in said.err
    held = idle_desk.submit(clips / "no_face.mp4")
    said = fer("submit", files[1], files[0], "--out", idle_desk.out, "--force", "--config", idle_desk.config)
    assert (said.code, said.out) == (5, "")
    assert f"The job {held} will write" in said.err
    assert [info.job_id for info in idle_desk.jobs.list()] == [held]
    idle_desk.jobs.cancel(held)


@pytest.mark.parametrize("form", ["", "--ids", "--json"])
def test_what_was_submitted_is_told_also_where_a_later_file_is_refused(
    idle_desk: Desk, tmp_path: Path, form: str
) -> None:
    """One whose results came after the first look, while the command was stopped in the midst."""
    out = tmp_path / "out"
    files = [tmp_path / f"{number}.mp4" for number in range(200)]
    for path in files:
        path.write_bytes(b"not looked at before it is done")
    known = {info.job_id for info in idle_desk.jobs.list()}
    words: list[str | Path] = [*files, "--out", out, "--config", idle_desk.config, *form.split()]
    with subprocess.Popen(
        [sys.executable, "-m", "fer_stream.cli", "submit", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        while idle_desk.client.zcard(IDS) == len(known):
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        (out / "199.frames.csv").write_text("theirs")
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate()
    assert process.returncode == 5
    told = [job["job_id"] for job in json.loads(printed)] if form == "--json" else re.findall(FIRST_WORD, printed)
    assert len(told) == len(files) - 1
    assert set(told) == {info.job_id for info in idle_desk.jobs.list()} - known


def test_a_bad_end_is_an_error(busy_desk: Desk, fer: Run, tmp_path: Path) -> None:
    config = ("--config", busy_desk.config)
    (tmp_path / "bad.mp4").write_text("no video")
    job_id = fer("submit", tmp_path / "bad.mp4", "--ids", *config).out.strip()
    said = fer("jobs", "wait", job_id, *config)
    assert said.code == 7
    assert "bad.mp4 is no video file" in said.out
    assert "1 of 1 did not end well" in said.err
    assert json.loads(fer("jobs", "show", job_id, "--json", *config).out)["state"] == "failed"
    assert "bad.mp4 is no video file" in fer("jobs", *config).out
    said = fer("jobs", "cancel", job_id, *config)
    assert (said.code, said.out) == (7, "")
    assert "is failed already" in said.err
    assert "on the queue again" in fer("jobs", "retry", job_id, *config).out
    said = fer("jobs", "show", "nobody", *config)
    assert said.code == 7
    assert "There is no job nobody" in said.err
