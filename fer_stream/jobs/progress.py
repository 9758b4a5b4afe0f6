"""How far the process of a job is, written down for others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from fer_stream.jobs.record import Record
from fer_stream.log import redact_secrets

_log = logging.getLogger(__name__)

# Progress is written no more often than this.
_REPORT_S = 0.5


class Reporter:
    """Writes down how far a job is, now and then, after `check`, whose exception gives the job up."""

    def __init__(self, record: Record, check: Callable[[], object]) -> None:
        self._record = record
        self._check = check
        self._reported_s = -_REPORT_S

    def __call__(self, part: float | None, frames: int) -> None:
        """Say which part of the file was read, 0..1 or None, and how many frames."""
        now_s = time.monotonic()
        if now_s - self._reported_s < _REPORT_S:
            return
        self._reported_s = now_s
        try:
            self._check()
            self._record.report(progress=part, frames=frames)
        except RedisError as error:
            _log.warning("the store is away, the job %s goes on: %s", self._record.id, redact_secrets(str(error)))
