"""`fer-stream serve` on files: what comes out is what `fer-stream run` says of the same file."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.service.conftest import Service, Truth

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("capture", "classify", "timeline")


def test_files_through_serve_are_files_through_run(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    names = ["two_faces", "leave_and_return", "no_face"]
    live = service(
        sources={name: {"url": str(clips / f"{name}.mp4"), "playback": "fast"} for name in names},
        workers={"classifiers": 2},
    )
    truths = {name: truth(name) for name in names}
    live.serve()
    live.wait_for_servers()
    for name in names:
        live.wait(lambda name=name: truths[name].is_told_by(live, name))  # type: ignore[misc]
    for name in names:
        truths[name].check(live, name)
    assert live.stop() == [0]


def test_a_sighup_at_the_very_start_ends_no_process(service: Callable[..., Service], clips: Path) -> None:
    live = service(sources={"clip": {"url": str(clips / "two_faces.mp4"), "playback": "realtime"}})
    serve = live.serve()
    live.wait(lambda: live.children("timeline"))
    live.configure(sources={"other": {"url": str(clips / "no_face.mp4"), "playback": "realtime"}})
    serve.send_signal(signal.SIGHUP)
    live.wait_for_servers()
    live.wait(lambda: live.stream_id("other"))
    assert "ended with code" not in live.said()
    assert live.stop() == [0]


@pytest.mark.parametrize("role", ROLES)
def test_workers_run_as_modules(role: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"workers.{role}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--config" in done.stdout


def test_single_workers_on_a_server_of_others(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path, redis_url: str, canary: str
) -> None:
    expected = truth("two_faces")
    live = service(
        sources={"clip": {"url": str(clips / "two_faces.mp4"), "playback": "fast"}},
        queue={"url": f"{redis_url}/0"},
        store={"url": f"{redis_url}/1"},
    )
    for role in ROLES:
        live.worker(role)
    live.wait(lambda: expected.is_told_by(live, "clip"))
    expected.check(live, "clip")
    assert live.stop() == [0, 0, 0]
    assert canary not in live.said()


def test_serve_ends_in_time_when_its_queue_is_gone(
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
    live.wait(lambda: "keeping the timelines" in live.said())
    live.wait(lambda: live.stream_id("clip"))
    server.kill()
    server.wait()
    live.wait(lambda: "is away" in live.said())
    assert live.stop(within_s=10) == [0]
    assert not any(live.children(role) for role in ROLES)
