"""Why a camera gives no pictures, in words that are safe to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import av
import av.error

from fer_stream.log import redact_secrets

Reason = Literal[
    "refused", "unauthorized", "not_found", "timeout", "stalled", "ended", "decode", "network", "internal"
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class Outage:
    """The end of a connection. `text` is for a person and holds no URL and no password."""

    reason: Reason
    text: str

    @property
    def refused(self) -> bool:
        """Did the camera say no, so that asking again soon is of no use?"""
        return self.reason in ("unauthorized", "not_found")


_REASONS: tuple[tuple[type[av.FFmpegError], Reason], ...] = (
    (av.error.ConnectionRefusedError, "refused"),
    (av.error.HTTPUnauthorizedError, "unauthorized"),
    (av.error.HTTPForbiddenError, "unauthorized"),
    (av.error.PermissionError, "unauthorized"),
    (av.error.HTTPNotFoundError, "not_found"),
    (av.error.FileNotFoundError, "not_found"),
    (av.error.TimeoutError, "timeout"),
    (av.error.ExitError, "timeout"),
    (av.error.EOFError, "ended"),
    (av.error.InvalidDataError, "decode"),
    (av.error.DecoderNotFoundError, "decode"),
)


def outage(error: av.FFmpegError) -> Outage:
    """What FFmpeg's error means. Its `str` ends with the whole URL; only the description before it is used."""
    reason: Reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "network")
    return Outage(reason, redact_secrets(error.strerror or type(error).__name__))
