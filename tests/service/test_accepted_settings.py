"""Processes of `serve` restart with the settings that it accepted, whatever the configuration file contains."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from fer_stream.config.live import LiveSettings
from fer_stream.config.reload import (
    SETTINGS_VARIABLE,
    AcceptedSettings,
    keep_until_restart,
    load_settings,
)
from fer_stream.errors import ConfigError
from tests.service.conftest import PROC, secret_forms

if TYPE_CHECKING:
    from tests.service.conftest import Service


def settings(**groups: Any) -> LiveSettings:
    return LiveSettings.model_validate(groups)


EVERY_KIND_OF_VALUE: dict[str, Any] = {
    "sources": {"door": {"url": "rtsp://viewer:p%40ss@cam/1", "ignore_zones": [[0, 0, 1, 0.5]], "fps": 5}},
    "detector": {"input_size_px": 640},
    "queue": {"url": "rediss://host:6379/0", "password": "sécret", "tls": {"ca": "/etc/ca.pem"}, "shards": 3},
    "model": {"class_bias": {"sad": -0.5}},
    "web": {"previews": "off", "token": "0123456789abcdef", "trusted_proxies": ["10.0.0.0/8"]},
    "recordings": {"dir": "~/files", "retention_days": None},
}


def test_processes_read_what_was_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = settings(**EVERY_KIND_OF_VALUE), settings()
    accepted = AcceptedSettings(first)
    monkeypatch.setenv(SETTINGS_VARIABLE, str(accepted.fd))
    assert load_settings(tmp_path / "missing.yaml") == first
    accepted.replace(second)
    assert load_settings(tmp_path / "missing.yaml") == second
    accepted.close()
    monkeypatch.delenv(SETTINGS_VARIABLE)
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(tmp_path / "missing.yaml")


def test_only_sources_and_their_groups_change_before_a_restart() -> None:
    current = settings(queue={"shards": 2}, detector={"input_size_px": 320})
    new = settings(queue={"shards": 4}, detector={"input_size_px": 640}, sources={"door": {"url": "rtsp://cam/1"}})
    effective = keep_until_restart(current, new)
    assert (effective.queue.shards, effective.detector.input_size_px) == (2, 640)
    assert effective.sources == new.sources


def test_sources_that_need_a_restart_are_rejected(tmp_path: Path) -> None:
    recording = settings(sources={"door": {"url": "rtsp://cam/1", "record": True}}, recordings={"dir": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"after a restart of serve: .*recordings\.dir"):
        keep_until_restart(settings(), recording)


def test_restarted_processes_ignore_the_file_until_it_is_reloaded(
    service: Callable[..., Service], clips: Path, canary: str, free_port: Callable[[], int]
) -> None:
    clip = {"url": str(clips / "long_mostly_no_face.mp4"), "playback": "realtime"}
    absent = {"url": f"rtsp://viewer:{quote(canary, safe='')}@127.0.0.1:{free_port()}/x"}
    live = service(sources={"clip": clip, "absent": absent})
    serve = live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id("clip"))
    accepted = live.config.read_text()

    def kill(role: str) -> None:
        """Kill the process of a role, and wait until its replacement publishes results."""
        starts = live.logged("worker_ready", role=role)
        live.send_signal(role, signal.SIGKILL)
        live.wait(lambda: live.logged("worker_ready", role=role) > starts)
        live.wait_for_results("clip")

    live.config.write_text(accepted[: len(accepted) // 2] + "\n  {half-saved")
    for role in ("capture", "timeline"):
        kill(role)
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.logged("configuration_reload_failed", role="serve"))
    kill("capture")

    # These shards would make every process exit, because the queue server is set up for one.
    live.configure(queue={"shards": 2})
    kill("timeline")
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.logged("restart_required", role="serve"))
    for role in ("capture", "timeline", "classify"):
        kill(role)
    assert live.logged("configuration_reload_failed") == 1

    live.configure(sources={"other": clip})
    serve.send_signal(signal.SIGHUP)
    live.wait(lambda: live.stream_id("other"))
    session = live.stream_id("other")
    live.send_signal("capture", signal.SIGKILL)
    live.wait(lambda: live.stream_id("other") != session)

    (capture,) = live.children("capture")
    exposed = [(PROC / str(capture) / name).read_bytes() for name in ("environ", "cmdline")]
    exposed += [path.read_bytes() for path in live.state_dir.rglob("*") if path.is_file()]
    assert [form for form in secret_forms(canary) if any(form in text for text in exposed)] == []
    assert live.stop() == [0]
