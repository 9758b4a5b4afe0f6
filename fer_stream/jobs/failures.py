"""Error messages of failed attempts, and whether a failure is worth another attempt."""

from __future__ import annotations

import os
import signal

from rq.exceptions import DeserializationError
from rq.timeouts import JobTimeoutException

from fer_stream.errors import CodecError, DiskFull, FerStreamError, QueueError
from fer_stream.jobs.record import FileRqJob
from fer_stream.log import redact_secrets


def classify_failure(error: BaseException | None, job: FileRqJob) -> tuple[str, bool]:
    """Return the reason of a failure as text without secrets, and whether another attempt may succeed."""
    if isinstance(error, JobTimeoutException):
        return timeout_message(job), False
    if isinstance(error, DeserializationError):
        return f"Job {job.id} is refused: only JSON payloads are accepted.", False
    if isinstance(error, FerStreamError):
        retryable = isinstance(error, DiskFull | QueueError) and not isinstance(error, CodecError)
        return redact_secrets(str(error)), retryable
    return redact_secrets(f"Unexpected error, see the log of the worker: {type(error).__name__}: {error}"), True


def timeout_message(job: FileRqJob) -> str:
    """Return the error message of an attempt that exceeded `jobs.timeout_s`."""
    return f"Processing took longer than {job.timeout} s: raise jobs.timeout_s, or analyse fewer frames (fps)."


def describe_exit(status: int | None) -> str:
    """Describe how a process ended, from its wait(2) status; None if the status is unknown."""
    if status is None:
        return "ended with an unknown status, see the log of the worker"
    if not os.WIFSIGNALED(status):
        return f"ended with code {os.waitstatus_to_exitcode(status)}, see the log of the worker"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"was killed ({name})" + (", possibly out of memory" if name == "SIGKILL" else "")
