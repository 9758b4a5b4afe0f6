"""`fer-stream serve` on files gives the same results as `fer-stream run`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fer_stream.service import supervisor
from fer_stream.service.process import prepare_state_dir

if TYPE_CHECKING:
    from tests.service.conftest import ExpectedResults, Service

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("capture", "classify", "timeline")


def test_serve_gives_the_results_of_run(
    service: Callable[..., Service], expected_results: Callable[[str], ExpectedResults], clips: Path
) -> None:
    names = ["two_faces", "leave_and_return", "no_face"]
    live = service(
        sources={name: {"url": str(clips / f"{name}.mp4"), "playback": "fast"} for name in names},
        workers={"classifiers": 2},
    )
    expected = {name: expected_results(name) for name in names}
    live.serve()
    live.wait_for_servers()
    for name in names:
        live.wait(lambda name=name: expected[name].is_complete_in(live, name))  # type: ignore[misc]
    for name in names:
        expected[name].assert_equal_in(live, name)
    assert live.stop() == [0]


def test_sighup_during_the_start_kills_no_process(service: Callable[..., Service], clips: Path) -> None:
    live = service(sources={"clip": {"url": str(clips / "two_faces.mp4"), "playback": "realtime"}})
    serve = live.serve()
    live.wait(lambda: live.children("timeline"))
    live.configure(sources={"other": {"url": str(clips / "no_face.mp4"), "playback": "realtime"}})
    serve.send_signal(signal.SIGHUP)
    live.wait_for_servers()
    live.wait(lambda: live.stream_id("other"))
    assert live.logged("process_exited") == 0
    assert live.stop() == [0]


@pytest.mark.parametrize("role", ROLES)
def test_workers_run_as_modules(role: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"workers.{role}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--config" in result.stdout


def test_single_workers_with_external_servers(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
    redis_url: str,
    canary: str,
) -> None:
    expected = expected_results("two_faces")
    live = service(
        sources={"clip": {"url": str(clips / "two_faces.mp4"), "playback": "fast"}},
        queue={"url": f"{redis_url}/0"},
        store={"url": f"{redis_url}/1"},
    )
    for role in ROLES:
        live.worker(role)
    live.wait(lambda: expected.is_complete_in(live, "clip"))
    expected.assert_equal_in(live, "clip")
    assert live.stop() == [0, 0, 0]
    assert canary not in live.log_text()


def test_serve_stops_cleanly_without_its_queue(
    service: Callable[..., Service],
    clips: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    port = free_port()
    server = redis_server(tmp_path, port)
    live = service(
        sources={"clip": {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}},
        queue={"url": f"redis://127.0.0.1:{port}"},
    )
    live.serve()
    live.wait(lambda: live.logged("worker_ready", role="timeline"))
    live.wait(lambda: live.stream_id("clip"))
    server.kill()
    server.wait()
    live.wait(lambda: live.logged("redis_unreachable"))
    assert live.stop() == [0]
    assert not any(live.children(role) for role in ROLES)


def test_shutdown_timeouts_add_up_to_less_than_ten_seconds() -> None:
    stages = (
        supervisor._CAPTURE_TIMEOUT_S,
        supervisor._DRAIN_TIMEOUT_S,
        supervisor._WORKER_TIMEOUT_S,
        supervisor._WORKER_TIMEOUT_S,
    )
    assert sum(stages) < 10


def test_state_dir_is_accessible_to_its_owner_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for state_dir in (tmp_path / "new" / "state", tmp_path / "existing"):
        (tmp_path / "existing").mkdir(mode=0o755, exist_ok=True)
        prepare_state_dir(state_dir)
        assert state_dir.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    prepare_state_dir(tmp_path / "file" / "state")
    assert "state_dir_unusable" in caplog.text
