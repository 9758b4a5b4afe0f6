"""Recorded files as jobs: where their results go, and how patiently they are tried."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fer_stream.config.settings import LocalPath, Positive, Settings


class JobSettings(Settings):
    """Recorded files as jobs, worked off beside the cameras."""

    output_dir: LocalPath | None = None
    """Results go here where `fer-stream submit` says nothing else; by default into the folder `jobs` in `state_dir`.
    Workers on other machines need the same folder at the same path."""
    workers: Annotated[int, Field(ge=0)] = 1
    """So many jobs are done at a time. They give way to the cameras; 0 leaves them to workers on other machines."""
    timeout_s: Annotated[int, Field(ge=1)] = 21_600
    """A job that takes longer has failed and is not tried again: it hangs, or is too much for this machine."""
    retry_delays_s: tuple[Annotated[int, Field(ge=1)], ...] = (10, 60)
    """After a fault that may pass a job is tried again, so often and after these waits: its process was killed, the
    disk is full, the store was away. A file that cannot be read is not tried again."""
    retention_days: Positive = 7.0
    """Records of jobs that have ended are kept for so long. The results stay until you delete them."""
