"""Routes of the jobs: recorded videos, sent and worked off."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi import Path as InPath
from starlette.responses import FileResponse

from fer_stream.jobs.job import PRIORITIES, Priority
from fer_stream.web.cleanup import sent_here
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import REPORT, JobModel
from fer_stream.web.state import API, AtDesk

router = APIRouter(prefix=API, tags=["jobs"])

JobId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "A video or a still image."},
                        "priority": {"type": "string", "enum": list(PRIORITIES), "default": "normal"},
                    },
                }
            }
        },
    }
}
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The report."}
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The file, with a type of its own.",
    }
}

# Results tell of an upload, which may hold anything. Whatever got into them shall not act in our name: in a sandbox
# without an origin a page can neither read from us nor send to us.
_SANDBOX = {
    "Content-Security-Policy": (
        "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data: blob:; media-src 'self'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}
_SHOWN = frozenset({".html", ".mp4", ".png"})


@router.get("/jobs")
def jobs(desk: AtDesk) -> list[JobModel]:
    """All jobs that are known, the newest first."""
    return [JobModel.of(job) for job in desk.jobs.list()]


@router.post("/jobs", status_code=201, openapi_extra=_FORM)
async def submit(request: Request, desk: AtDesk) -> JobModel:
    """Send a video or a still image. It is deleted here when its job is done."""
    upload = await desk.uploads.receive(request)
    try:
        put = partial(
            desk.jobs.submit,
            upload.path,
            out=desk.results / upload.path.stem,
            settings=desk.file_settings,
            priority=_priority(upload.fields.get("priority", "normal")),
            name=upload.name,
        )
        return JobModel.of(await anyio.to_thread.run_sync(put))
    except BaseException:
        desk.uploads.discard(upload.path)
        raise


@router.get("/jobs/{job_id}")
def job(job_id: JobId, desk: AtDesk) -> JobModel:
    """One job."""
    return JobModel.of(desk.jobs.get(job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: JobId, desk: AtDesk) -> JobModel:
    """End a job that has not ended, without results."""
    return JobModel.of(desk.jobs.cancel(job_id))


@router.post("/jobs/{job_id}/retry")
def retry(job_id: JobId, desk: AtDesk) -> JobModel:
    """Try a job again that failed or was cancelled, as long as its upload is kept."""
    info = desk.jobs.get(job_id)
    if not info.path.exists():
        raise Problem(409, "The video of this job is not kept any more.", "Send it again.")
    return JobModel.of(desk.jobs.retry(job_id))


@router.delete("/jobs/{job_id}", status_code=204)
def delete(job_id: JobId, desk: AtDesk) -> None:
    """Forget a job that has ended, with its upload and results. What was submitted elsewhere keeps its files."""
    info = desk.jobs.get(job_id)
    ours = sent_here(info, desk.results)
    desk.jobs.delete(job_id, outputs=ours)
    if ours:
        desk.uploads.discard(info.path)
        if info.out.is_dir() and not any(info.out.iterdir()):
            info.out.rmdir()


@router.get("/jobs/{job_id}/report", response_class=FileResponse, responses=_REPORT)
def report(job_id: JobId, desk: AtDesk) -> FileResponse:
    """The report of a job that is done, as a page of its own."""
    return _sent(next((path for path in desk.jobs.get(job_id).outputs if path.name.endswith(REPORT)), None))


@router.get("/jobs/{job_id}/files/{name}", response_class=FileResponse, responses=_FILE)
def file(job_id: JobId, name: str, desk: AtDesk) -> FileResponse:
    """One of the files that a job wrote, by the names in `outputs`."""
    return _sent(next((path for path in desk.jobs.get(job_id).outputs if path.name == name), None))


def _sent(path: Path | None) -> FileResponse:
    if path is None or not path.is_file():
        raise Problem(404, "The job has no such file.", "`outputs` of the job lists those that it has.")
    how = "inline" if path.suffix in _SHOWN else "attachment"
    return FileResponse(path, headers=_SANDBOX, filename=path.name, content_disposition_type=how)


def _priority(text: str) -> Priority:
    found = next((priority for priority in PRIORITIES if priority == text), None)
    if found is None:
        raise Problem(422, "This is no priority.", f"Give one of {', '.join(PRIORITIES)}.")
    return found
