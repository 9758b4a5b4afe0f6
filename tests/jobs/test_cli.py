"""The commands `fer-stream submit` and `fer-stream jobs`."""

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
    from tests.jobs.conftest import JobsService

FIRST_WORD = re.compile(r"^\w+", re.MULTILINE)


class Output(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Output]


@pytest.fixture
def fer(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def run(*arguments: str | Path) -> Output:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        result = capfd.readouterr()
        return Output(end.value.code if isinstance(end.value.code, int) else 0, result.out, result.err)

    return run


@pytest.fixture(scope="module")
def idle_service(make_service: Callable[..., JobsService]) -> JobsService:
    """A store without a worker, shared by the tests of this module."""
    return make_service()


@pytest.mark.parametrize("command", ["submit", "jobs"])
def test_help_has_examples_and_exit_codes(fer: Run, command: str) -> None:
    result = fer(command, "--help")
    assert result.code == 0
    assert "Examples:" in result.out
    assert "6  the service is not running" in result.out


def test_commands_without_a_service_suggest_to_start_it(fer: Run, clips: Path, tmp_path: Path) -> None:
    config = tmp_path / "live.yaml"
    config.write_text(f"state_dir: {tmp_path / 'state'}")
    for arguments in (["submit", clips / "no_face.mp4"], ["jobs"], ["jobs", "show", "abc"]):
        result = fer(*arguments, "--config", config)
        assert result.code == 6
        assert "start `fer-stream serve` first" in result.err


def test_submit_wait_show_and_delete(shared_service: JobsService, fer: Run, clips: Path, tmp_path: Path) -> None:
    settings = tmp_path / "quick.yaml"
    settings.write_text("fps: 5\noutputs: {video: false, report: false, plot: false}")
    config = ("--config", shared_service.config)
    result = fer("submit", clips / "no_face.mp4", clips / "two_faces.mp4", "--settings", settings, "--ids", *config)
    assert result.code == 0, result.err
    first, second = result.out.split()
    result = fer("jobs", "wait", first, second, *config)
    assert result.code == 0, result.err
    assert result.out.count("done: ") == 2
    folder = shared_service.live.jobs_output_dir
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{name}.{ending}" for name in ("no_face", "two_faces") for ending in ("frames.csv", "timeline.json")
    ]
    result = fer("submit", clips / "no_face.mp4", "--settings", settings, *config)
    assert result.code == 5
    assert "Use --existing replace" in result.err
    (document,) = json.loads(
        fer("submit", clips / "no_face.mp4", "--settings", settings, "--existing", "replace", "--json", *config).out
    )
    assert (document["state"], document["name"], document["out"]) == ("queued", "no_face", str(folder))
    assert fer("jobs", "wait", document["job_id"], *config).code == 0
    lines = fer("jobs", *config).out.splitlines()
    assert lines[0].split() == ["id", "state", "progress", "file", "age", "result", "/", "error"]
    assert lines[1].split()[:4] == [document["job_id"], "done", "100%", "no_face.mp4"]
    assert f"output       {folder / 'two_faces.timeline.json'}" in fer("jobs", "show", second, *config).out
    assert fer("jobs", "delete", second, "--outputs", *config).code == 0
    assert {path.stem for path in folder.glob("*.json")} == {"no_face.timeline"}


def test_results_of_a_submitted_folder_mirror_its_structure(
    idle_service: JobsService, fer: Run, clips: Path, tmp_path: Path
) -> None:
    for name in ("mon/video.mp4", "tue/video.mp4", "tue/notes.txt"):
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((clips / "no_face.mp4").read_bytes())
    result = fer("submit", tmp_path / "d", "--out", tmp_path / "o", "--json", "--config", idle_service.config)
    assert result.code == 0, result.err
    assert "skipped 1 file (1 .txt)" in result.err
    documents = json.loads(result.out)
    assert [(document["out"], document["name"]) for document in documents] == [
        (str(tmp_path / "o" / day), "video") for day in ("mon", "tue")
    ]
    for document in documents:
        idle_service.jobs.cancel(document["job_id"])


def test_no_file_is_submitted_if_one_is_refused(
    idle_service: JobsService, fer: Run, clips: Path, tmp_path: Path
) -> None:
    before = {info.job_id for info in idle_service.jobs.list()}
    (tmp_path / "two_faces.timeline.json").write_text("other content")
    files = [clips / f"{name}.mp4" for name in ("no_face", "one_face_smile", "two_faces", "three_faces")]
    result = fer("submit", *files, "--out", tmp_path, "--ids", "--config", idle_service.config)
    assert (result.code, result.out) == (5, "")
    assert "two_faces.timeline.json exists" in result.err
    reserving = idle_service.submit(clips / "no_face.mp4")
    result = fer(
        "submit",
        files[1],
        files[0],
        "--out",
        idle_service.out,
        "--existing",
        "replace",
        "--config",
        idle_service.config,
    )
    assert (result.code, result.out) == (5, "")
    assert f"Job {reserving} will write" in result.err
    assert {info.job_id for info in idle_service.jobs.list()} - before == {reserving}
    idle_service.jobs.cancel(reserving)


@pytest.mark.parametrize("form", ["", "--ids", "--json"])
def test_submitted_jobs_are_printed_even_if_a_later_file_is_refused(
    idle_service: JobsService, tmp_path: Path, form: str
) -> None:
    """The results of the last file appear after the check, while the command is suspended."""
    out = tmp_path / "out"
    files = [tmp_path / f"{number}.mp4" for number in range(200)]
    for path in files:
        path.write_bytes(b"not decoded by this test")
    before = {info.job_id for info in idle_service.jobs.list()}
    arguments: list[str | Path] = [*files, "--out", out, "--config", idle_service.config, *form.split()]
    with subprocess.Popen(
        [sys.executable, "-m", "fer_stream.cli", "submit", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        while idle_service.client.zcard(IDS) == len(before):
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        (out / "199.frames.csv").write_text("other content")
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate()
    assert process.returncode == 5
    job_ids = [job["job_id"] for job in json.loads(printed)] if form == "--json" else re.findall(FIRST_WORD, printed)
    assert len(job_ids) == len(files) - 1
    assert set(job_ids) == {info.job_id for info in idle_service.jobs.list()} - before


def test_failed_job_exits_with_an_error(shared_service: JobsService, fer: Run, tmp_path: Path) -> None:
    config = ("--config", shared_service.config)
    (tmp_path / "bad.mp4").write_text("not a video")
    job_id = fer("submit", tmp_path / "bad.mp4", "--ids", *config).out.strip()
    result = fer("jobs", "wait", job_id, *config)
    assert result.code == 7
    assert "bad.mp4" in result.out
    assert "1 of 1 jobs failed" in result.err
    assert json.loads(fer("jobs", "show", job_id, "--json", *config).out)["state"] == "failed"
    assert "bad.mp4" in fer("jobs", *config).out
    result = fer("jobs", "cancel", job_id, *config)
    assert (result.code, result.out) == (7, "")
    assert "is already failed" in result.err
    assert "queued again" in fer("jobs", "retry", job_id, *config).out
    result = fer("jobs", "show", "unknown", *config)
    assert result.code == 7
    assert "Job unknown does not exist" in result.err
