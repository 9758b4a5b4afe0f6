"""Limits of the process: named before libraries fail or deadlock, in real processes with such limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest

from fer_stream.errors import ResourceLimitReached
from fer_stream.resource_limits import MIN_ADDRESS_SPACE, cores, describe_shortage, ensure_limits


def run_with_limit(command: str, clip: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run an analysis in a shell after `command`, which sets a limit."""
    program = (
        f'{command} && exec "{sys.executable}" -m fer_stream.cli run "{clip}" --out "{out}" --detector blazeface'
    )
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("limit_kb", [500_000, 1_000_000, MIN_ADDRESS_SPACE // 1024 - 1])
def test_small_address_space_is_named_with_its_cure(clips: Path, tmp_path: Path, limit_kb: int) -> None:
    done = run_with_limit(f"ulimit -v {limit_kb}", clips / "one_face_smile.mp4", tmp_path)
    assert done.returncode == ResourceLimitReached.exit_code, done.stderr
    assert "address space" in done.stderr
    assert "ulimit -v unlimited" in done.stderr
    assert "Traceback" not in done.stderr


def test_sufficient_address_space_is_accepted(clips: Path, tmp_path: Path) -> None:
    done = run_with_limit("ulimit -v 4000000", clips / "one_face_smile.mp4", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_are_counted_before_they_are_needed() -> None:
    """The limit of a user does not apply to root, so a process has too little address space for their stacks."""
    program = (
        "import resource; from pathlib import Path\n"
        "from fer_stream import resource_limits\n"
        "size = int(Path('/proc/self/statm').read_text().split()[0]) * 4096 + 6 * (8 << 20)\n"
        "resource_limits.MIN_ADDRESS_SPACE = 0\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, 8 << 20))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "resource_limits.ensure_limits(2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "more threads; an analysis needs 16" in done.stderr.splitlines()[-1]


def test_this_process_has_enough() -> None:
    ensure_limits(cores())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        BlockingIOError(11, "Resource temporarily unavailable"),
        av.error.BlockingIOError(11, "Resource temporarily unavailable"),
    ],
)
def test_errors_of_exhausted_limits_are_recognised(error: Exception) -> None:
    assert "limit of memory or threads" in str(describe_shortage(error))


def test_other_errors_are_not_attributed_to_limits() -> None:
    assert describe_shortage(ValueError("x")) is None
    assert describe_shortage(av.error.InvalidDataError(1, "Invalid data")) is None
