"""Recordings are analysed without calls that only POSIX systems have: on Windows as on Linux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Imported by every Python process, workers included, before anything else. The standard library and packages select
# their code by sys.platform, so what they need on this system remains.
HIDE = """
import multiprocessing.popen_spawn_posix, multiprocessing.resource_tracker, os, signal, subprocess, sys
SIGNALS = "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGSTOP SIGCONT"
for name in (SIGNALS + " pthread_sigmask pthread_kill sigwait sigtimedwait setitimer alarm").split():
    delattr(signal, name)
multiprocessing.resource_tracker._HAVE_SIGMASK = False
for name in "sched_getaffinity chown fchmod killpg pread posix_fallocate statvfs mkfifo nice".split():
    delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "syslog"):
    sys.modules[name] = None
"""


def python(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join(filter(None, (str(hidden), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("number", [1, 2])
def test_run_needs_no_posix_calls(number: int, portrait: Path, tmp_path: Path) -> None:
    """One file is analysed in the process itself, two in workers."""
    copies = [tmp_path / f"{index}{portrait.suffix}" for index in range(number)]
    for copy in copies:
        copy.write_bytes(portrait.read_bytes())
    result = python(tmp_path, "-m", "fer_stream.cli", "run", *copies, "--out", "out")
    assert result.returncode == 0, result.stderr
    for copy in copies:
        timeline = json.loads((tmp_path / "out" / f"{copy.stem}.timeline.json").read_text())
        assert len(timeline["people"]) == 1


def test_the_python_interface_needs_no_posix_calls(portrait: Path, tmp_path: Path) -> None:
    code = "import sys, fer_stream; print(len(fer_stream.analyze(sys.argv[1]).summary.people))"
    result = python(tmp_path, "-c", code, portrait)
    assert result.stdout == "1\n", result.stderr


def test_the_calls_are_hidden(tmp_path: Path) -> None:
    result = python(tmp_path, "-c", "import signal; print(hasattr(signal, 'SIGHUP')); import fcntl")
    assert result.stdout == "False\n"
    assert "ModuleNotFoundError" in result.stderr
