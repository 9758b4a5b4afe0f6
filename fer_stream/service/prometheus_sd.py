"""Metrics ports of the processes of `serve`: a check that they are free, and a target list for Prometheus."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from fer_stream.config.live import MetricsSettings
from fer_stream.errors import ConfigError, OutputError

# Wildcard addresses are scraped via loopback.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def check_ports(settings: MetricsSettings, processes: int) -> None:
    """Raise `ConfigError` if one of the ports of `processes` processes is in use."""
    if settings.port is None:
        return
    for port in range(settings.port, settings.port + processes):
        if _is_in_use(settings.host, port):
            raise ConfigError(
                f"metrics.port {settings.port}: {processes} processes need the ports {settings.port} to "
                f"{settings.port + processes - 1}, and {port} is in use. "
                f"Choose another port, or null to disable metrics."
            )


@contextmanager
def write_targets(settings: MetricsSettings, roles: Sequence[str]) -> Iterator[None]:
    """Write `settings.targets`, in the format of Prometheus's file_sd, for the duration of the body.

    Raises `OutputError` if the file cannot be written.
    """
    path = settings.targets
    if path is None or settings.port is None:
        yield
        return
    host = _LOOPBACK.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    groups = [
        {"targets": [f"{host}:{port}"], "labels": {"role": role}} for port, role in enumerate(roles, settings.port)
    ]
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(groups, indent=2) + "\n")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"metrics.targets: cannot write {path}: {error.strerror}. Choose another path.") from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def _is_in_use(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
