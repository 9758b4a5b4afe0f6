"""Reload of the settings of a running service: what changes, and what the processes of `serve` inherit.

`serve` passes the settings that it accepted to its processes in a file in memory. A process that restarts reads this
file instead of the configuration file, which may meanwhile be half-saved, invalid, or contain changes that need a
restart of the service. The file has no name and never reaches a disk, because it contains passwords.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from fer_stream.config.errors import format_errors
from fer_stream.config.live import PER_SOURCE, LiveSettings
from fer_stream.config.loader import load
from fer_stream.errors import ConfigError

SETTINGS_VARIABLE = "FER_STREAM_SETTINGS_FD"
"""Environment variable with the file descriptor of the accepted settings."""

RELOADABLE = ("sources", *PER_SOURCE)
"""Groups that take effect when the configuration is reloaded; others need a restart."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Differences between two versions of the settings.

    `added`, `removed` and `changed` are names of sources; `restart` are groups that take effect after a restart.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def changes(old: LiveSettings, new: LiveSettings) -> Changes:
    """Compare two versions of the settings.

    A source is changed if any of its effective settings is, including its `detector`, `tracker` and `quality`.
    """
    groups = [group for group in LiveSettings.model_fields if group not in RELOADABLE]
    return Changes(
        added=tuple(name for name in new.sources if name not in old.sources),
        removed=tuple(name for name in old.sources if name not in new.sources),
        changed=tuple(
            name for name, source in new.sources.items() if name in old.sources and old.sources[name] != source
        ),
        restart=tuple(group for group in groups if getattr(old, group) != getattr(new, group)),
    )


class SourceFilter:
    """Selects the sources to show and to export: those in the settings.

    Queue and store list removed sources as long as some of their data exists. Without sources in its settings, a
    process shows those of the capture processes, except those that were removed since it started. Thread-safe.
    """

    def __init__(self, settings: LiveSettings) -> None:
        self._configured = frozenset(settings.sources)
        self._removed: frozenset[str] = frozenset()

    def __call__(self, source: str) -> bool:
        """Return True if the source is selected."""
        return source in self._configured or not (self._configured or source in self._removed)

    def update(self, settings: LiveSettings, difference: Changes) -> None:
        """Apply a change of the settings."""
        self._removed = (self._removed | set(difference.removed)) - set(difference.added)
        self._configured = frozenset(settings.sources)


class AcceptedSettings:
    """File in memory with the accepted settings. `fd` must be inherited by the processes that read it."""

    def __init__(self, settings: LiveSettings) -> None:
        self.fd = os.memfd_create("fer-stream-settings")
        self.replace(settings)

    def replace(self, settings: LiveSettings) -> None:
        """Replace the settings. A process reads the old or the new ones, never a mixture."""
        text = json.dumps(_plain(settings)).encode()
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, text, 0)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the memory, once all processes that inherited the file have ended."""
        os.close(self.fd)


def load_settings(path: Path) -> LiveSettings:
    """Load the settings of the current process: those that `serve` accepted, or else the file at `path`.

    Raises `ConfigError`.
    """
    descriptor = os.environ.get(SETTINGS_VARIABLE)
    return _read(int(descriptor)) if descriptor else load(path, LiveSettings)


def keep_until_restart(current: LiveSettings, new: LiveSettings) -> LiveSettings:
    """Return `new` with all groups of `current` that take effect only after a restart.

    Raises `ConfigError` if the combination is not valid, because the new sources need one of these groups.
    """
    document = _plain(current) | {group: value for group, value in _plain(new).items() if group in RELOADABLE}
    try:
        return LiveSettings.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(text for _, text in format_errors(error, LiveSettings))
        raise ConfigError(
            f"The new sources need settings that take effect after a restart of serve: {faults}"
        ) from None


def _read(descriptor: int) -> LiveSettings:
    # This lock belongs to the process, so it excludes the writer although both have the same open file.
    fcntl.lockf(descriptor, fcntl.LOCK_SH)
    try:
        text = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return LiveSettings.model_validate(json.loads(text))


def _plain(settings: LiveSettings) -> dict[str, Any]:
    """Return the settings as plain values, including secrets."""
    document: dict[str, Any] = json.loads(json.dumps(settings.model_dump(), default=_plain_value))
    return document


def _plain_value(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a plain value")
