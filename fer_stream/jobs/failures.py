"""Why an attempt at a job failed, for a person to read, and whether another may end better."""

from __future__ import annotations

import os
import signal

from rq.exceptions import DeserializationError
from rq.timeouts import JobTimeoutException

from fer_stream.errors import CodecError, DiskFull, FerStreamError, QueueError
from fer_stream.jobs.record import Record
from fer_stream.log import redact_secrets


def verdict(error: BaseException | None, job: Record) -> tuple[str, bool]:
    """Why an attempt failed, for a person to read and without secrets, and whether another may end better."""
    if isinstance(error, JobTimeoutException):
        return too_late(job), False
    if isinstance(error, DeserializationError):
        return f"The job {job.id} is refused: nothing that only Python can read is read here.", False
    if isinstance(error, FerStreamError):
        return redact_secrets(str(error)), isinstance(error, DiskFull | QueueError) and not isinstance(
            error, CodecError
        )
    return redact_secrets(
        f"A fault that nobody foresaw, see the log of its worker: {type(error).__name__}: {error}"
    ), True


def too_late(job: Record) -> str:
    """What is said of a job that took longer than it may."""
    return f"It took longer than {job.timeout} s: raise jobs.timeout_s, or look at fewer frames (fps)."


def how_it_ended(status: int) -> str:
    """What became of a process, from the status that wait(2) gave."""
    if not os.WIFSIGNALED(status):
        return f"ended with code {os.waitstatus_to_exitcode(status)}, see the log of its worker"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"was killed ({name})" + (", perhaps for want of memory" if name == "SIGKILL" else "")
