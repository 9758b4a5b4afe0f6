"""configs/systemd/fer-stream.service: valid, isolated, and with the paths that the documentation names."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
UNIT = ROOT / "configs" / "systemd" / "fer-stream.service"
# `systemd-analyze security` rates from 0 (isolated) to 10; it calls values below 2 OK or safe.
MAX_EXPOSURE = 1.5


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    return found


def verify(analyze: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Verify a unit whose program exists on this machine."""
    (folder / UNIT.name).write_text(text.replace("/opt/fer-stream/bin/fer-stream", "/bin/true"))
    return subprocess.run([analyze, "verify", folder / UNIT.name], capture_output=True, text=True, check=False)


def test_unit_is_valid(analyze: str, tmp_path: Path) -> None:
    completed = verify(analyze, UNIT.read_text(), tmp_path)
    assert (completed.returncode, completed.stderr) == (0, "")


def test_verification_reports_an_unknown_option(analyze: str, tmp_path: Path) -> None:
    completed = verify(analyze, UNIT.read_text().replace("ProtectHome=", "ProtectHouse="), tmp_path)
    assert "ProtectHouse" in completed.stderr


def test_service_is_isolated(analyze: str) -> None:
    options = ["--offline=true", "--no-pager", f"--threshold={round(MAX_EXPOSURE * 10)}"]
    completed = subprocess.run([analyze, "security", *options, UNIT], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def test_stop_waits_for_the_shutdown_of_serve() -> None:
    options = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    # `serve` stops its processes within 10 s after SIGTERM and reloads its settings on SIGHUP.
    assert int(options["TimeoutStopSec"]) > 10
    assert options["KillMode"] == "mixed"
    assert "HUP" in options["ExecReload"]
    assert options["ExecStart"].split()[1:] == ["serve", "/etc/fer-stream/live.yaml"]
