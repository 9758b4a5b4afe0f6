"""Every error that fer-stream raises on purpose, and the exit code of each.

    FerStreamError                 1   anything below, and faults we did not foresee
    ├── ConfigError                2   the command line or a YAML file is wrong
    ├── SourceError                3   a source cannot be opened or read
    │   ├── SourceNotFound             … because nothing is there
    │   └── UnreadableSource           … because what is there is no picture or video, or may not be read
    ├── ModelError                 4   weights or a model card are missing or wrong
    │   └── WeightsError               … a download, a checksum, a Git-LFS pointer
    ├── OutputError                5   a result cannot be written
    │   ├── OutputExists               … because it is there already and --force was not given
    │   ├── DiskFull                   … because there is no room
    │   └── FilesStopped               … for now: the live service goes on without its files
    ├── QueueError                 6   the queue or store cannot be reached or holds what we cannot read
    │   ├── CodecError                 … because the bytes are no record of ours
    │   ├── QueueFull                  … because no worker made room before we were told to stop
    │   ├── StoreFull                  … because the store is at its memory limit
    │   └── LeaseLost                  … because another process took over what we were writing
    └── JobError                   7   what was asked of a job cannot be done
        ├── JobNotFound                … because there is no such job
        ├── WrongJobState              … because it has ended, or has not
        └── JobFailed                  … and it was waited for

Exit code 0 is success; 130 is Ctrl-C and 143 SIGTERM, both with complete, readable outputs.

The text of an error names the thing and the cure. No text holds a password: URLs go through
`fer_stream.log.redact` first.
"""

from __future__ import annotations

from typing import ClassVar


class FerStreamError(Exception):
    """The root of the tree. `str(error)` is one sentence or two for a person to read."""

    exit_code: ClassVar[int] = 1


class ConfigError(FerStreamError):
    """The command line or a configuration file is wrong."""

    exit_code = 2


class SourceError(FerStreamError):
    """A source cannot be opened or read."""

    exit_code = 3


class SourceNotFound(SourceError):  # noqa: N818 - reads better without the suffix
    """There is nothing at the path or address of the source."""


class UnreadableSource(SourceError):  # noqa: N818
    """What the source names is no picture or video, holds no frame, or may not be read."""


class ModelError(FerStreamError):
    """Weights or a model card are missing or do not fit each other."""

    exit_code = 4


class WeightsError(ModelError):
    """Weights could not be fetched, or are not what their checksum says."""


class OutputError(FerStreamError):
    """A result cannot be written."""

    exit_code = 5


class OutputExists(OutputError):  # noqa: N818
    """An output is there already; nothing is overwritten unless asked for."""


class DiskFull(OutputError):  # noqa: N818
    """There is no room for an output."""


class FilesStopped(OutputError):  # noqa: N818
    """Files of the live service cannot be written for now. What was lost is counted; writing resumes by itself."""


class QueueError(FerStreamError):
    """The queue or the store cannot be reached, or holds what we cannot read."""

    exit_code = 6


class CodecError(QueueError):
    """The bytes are no record of ours: cut short, damaged, or of a format version we do not know."""


class QueueFull(QueueError):  # noqa: N818
    """No room came free before the producer was told to stop; the crops of that call were not all put."""


class StoreFull(QueueError):  # noqa: N818
    """The store is at its memory limit: the results of that call were not added."""


class LeaseLost(QueueError):  # noqa: N818
    """Another process holds the lease of what this one tried to write: nothing was written."""


class JobError(FerStreamError):
    """What was asked of a job cannot be done, or the job itself did not end well."""

    exit_code = 7


class JobNotFound(JobError):  # noqa: N818 - reads better without the suffix
    """There is no job of this id: never was, or its record was deleted or has expired."""


class WrongJobState(JobError):  # noqa: N818
    """The job has ended where it must not have, or the other way round."""


class JobFailed(JobError):  # noqa: N818
    """A job that was waited for failed or was cancelled."""
