"""What may be said in a log: the one place where secrets are taken out of text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = "***"

# Up to the last @ before a blank: a password that should have been percent-encoded may itself hold / or @.
# Where a path holds an @ the host goes too, which is the better of the two mistakes.
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")

# `?token=…`, and the `/user=admin_password=…_channel=1` of many cameras. A value ends at a blank, & or #.
_SECRET = re.compile(
    r"((?:pass|passwd|password|passphrase|pwd|token|secret|credentials?|auth|jwt|sig|signature|session|key)=)[^&#\s]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` without the user and password of any URL in it, and without passwords and tokens in queries.

    What is left out reads `***`. Redacting twice changes nothing.
    """
    return _SECRET.sub(rf"\1{HIDDEN}", _USER_INFO.sub(rf"\1{HIDDEN}@", text))


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
