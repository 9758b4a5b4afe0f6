"""What the docs say is so: commands run, Python runs, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "models" / "README.md",
        *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip

# `models pull` needs the network and is tested against a local server; `serve` never ends, tests/service runs it;
# `submit` and `jobs` need a service that runs, as in tests/jobs; `make` is what runs these tests.
ELSEWHERE = (
    "make", "sudo", "export", "fer-stream models pull", "fer-stream serve", "fer-stream submit", "fer-stream jobs",
)  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


@pytest.fixture(scope="module")
def desk(clips: Path, portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("talk.mp4", "talks/one.mp4", "more/two.mkv"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(clips / "one_face_smile.mp4", folder / name)
    Image.open(portrait).save(folder / "photo.jpg")
    shutil.copy(ROOT / "configs" / "file.yaml", folder / "my.yaml")
    return folder


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_runs(command: str, desk: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "fer-stream"
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=desk,
        env={**os.environ, "CAMERA_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_readme_runs(desk: Path) -> None:
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block], cwd=desk, capture_output=True, text=True, check=True)
        assert "happy" in done.stdout


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f"make {target}\n" in script for target in ("demo", "check", "test"))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_module_has_a_place_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "fer_stream").iterdir():
        if path.name.startswith("_") or path.suffix not in {"", ".py"}:
            continue
        assert (f"{path.name}/" if path.is_dir() else path.name) in text, path.name
