"""What the HTTP API says, as JSON. Times are Unix seconds; a name that ends in `_s` is in seconds of its stream."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fer_stream.jobs.job import JobInfo, JobState, Priority
from fer_stream.records import LABELS, ClosedGap, ClosedSegment, LabelledFace, LabelledFrame, unix_time
from fer_stream.store.protocol import CameraState


class Model(BaseModel):
    """The base of all that is sent."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ProblemModel(Model):
    """What is wrong, and the cure (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    """What is wrong."""
    cure: str = ""
    """What to do about it."""


class HealthModel(Model):
    """The process is there."""

    status: Literal["ok"] = "ok"


class SourceModel(Model):
    """How a camera is, and when its newest result was."""

    name: str
    up: bool | None
    """Do pictures come? null where nobody reads this camera now."""
    since: float | None = None
    """Since when it is so."""
    reason: str | None = None
    """Why it is down: refused, unauthorized, not_found, timeout, stalled, ended, decode, network, internal."""
    text: str = ""
    """The same for a person."""
    failures: int = 0
    """Connections that ended since the last picture."""
    latest_at: float | None = None
    """The wall time of the newest result."""
    faces: int | None = None
    """How many faces it has."""
    width: int | None = None
    """Of the pictures, in px, as all boxes are; null until there was one."""
    height: int | None = None

    @classmethod
    def of(cls, name: str, state: CameraState | None, latest: LabelledFrame | None) -> SourceModel:
        """What the store knows of a camera."""
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
    """How well a face can be judged."""

    score: float
    """0..1"""
    reason: str
    """ok, or why it is not judged: small, blurred, off_frontal, truncated, unclear."""


class FaceModel(Model):
    """One face of a frame."""

    person_id: int
    """The person, as long as they are followed; unique within a stream."""
    xyxy: list[float] = Field(min_length=4, max_length=4)
    """Left, top, right, bottom in px of the frame."""
    confidence: float
    """Of the detector, that this is a face."""
    label: str
    """One of the seven emotions, or unknown."""
    probs: dict[str, float]
    """The smoothed probability of each emotion, which the label is read from."""
    quality: QualityModel

    @classmethod
    def of(cls, face: LabelledFace) -> FaceModel:
        """A face of the store."""
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
    """One result: a frame and its faces. It is provisional: a label may still change within about two seconds."""

    source: str
    stream_id: str
    index: int
    time_s: float
    at: float
    """Wall time of the picture."""
    width: int | None
    """Of the picture, in px, where it is known."""
    height: int | None
    provisional: Literal[True] = True
    faces: list[FaceModel]
    latency_s: float
    """From the picture to this event."""

    @classmethod
    def of(cls, source: str, frame: LabelledFrame, state: CameraState | None, now: float) -> FrameModel:
        """A result of the store, at Unix time `now`."""
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
    """One person wore one label for a while. It is final."""

    label: str
    start_at: float
    end_at: float
    mean_prob: float
    """Mean smoothed probability of the label; 0 for unknown."""


class PersonModel(Model):
    """The segments of one person. A number means another person in every stream."""

    person: int
    stream_id: str
    segments: list[SegmentModel]


class GapModel(Model):
    """The camera gave no pictures for a while."""

    stream_id: str
    reason: str
    start_at: float
    end_at: float


class TimelineModel(Model):
    """What is known of a stretch of wall time."""

    source: str
    from_at: float
    to_at: float
    people: list[PersonModel]
    gaps: list[GapModel]


def segment_model(closed: ClosedSegment) -> SegmentModel:
    """A segment of the store in wall time."""
    one = closed.segment
    start_at, end_at = (round(unix_time(closed.stream_id, time_s), 6) for time_s in (one.start_s, one.end_s))
    return SegmentModel(label=one.label, start_at=start_at, end_at=end_at, mean_prob=round(one.mean_prob, 4))


def gap_model(closed: ClosedGap) -> GapModel:
    """A gap of the store in wall time."""
    start_at, end_at = (
        round(unix_time(closed.stream_id, time_s), 6) for time_s in (closed.gap.start_s, closed.gap.end_s)
    )
    return GapModel(stream_id=closed.stream_id, reason=closed.gap.reason, start_at=start_at, end_at=end_at)


class OutputModel(Model):
    """A file that a job wrote."""

    name: str
    bytes: int


class JobModel(Model):
    """A recorded file as a job."""

    job_id: str
    name: str
    """What its outputs are called, made from the name of the upload."""
    state: JobState
    priority: Priority
    submitted_at: float
    progress: float | None
    """0..1, or null where the file does not say how long it is."""
    frames: int
    """Frames looked at so far."""
    started_at: float | None
    ended_at: float | None
    retry_at: float | None
    """When the next attempt begins at the earliest."""
    attempts: int
    error: str | None
    """Why it failed."""
    outputs: list[OutputModel]
    report: bool
    """Is there a report to look at?"""

    @classmethod
    def of(cls, job: JobInfo) -> JobModel:
        """A job without the paths of this machine."""
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
            report=any(output.name.endswith(REPORT) for output in outputs),
        )


REPORT = ".report.html"
