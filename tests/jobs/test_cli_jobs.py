"""`fer-stream submit` and `fer-stream jobs`, as a person or a script meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fer_stream.cli import main

if TYPE_CHECKING:
    from tests.jobs.conftest import Desk


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
    folder = busy_desk.live.jobs_folder
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
