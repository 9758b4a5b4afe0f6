"""Response schemas of the HTTP API, as far as they differ from `store.schemas`, and its errors (RFC 9457).

Times are Unix seconds, except for names with the suffix `_s`, which are media seconds of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

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
from fer_stream.jobs.job import JobInfo, JobState, Priority
from fer_stream.log import redact_secrets
from fer_stream.store.schemas import FrameDocument, StoredGap, StoredSegment

if TYPE_CHECKING:
    from fer_stream.store.protocol import CameraState

API = "/api/v1"
"""Path prefix of all routes except health and the page."""

REPORT_SUFFIX = ".report.html"


class Model(BaseModel):
    """Base of all response models."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ProblemModel(Model):
    """An error (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    """What is wrong."""
    hint: str = ""
    """What to do."""


class HealthModel(Model):
    """Health of the process."""

    status: Literal["ok"] = "ok"


class SourceModel(Model):
    """State of a source and summary of its newest result."""

    name: str
    up: bool | None
    """Whether frames arrive; null if no process reads the source."""
    since: float | None = None
    """When this state began."""
    reason: str | None = None
    """Why it is down: refused, unknown_host, certificate, unauthorized, not_found, transport, no_video, timeout,
    stalled, ended, decode, network, internal."""
    text: str = ""
    """The reason as text."""
    failures: int = 0
    """Failed connections since the last frame."""
    latest_at: float | None = None
    """Time of the newest result."""
    faces: int | None = None
    """Number of faces in the newest result."""
    width: int | None = None
    """Frame width in px; null before the first frame. Boxes refer to this size."""
    height: int | None = None

    @classmethod
    def of(cls, name: str, state: CameraState | None, latest: FrameDocument | None) -> SourceModel:
        """Create from the state and newest result in the store."""
        at = None if latest is None else latest["at"]
        faces = None if latest is None else len(latest["faces"])
        if state is None:
            return cls(name=name, up=None, latest_at=at, faces=faces)
        return cls(
            name=name,
            up=state.up,
            since=state.since,
            reason=state.reason,
            text=state.text,
            failures=state.failures,
            latest_at=at,
            faces=faces,
            width=state.width,
            height=state.height,
        )


class FrameEvent(FrameDocument):
    """Data of the events `frame` and `latest`: a stored result with facts about its source."""

    source: str
    width: int | None
    """Frame width in px, if known. Boxes refer to this size."""
    height: int | None
    provisional: Literal[True]
    latency_s: float
    """Time from the frame to this event, in seconds."""


def frame_event(source: str, frame: FrameDocument, state: CameraState | None, now: float) -> FrameEvent:
    """Add facts about the source to a stored result; `now` is Unix time in seconds."""
    return {
        **frame,
        "source": source,
        "width": state.width if state else None,
        "height": state.height if state else None,
        "provisional": True,
        "latency_s": round(now - frame["at"], 3),
    }


class TimelineSegment(TypedDict):
    """Time range in which a person had one label. Final."""

    label: str
    start_at: float
    end_at: float
    mean_prob: float
    unknown_reason: str | None
    """Main reason of a segment of `unknown`; null for an emotion."""


class TimelinePerson(TypedDict):
    """Segments of one person. Numbers are unique within a session (`stream_id`)."""

    person_id: int
    stream_id: str
    segments: list[TimelineSegment]


class TimelineGap(TypedDict):
    """Time range in which the source delivered no frames."""

    stream_id: str
    reason: str
    start_at: float
    end_at: float


class Timeline(TypedDict):
    """Segments and gaps of a source that overlap a time range."""

    source: str
    from_at: float
    to_at: float
    people: list[TimelinePerson]
    gaps: list[TimelineGap]


def timeline_segment(segment: StoredSegment) -> TimelineSegment:
    """Select the keys of a stored segment that are not common to all segments of a person."""
    return {
        "label": segment["label"],
        "start_at": segment["start_at"],
        "end_at": segment["end_at"],
        "mean_prob": segment["mean_prob"],
        "unknown_reason": segment.get("unknown_reason"),
    }


def timeline_gap(gap: StoredGap) -> TimelineGap:
    """Select the wall times of a stored gap."""
    return {
        "stream_id": gap["stream_id"],
        "reason": gap["reason"],
        "start_at": gap["start_at"],
        "end_at": gap["end_at"],
    }


class OutputModel(Model):
    """A result file of a job."""

    name: str
    bytes: int


class JobModel(Model):
    """A recorded file that the service processes."""

    job_id: str
    name: str
    """Base name of the outputs, derived from the name of the uploaded file."""
    state: JobState
    priority: Priority
    submitted_at: float
    progress: float | None
    """0 to 1; null if the duration of the file is unknown."""
    frames: int
    """Number of frames analysed so far."""
    started_at: float | None
    ended_at: float | None
    retry_at: float | None
    """Earliest start of the next attempt."""
    attempts: int
    error: str | None
    """Reason of the last failure."""
    outputs: list[OutputModel]
    report: bool
    """Whether a report is available."""

    @classmethod
    def of(cls, job: JobInfo) -> JobModel:
        """Create from a job, without paths of the server."""
        outputs = [OutputModel(name=path.name, bytes=path.stat().st_size) for path in job.outputs if path.is_file()]
        return cls(
            job_id=job.job_id,
            name=job.name,
            state=job.state,
            priority=job.priority,
            submitted_at=job.submitted_at,
            progress=job.progress,
            frames=job.frames,
            started_at=job.started_at,
            ended_at=job.ended_at,
            retry_at=job.retry_at,
            attempts=job.attempts,
            error=None if job.error is None else job.error.replace(str(job.path), job.name),
            outputs=outputs,
            report=any(output.name.endswith(REPORT_SUFFIX) for output in outputs),
        )


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
