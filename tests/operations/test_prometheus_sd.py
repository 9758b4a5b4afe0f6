"""Where `serve` says that its processes can be scraped."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_stream.config.live import MetricsSettings
from fer_stream.errors import ConfigError, OutputError
from fer_stream.service.prometheus_sd import check_ports, listed

ROLES = ["capture", "classify", "classify", "timeline"]


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")]
)
def test_processes_are_listed_while_they_run(tmp_path: Path, host: str, shown: str) -> None:
    path = tmp_path / "targets" / "serve.json"
    with listed(MetricsSettings(port=9464, host=host, targets=path), ROLES):
        assert json.loads(path.read_text()) == [
            {"targets": [f"{shown}:{9464 + number}"], "labels": {"role": role}} for number, role in enumerate(ROLES)
        ]
        assert path.stat().st_mode & 0o044 == 0o044, "the user of Prometheus must be able to read it"
    assert list(path.parent.iterdir()) == []


def test_nothing_is_listed_without_metrics_or_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "serve.json"
    for settings in (MetricsSettings(port=None, targets=path), MetricsSettings()):
        with listed(settings, ROLES):
            assert list(tmp_path.iterdir()) == []


def test_a_list_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = MetricsSettings(targets=tmp_path / "file" / "serve.json")
    with pytest.raises(OutputError, match=r"metrics.targets: .*serve.json cannot be written: "), listed(settings, []):
        pass


def test_a_port_in_use_is_told_before_anything_starts(free_port: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        taken: int = other.getsockname()[1]
        settings = MetricsSettings(port=taken - 2)
        check_ports(settings, 2)
        with pytest.raises(
            ConfigError, match=f"3 processes need the ports {taken - 2} to {taken}, and {taken} is in"
        ):
            check_ports(settings, 3)
        check_ports(MetricsSettings(port=None), 3)
