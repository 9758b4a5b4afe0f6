"""What went wrong, for programs and people: `application/problem+json` of RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

from fer_stream.errors import (
    ConfigError,
    DiskFull,
    FerStreamError,
    JobNotFound,
    OutputExists,
    QueueError,
    SourceError,
    InvalidJobState,
)
from fer_stream.log import redact_secrets
from fer_stream.web.schemas import ProblemModel

AWAY_S = 2
"""When to try again after the store was away: it is back within a second where it was only restarted."""


class Problem(Exception):  # noqa: N818 - as RFC 9457 calls it
    """An answer other than what was asked for: what is wrong, and the cure."""

    def __init__(self, status: int, what: str, cure: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.what = what
        self.cure = cure
        self.headers = headers

    def model(self) -> ProblemModel:
        """The problem as it is sent."""
        title = HTTPStatus(self.status).phrase
        return ProblemModel(
            title=title, status=self.status, detail=redact_secrets(self.what), cure=redact_secrets(self.cure)
        )

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(
            self.model().model_dump(), self.status, self.headers, media_type="application/problem+json"
        )


_STATUS: tuple[tuple[type[FerStreamError], int], ...] = (
    (JobNotFound, 404),
    (InvalidJobState, 409),
    (OutputExists, 409),
    (SourceError, 422),
    (ConfigError, 422),
    (DiskFull, 507),
)


def problem_of(error: FerStreamError) -> Problem:
    """What an error of ours, whose text holds its own cure, is to somebody on the other side."""
    if isinstance(error, QueueError):
        return Problem(
            503,
            f"The store does not answer: {error}",
            "Try again in a moment; if that does not help, look at the log of the service.",
            {"Retry-After": str(AWAY_S)},
        )
    return Problem(next((status for kind, status in _STATUS if isinstance(error, kind)), 500), str(error))
