"""Messages about missing requirements that pip cannot install."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def preflight() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "scripts" / "preflight.py"
    spec = importlib.util.spec_from_file_location("preflight", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_machine_passes(preflight: ModuleType) -> None:
    assert preflight.main() == 0


def test_a_missing_library_is_reported_with_its_package(
    preflight: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "LIBRARIES", {"libnowhere.so.1": "libnowhere1", "libc.so.6": "libc6"})
    assert preflight.main() == 1
    assert capsys.readouterr().out.endswith("sudo apt-get install libnowhere1\n")


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_an_unsupported_python_is_rejected(
    preflight: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    version: tuple[int, int, int],
) -> None:
    monkeypatch.setattr(preflight.sys, "version_info", version)
    assert preflight.main() == 1
    assert "3.11, 3.12 or 3.13" in capsys.readouterr().out
