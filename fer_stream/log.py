"""What may be said in a log: the one place where secrets are taken out of text."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

HIDDEN = "***"

# Up to the last @ before a blank: a password that should have been percent-encoded may itself hold / or @.
# Where a path holds an @ the host goes too, which is the better of the two mistakes. The @ is looked for in what was
# matched, because an expression that looks for it itself takes time that grows with the square of a long word.
_ADDRESS = re.compile(r"://\S+")

# `?token=…`, and the `/user=admin_password=…_channel=1` of many cameras. A value ends at a blank, & or #.
_SECRET = re.compile(
    r"((?:pass|passwd|password|passphrase|pwd|token|secret|credentials?|auth|jwt|sig|signature|session|key)=)[^&#\s]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` without the user and password of any URL in it, and without passwords and tokens in queries.

    What is left out reads `***`. Redacting twice changes nothing.
    """
    return _SECRET.sub(rf"\1{HIDDEN}", _ADDRESS.sub(_without_user, text))


def _without_user(address: re.Match[str]) -> str:
    _, at, rest = address[0].rpartition("@")
    return f"://{HIDDEN}@{rest}" if at else address[0]


@contextmanager
def native_silence() -> Iterator[None]:
    """Within the body nothing reaches stderr: for C++ libraries that greet the user and cannot be told not to.

    It is the whole process's stderr, so the body must be short and raise its errors as exceptions.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def set_up(level: str, *, json: bool, role: str) -> None:
    """Send all logs of this process to stderr, as text or as a line of JSON each, without any secret."""
    import structlog

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        lambda _, __, event: {**event, "role": role, "pid": os.getpid()},
        _redacted,
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
    # Everything else that Python would write to stderr by itself.
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda fault: _uncaught(fault.exc_type, fault.exc_value, fault.exc_traceback)
    sys.unraisablehook = lambda fault: _uncaught(fault.exc_type, fault.exc_value, fault.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """A line that cannot be put together. `logging` itself would print its parts as they are."""
        words = {"msg": "%s: a line that cannot be told: %r", "args": (record.name, str(record.msg))}
        told = logging.makeLogRecord({**vars(record), **words, "exc_info": None})
        self.stream.write(self.format(told) + self.terminator)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """An exception that nobody caught is told through the log, so that it holds no secret either."""
    if error is not None:
        logging.getLogger(__name__).critical("not foreseen", exc_info=(kind, error, trace))


def _redacted(_: Any, __: str, event: EventDict) -> EventDict:
    """The one place through which every log goes."""
    return {key: redact(value) if isinstance(value, str) else value for key, value in event.items()}
