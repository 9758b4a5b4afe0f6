"""Response models of the HTTP API.

Times are Unix seconds, except for names with the suffix `_s`, which are media seconds of the session.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fer_stream.jobs.job import JobInfo, JobState, Priority
from fer_stream.records import LABELS, Gap, LabelledFace, LabelledFrame, Segment, unix_time
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
    """Why it is down: refused, unauthorized, not_found, timeout, stalled, ended, decode, network, internal."""
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
    def of(cls, name: str, state: CameraState | None, latest: LabelledFrame | None) -> SourceModel:
        """Create from the state and newest result in the store."""
        at = None if latest is None else unix_time(latest.stream_id, latest.time_s)
        faces = None if latest is None else len(latest.faces)
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


class QualityModel(Model):
    """Quality of a face crop."""

    score: float
    """0 to 1."""
    reason: str
    """`ok`, or why the face gets no label: small, blurred, off_frontal, truncated, unclear."""


class FaceModel(Model):
    """One face of a frame."""

    person_id: int
    """Number of the person, unique within a session of the source."""
    xyxy: list[float] = Field(min_length=4, max_length=4)
    """Left, top, right, bottom in px of the frame."""
    confidence: float
    """Confidence of the detector, 0 to 1."""
    label: str
    """One of the seven emotions, or `unknown`."""
    probs: dict[str, float]
    """Smoothed probability of each emotion, from which the label is derived."""
    quality: QualityModel

    @classmethod
    def of(cls, face: LabelledFace) -> FaceModel:
        """Create from a face in the store."""
        probs = dict(zip(LABELS, (round(prob, 4) for prob in face.smoothed.tolist()), strict=True))
        return cls(
            person_id=face.person_id,
            xyxy=[round(side, 2) for side in face.xyxy.tolist()],
            confidence=round(face.confidence, 4),
            label=face.label,
            probs=probs,
            quality=QualityModel(score=round(face.quality.score, 4), reason=face.quality.reason),
        )


class FrameModel(Model):
    """One result: a frame and its faces. Labels are provisional and can change within about two seconds."""

    source: str
    stream_id: str
    index: int
    time_s: float
    at: float
    """Time of the frame."""
    width: int | None
    """Frame width in px, if known."""
    height: int | None
    provisional: Literal[True] = True
    faces: list[FaceModel]
    latency_s: float
    """Time from the frame to this event, in seconds."""

    @classmethod
    def of(cls, source: str, frame: LabelledFrame, state: CameraState | None, now: float) -> FrameModel:
        """Create from a result in the store; `now` is Unix time in seconds."""
        at = unix_time(frame.stream_id, frame.time_s)
        return cls(
            source=source,
            stream_id=frame.stream_id,
            index=frame.index,
            time_s=round(frame.time_s, 6),
            at=round(at, 6),
            width=state.width if state else None,
            height=state.height if state else None,
            faces=[FaceModel.of(face) for face in frame.faces],
            latency_s=round(now - at, 3),
        )


class SegmentModel(Model):
    """Time range in which a person had one label. Final."""

    label: str
    start_at: float
    end_at: float
    mean_prob: float
    """Mean smoothed probability of the label; 0 for `unknown`."""


class PersonModel(Model):
    """Segments of one person. Numbers are unique within a session (`stream_id`)."""

    person_id: int
    stream_id: str
    segments: list[SegmentModel]


class GapModel(Model):
    """Time range in which the source delivered no frames."""

    stream_id: str
    reason: str
    start_at: float
    end_at: float


class TimelineModel(Model):
    """Segments and gaps of a source that overlap a time range."""

    source: str
    from_at: float
    to_at: float
    people: list[PersonModel]
    gaps: list[GapModel]


def segment_model(segment: Segment) -> SegmentModel:
    """Convert a segment to wall time."""
    start_at, end_at = (round(unix_time(segment.stream_id, at), 6) for at in (segment.start_s, segment.end_s))
    mean_prob = round(segment.mean_prob, 4)
    return SegmentModel(label=segment.label, start_at=start_at, end_at=end_at, mean_prob=mean_prob)


def gap_model(gap: Gap) -> GapModel:
    """Convert a gap to wall time."""
    start_at, end_at = (round(unix_time(gap.stream_id, at), 6) for at in (gap.start_s, gap.end_s))
    return GapModel(stream_id=gap.stream_id, reason=gap.reason, start_at=start_at, end_at=end_at)


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
