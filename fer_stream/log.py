"""Logging: events with fields, and the removal of secrets from every line.

log = get_logger(__name__)
log.info("camera_connected", source="front-door", width=640)
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger
    from structlog.typing import EventDict, Processor

HIDDEN = "***"

# Everything between :// and the last @ before white space is removed: a password that should have been
# percent-encoded can contain / or @. If the path contains an @, the host is removed as well, which is the smaller
# harm. The @ is found in a second step, because one expression for both takes time quadratic in the length of a word.
_ADDRESS = re.compile(r"://\S+")

# `?token=…`, and `/user=admin_password=…_channel=1` as used by many cameras. A value ends at white space, & or #.
_SECRET = re.compile(
    r"((?:pass|passwd|password|passphrase|pwd|token|secret|credentials?|auth|jwt|sig|signature|session|key)=)[^&#\s]*",
    re.IGNORECASE,
)


def redact_secrets(text: str) -> str:
    """Return `text` with `***` in place of users and passwords in URLs and of passwords and tokens in queries.

    Idempotent.
    """
    return _SECRET.sub(rf"\1{HIDDEN}", _ADDRESS.sub(_without_user, text))


def _without_user(address: re.Match[str]) -> str:
    _, at, rest = address[0].rpartition("@")
    return f"://{HIDDEN}@{rest}" if at else address[0]


# Two threads at once would restore each other's redirection instead of stderr.
_native_stderr = threading.RLock()


@contextmanager
def suppress_native_stderr() -> Iterator[None]:
    """Discard everything written to stderr within the body, including by C++ libraries.

    Affects the whole process, so the body must be short and must report its errors as exceptions. Other threads wait.
    """
    with _native_stderr:
        sys.stderr.flush()
        saved = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def quiet_libraries() -> None:
    """Suppress warnings that libraries log and a user of the command line cannot act on.

    Matplotlib logs two lines if the home directory is not writable.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def get_logger(name: str) -> BoundLogger:
    """Return a logger of events with fields, on top of the `logging` logger `name`.

    Without `configure_logging` the fields are `extra` attributes of the records, so that an application that uses
    fer-stream as a library formats them as it likes. Field names must not be those of `logging.LogRecord` (`name`,
    `module`, `process`, …).
    """
    import structlog

    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def configure_logging(level: str, *, json: bool, role: str) -> None:
    """Send all logs of this process to stderr, as text or as one JSON object per line, without secrets."""
    import structlog

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        lambda _, __, event: {**event, "role": role, "pid": os.getpid()},
        _redact_event,
    ]
    renderer = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Everything else that Python writes to stderr by itself.
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda fault: _uncaught(fault.exc_type, fault.exc_value, fault.exc_traceback)
    sys.unraisablehook = lambda fault: _uncaught(fault.exc_type, fault.exc_value, fault.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Log that a record cannot be formatted. The default implementation prints its arguments unredacted."""
        fields = {"msg": "log_record_invalid logger=%s message=%r", "args": (record.name, str(record.msg))}
        replacement = logging.makeLogRecord({**vars(record), **fields, "exc_info": None})
        self.stream.write(self.format(replacement) + self.terminator)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log an uncaught exception, which removes secrets from it."""
    if error is not None:
        logging.getLogger(__name__).critical("unhandled_exception", exc_info=(kind, error, trace))


def _redact_event(_: Any, __: str, event: EventDict) -> EventDict:
    """Remove secrets from every field; every log line passes through here."""
    # Keys with an underscore are structlog's own and are removed before rendering.
    return {key: value if key.startswith("_") else _redact_value(value) for key, value in event.items()}


def _redact_value(value: object) -> object:
    """Return a field without secrets; values that are neither numbers nor collections become text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact_secrets(str(key)): _redact_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(each) for each in value]
    return redact_secrets(str(value))
