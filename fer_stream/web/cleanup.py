"""Takes away what people sent, and what came of it, when it is not needed any more: it shows people."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from fer_stream.jobs.job import JobInfo

_log = logging.getLogger(__name__)

# An upload that belongs to no job by then never will: it is submitted as soon as it is whole.
_ORPHAN_S = 3600.0
_OURS = re.compile(r"[0-9a-f]{32}")


def sent_here(job: JobInfo, results: Path) -> bool:
    """Did the job come through the web, so that its results lie in a folder that nobody else uses?"""
    return job.out.parent == results and _OURS.fullmatch(job.out.name) is not None


def tidy(
    jobs: Sequence[JobInfo], uploads: Path, results: Path, *, now: float, upload_s: float, result_s: float
) -> None:
    """Delete the uploads and results that no job in `jobs`, which are all, needs. `now` is Unix time.

    An upload goes when its job is done; one whose job failed or was cancelled stays for `upload_s`, for another try.
    Results go after `result_s`, by when the record of their job has expired; never while there is one.
    """
    wanted = {job.path: job for job in jobs}
    for path in uploads.glob("*"):
        if _is_over(path, wanted.get(path), now, upload_s):
            path.unlink(missing_ok=True)
            _log.info("the upload %s is deleted", path.stem)
    known = {job.out for job in jobs}
    for folder in results.glob("*"):
        if _OURS.fullmatch(folder.name) and folder not in known and now - folder.stat().st_mtime > result_s:
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("the results of the upload %s are deleted", folder.name)


def _is_over(upload: Path, job: JobInfo | None, now: float, keep_s: float) -> bool:
    if job is None:
        return now - upload.stat().st_mtime > _ORPHAN_S
    if job.state == "done":
        return True
    return job.ended_at is not None and now - job.ended_at > keep_s
