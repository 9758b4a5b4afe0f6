"""Routes for jobs: upload of recorded files, progress, results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi import Path as PathParam
from starlette.responses import FileResponse

from fer_stream.jobs.job import PRIORITIES, Priority
from fer_stream.web.schemas import API, REPORT_SUFFIX, JobModel, Problem
from fer_stream.web.state import State
from fer_stream.web.uploads import is_web_upload

router = APIRouter(prefix=API, tags=["jobs"])

JobId = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

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
        "description": "The file, with its media type.",
    }
}

# Results are made from uploads, which are untrusted. In a sandbox without an origin, scripts in a result can neither
# read from the API nor send requests to it with the credentials of the user.
_SANDBOX = {
    "Content-Security-Policy": (
        "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data: blob:; media-src 'self'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}
_INLINE_SUFFIXES = frozenset({".html", ".mp4", ".png"})


@router.get("/jobs")
def jobs(state: State) -> list[JobModel]:
    """List all jobs, newest first."""
    return [JobModel.of(job) for job in state.jobs.list()]


@router.post("/jobs", status_code=201, openapi_extra=_FORM)
async def submit(request: Request, state: State) -> JobModel:
    """Upload a video or still image and queue it. The upload is deleted when the job is done."""
    upload = await state.uploads.receive(request)
    try:
        submit_job = partial(
            state.jobs.submit,
            upload.path,
            out=state.results_dir / upload.path.stem,
            settings=state.file_settings,
            priority=_priority(upload.fields.get("priority", "normal")),
            name=upload.name,
        )
        return JobModel.of(await anyio.to_thread.run_sync(submit_job))
    except BaseException:
        state.uploads.discard(upload.path)
        raise


@router.get("/jobs/{job_id}")
def job(job_id: JobId, state: State) -> JobModel:
    """Return one job."""
    return JobModel.of(state.jobs.get(job_id))


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: JobId, state: State) -> JobModel:
    """Cancel an unfinished job. It leaves no results."""
    return JobModel.of(state.jobs.cancel(job_id))


@router.post("/jobs/{job_id}/retry")
def retry(job_id: JobId, state: State) -> JobModel:
    """Retry a failed or cancelled job, while its upload is kept."""
    info = state.jobs.get(job_id)
    if not info.path.exists():
        raise Problem(409, "The upload of this job was deleted.", "Upload the file again.")
    return JobModel.of(state.jobs.retry(job_id))


@router.delete("/jobs/{job_id}", status_code=204)
def delete(job_id: JobId, state: State) -> None:
    """Delete a job that has ended, with its upload and results.

    Jobs that were not submitted over HTTP keep their files.
    """
    info = state.jobs.get(job_id)
    uploaded = is_web_upload(info, state.results_dir)
    state.jobs.delete(job_id, outputs=uploaded)
    if uploaded:
        state.uploads.discard(info.path)
        if info.out.is_dir() and not any(info.out.iterdir()):
            info.out.rmdir()


@router.get("/jobs/{job_id}/report", response_class=FileResponse, responses=_REPORT)
def report(job_id: JobId, state: State) -> FileResponse:
    """Return the HTML report of a finished job."""
    return _file_response(
        next((path for path in state.jobs.get(job_id).outputs if path.name.endswith(REPORT_SUFFIX)), None)
    )


@router.get("/jobs/{job_id}/files/{name}", response_class=FileResponse, responses=_FILE)
def file(job_id: JobId, name: str, state: State) -> FileResponse:
    """Return a result file; `outputs` of the job lists the names."""
    return _file_response(next((path for path in state.jobs.get(job_id).outputs if path.name == name), None))


def _file_response(path: Path | None) -> FileResponse:
    if path is None or not path.is_file():
        raise Problem(404, "The job has no such file.", "`outputs` of the job lists its files.")
    disposition = "inline" if path.suffix in _INLINE_SUFFIXES else "attachment"
    return FileResponse(path, headers=_SANDBOX, filename=path.name, content_disposition_type=disposition)


def _priority(text: str) -> Priority:
    found = next((priority for priority in PRIORITIES if priority == text), None)
    if found is None:
        raise Problem(422, "Unknown priority.", f"Use one of {', '.join(PRIORITIES)}.")
    return found
