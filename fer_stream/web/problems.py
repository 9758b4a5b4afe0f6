"""Errors of the HTTP API as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from fer_stream.errors import (
    ConfigError,
    DiskFull,
    FerStreamError,
    InvalidJobState,
    JobNotFound,
    OutputExists,
    QueueError,
    SourceError,
)
from fer_stream.log import redact_secrets
from fer_stream.web.schemas import API, ProblemModel

STORE_RETRY_S = 2
"""Interval for new attempts while the store is unreachable. A restart of the store takes about a second."""


class Problem(Exception):  # noqa: N818 - the term of RFC 9457
    """An error response: HTTP status, what is wrong (`detail`) and what to do (`hint`)."""

    def __init__(self, status: int, detail: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers = headers

    def model(self) -> ProblemModel:
        """Return the response body, with secrets removed."""
        title = HTTPStatus(self.status).phrase
        return ProblemModel(
            title=title, status=self.status, detail=redact_secrets(self.detail), hint=redact_secrets(self.hint)
        )

    def response(self) -> JSONResponse:
        """Return the complete response."""
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
    """Convert an error of the package; its message already contains what to do."""
    if isinstance(error, QueueError):
        return Problem(
            503,
            f"The store cannot be reached: {error}",
            "Try again in a moment. If the error persists, check the log of the service.",
            {"Retry-After": str(STORE_RETRY_S)},
        )
    return Problem(next((status for kind, status in _STATUS if isinstance(error, kind)), 500), str(error))


def on_http_error(_: Request, error: Exception) -> Response:
    """Handle errors of the router: unknown path (404) or method not allowed (405)."""
    assert isinstance(error, HTTPException)
    return Problem(
        error.status_code, str(error.detail), f"{API}/openapi.json lists all paths and methods.", error.headers
    ).response()


def on_validation_error(_: Request, error: Exception) -> Response:
    """Handle invalid parameters (422). The response names the parameter and the constraint, not the value sent."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()]
    return Problem(422, "; ".join(faults), f"{API}/openapi.json describes all parameters.").response()
