"""Error types and their exit codes.

    FerStreamError                 1   any error below; also unexpected errors
    ├── ConfigError                2   the command line or a configuration file is invalid
    │   └── MissingExtra               … it needs an optional dependency that is not installed
    ├── SourceError                3   a source cannot be opened or read
    │   ├── SourceNotFound             … it does not exist
    │   └── UnreadableSource           … it is not an image or video, or access is denied
    ├── ModelError                 4   weights or a model card are missing or invalid
    │   └── WeightsError               … a failed download, a wrong checksum, a Git LFS pointer
    ├── OutputError                5   a result cannot be written
    │   ├── OutputExists               … it exists and may not be replaced
    │   ├── DiskFull                   … the disk is full
    │   └── OutputUnavailable               … temporarily: the live service continues without files
    ├── QueueError                 6   the queue or store cannot be reached, or its contents are invalid
    │   ├── CodecError                 … a record cannot be decoded
    │   ├── QueueFull                  … no capacity became free before shutdown
    │   ├── StoreFull                  … the store is at its memory limit
    │   └── LeaseLost                  … another process holds the lease
    ├── ResourceLimitReached       8   a limit of memory or threads of the process is too low
    └── JobError                   7   a job request failed
        ├── JobNotFound                … unknown job id
        ├── InvalidJobState            … the job is in another state
        └── JobFailed                  … a job that was waited for failed

Exit code 0 is success; 130 is Ctrl-C and 143 SIGTERM, both with results called NAME.interrupted.*.

Each message says what is wrong, where, and what to do. No message contains a password: URLs pass through
`fer_stream.log.redact_secrets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

EXTRAS = {
    "keras": "tensorflow",
    "onnx": "tensorflow",
    "openvino": "openvino",
    "pandas": "export",
    "scipy": "tensorflow",
    "tensorflow": "tensorflow",
}
"""Optional dependencies: the extra of pyproject.toml that installs each top-level module."""


class FerStreamError(Exception):
    """Base of all errors. `str(error)` is a message of one or two sentences for the user."""

    exit_code: ClassVar[int] = 1


class ConfigError(FerStreamError):
    """The command line or a configuration file is invalid."""

    exit_code = 2


class MissingExtra(ConfigError):  # noqa: N818 - reads better without the suffix
    """An optional dependency is not installed."""


@contextmanager
def translate_missing_extra() -> Iterator[None]:
    """Translate a failed import of a module in `EXTRAS` to a `MissingExtra` with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        raise MissingExtra(
            f"The package {module} is not installed. Install it: pip install 'fer-stream[{EXTRAS[module]}]'"
        ) from error


class SourceError(FerStreamError):
    """A source cannot be opened or read."""

    exit_code = 3


class SourceNotFound(SourceError):  # noqa: N818 - reads better without the suffix
    """The path or address of the source does not exist."""


class UnreadableSource(SourceError):  # noqa: N818
    """The source is not an image or video, has no frames, or access is denied."""


class ModelError(FerStreamError):
    """Weights or a model card are missing or do not match."""

    exit_code = 4


class WeightsError(ModelError):
    """Weights could not be downloaded, or their checksum is wrong."""


class OutputError(FerStreamError):
    """A result cannot be written."""

    exit_code = 5


class OutputExists(OutputError):  # noqa: N818
    """An output exists already and may not be replaced."""


class DiskFull(OutputError):  # noqa: N818
    """The disk is full."""


class OutputUnavailable(OutputError):  # noqa: N818
    """Files of the live service temporarily cannot be written. Losses are counted; writing resumes by itself."""


class QueueError(FerStreamError):
    """The queue or the store cannot be reached, or its contents are invalid."""

    exit_code = 6


class CodecError(QueueError):
    """A record cannot be decoded: truncated, corrupt, or of an unknown format version."""


class QueueFull(QueueError):  # noqa: N818
    """No capacity became free before shutdown; some crops of the call were not enqueued."""


class StoreFull(QueueError):  # noqa: N818
    """The store is at its memory limit; the results of the call were not added."""


class LeaseLost(QueueError):  # noqa: N818
    """Another process holds the lease; nothing was written."""


class ResourceLimitReached(FerStreamError):  # noqa: N818 - reads better without the suffix
    """A limit of memory or threads of the process is too low."""

    exit_code = 8


class JobError(FerStreamError):
    """A job request failed, or the job itself did."""

    exit_code = 7


class JobNotFound(JobError):  # noqa: N818 - reads better without the suffix
    """No job has this id, or its record was deleted or has expired."""


class InvalidJobState(JobError):  # noqa: N818
    """The request is not valid in the current state of the job."""


class JobFailed(JobError):  # noqa: N818
    """A job that was waited for failed or was cancelled."""
