"""Contents of the wheel, and its use from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True
    )
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_contains_one_package_and_all_data_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fer_stream"}
    for folder in ("models", "configs"):
        expected = {f"fer_stream/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert expected <= set(names)
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "fer_stream").rglob("*")
        if path.is_file() and path.suffix in {".py", ".lua", ".html", ".css", ".js", ".svg", ".typed"}
    }
    assert sources <= set(names)


def test_installed_wheel_works_from_any_folder(wheel: Path, portrait: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = "import fer_stream, fer_stream.cli; assert 'site' in fer_stream.__file__; fer_stream.cli.main()"
    subprocess.run(
        [sys.executable, "-c", code, "run", str(portrait), "--out", "results"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
    )
    assert (tmp_path / "results" / "portrait.timeline.json").exists()
