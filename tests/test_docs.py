"""Documentation: commands and Python examples run, links resolve, generated pages are current."""

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

from scripts import reference

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "models" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md"))]  # fmt: skip

# Commands tested elsewhere: `models pull` against a local server, `serve` in tests/service, `submit` and `jobs` in
# tests/jobs. `make` runs these tests.
ELSEWHERE = (
    "make", "sudo", "export", "pip", "fer-stream models pull", "fer-stream serve", "fer-stream submit",
    "fer-stream jobs",
)  # fmt: skip


PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs" / "tutorial").glob("*.md")))
}


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (name, block)
        for name, text in PAGES.items()
        for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    ]


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for _, block in blocks("bash") for line in block.splitlines()]
    return [line for line in dict.fromkeys(lines) if line and not line.startswith(ELSEWHERE)]


@pytest.fixture(scope="module")
def workspace(clips: Path, portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands use."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("talk.mp4", "talks/one.mp4", "more/two.mkv"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(clips / "one_face_smile.mp4", folder / name)
    Image.open(portrait).save(folder / "photo.jpg")
    shutil.copy(ROOT / "configs" / "file.yaml", folder / "my.yaml")
    return folder


@pytest.mark.parametrize("command", commands())
def test_documented_commands_run(command: str, workspace: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "fer-stream"
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=workspace,
        env={**os.environ, "CAMERA_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_documented_python_runs(page: str, code: str, workspace: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=workspace, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_ci_runs_the_documented_targets() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert all(f"make {target}" in script for target in ("demo", "check", "docs", "test"))


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_reference_pages_are_current() -> None:
    for name, text in reference.pages().items():
        page = reference.ROOT / name
        assert page.read_text(encoding="utf-8") == text, f"{name}: run `make docs`"


def test_the_architecture_page_lists_every_module() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    for path in (ROOT / "fer_stream").iterdir():
        if path.name.startswith("_") or path.suffix not in {"", ".py"}:
            continue
        assert (f"{path.name}/" if path.is_dir() else path.name) in text, path.name


def test_links_of_the_readme_are_absolute_because_package_indexes_show_it() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)|^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for link in (inline or definition for inline, definition in links):
        _, found, path = link.partition("/fer-stream/fer-stream/")
        assert found, link
        assert (ROOT / path.removeprefix("blob/").removeprefix("main/")).exists(), link
