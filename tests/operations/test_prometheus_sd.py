"""Metrics ports of `serve` and its target list for Prometheus."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_stream.config.live import MetricsSettings
from fer_stream.errors import ConfigError, OutputError
from fer_stream.service.supervisor import check_ports, write_targets

ROLES = ["capture", "classify", "classify", "timeline"]


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")]
)
def test_targets_are_listed_while_the_service_runs(tmp_path: Path, host: str, shown: str) -> None:
    path = tmp_path / "targets" / "serve.json"
    with write_targets(MetricsSettings(port=9464, host=host, targets=path), ROLES):
        assert json.loads(path.read_text()) == [
            {"targets": [f"{shown}:{9464 + number}"], "labels": {"role": role}} for number, role in enumerate(ROLES)
        ]
        assert path.stat().st_mode & 0o044 == 0o044, "the user of Prometheus must be able to read the file"
    assert list(path.parent.iterdir()) == []


def test_no_file_is_written_without_metrics_or_path(tmp_path: Path) -> None:
    path = tmp_path / "serve.json"
    for settings in (MetricsSettings(port=None, targets=path), MetricsSettings()):
        with write_targets(settings, ROLES):
            assert list(tmp_path.iterdir()) == []


def test_unwritable_target_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = MetricsSettings(targets=tmp_path / "file" / "serve.json")
    with (
        pytest.raises(OutputError, match=r"metrics.targets: cannot write .*serve.json: "),
        write_targets(settings, []),
    ):
        pass


def test_port_in_use_is_reported_before_the_start(free_port: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        used: int = other.getsockname()[1]
        settings = MetricsSettings(port=used - 2)
        check_ports(settings, 2)
        with pytest.raises(ConfigError, match=f"3 processes need the ports {used - 2} to {used}, and {used} is in"):
            check_ports(settings, 3)
        check_ports(MetricsSettings(port=None), 3)
