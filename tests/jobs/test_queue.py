"""`RqJobs` without a running worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from rq.job import JobStatus

from fer_stream.errors import (
    ConfigError,
    InvalidJobState,
    JobNotFound,
    OutputError,
    OutputExists,
    SourceNotFound,
)
from fer_stream.jobs.maintenance import Maintenance
from fer_stream.jobs.record import IDS, NAMES, FileRqJob
from fer_stream.metrics import Metrics

if TYPE_CHECKING:
    from tests.jobs.conftest import JobsService


@pytest.fixture(scope="module")
def service(make_service: Callable[..., JobsService]) -> JobsService:
    return make_service()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a video.mp4"
    path.write_bytes(b"not decoded by this test")
    return path


def test_submitted_job_is_queued(
    service: JobsService, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = time.time()
    info = service.jobs.submit(
        Path(video.name), out=Path("new/folder"), settings=service.fast_settings, priority="low"
    )
    assert (info.path, info.out, info.name) == (video, tmp_path / "new" / "folder", "a video")
    assert info.out.is_dir()
    assert (info.state, info.priority, info.progress, info.frames, info.attempts) == ("queued", "low", None, 0, 0)
    assert before <= info.submitted_at <= time.time()
    assert (info.started_at, info.ended_at, info.error, info.outputs) == (None, None, None, ())
    assert service.jobs.get(info.job_id) == info
    assert service.jobs.list()[0] == info


def test_submit_refuses_invalid_arguments(service: JobsService, video: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="File not found"):
        service.submit(tmp_path / "none.mp4")
    for name in ("../escape", "a/b", "..", ".hidden", "nul\0"):
        with pytest.raises(ConfigError, match="not a plain file name"):
            service.submit(video, name=name)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot create the directory"):
        service.jobs.submit(video, out=tmp_path / "file", settings=service.fast_settings)
    (service.out / "existing.report.html").write_text("other content")
    with pytest.raises(OutputExists, match=r"existing\.report\.html exists"):
        service.submit(video, name="existing")


def test_check_raises_the_errors_of_submit_without_side_effects(
    service: JobsService, video: Path, tmp_path: Path
) -> None:
    before = service.jobs.list()
    service.jobs.check(video, out=tmp_path / "new folder", settings=service.fast_settings)
    assert (service.jobs.list(), list(tmp_path.iterdir())) == (before, [video])
    with pytest.raises(SourceNotFound, match="File not found"):
        service.jobs.check(tmp_path / "none.mp4", out=tmp_path, settings=service.fast_settings)
    (tmp_path / "existing.report.html").write_text("other content")
    with pytest.raises(OutputExists, match=r"existing\.report\.html exists"):
        service.jobs.check(video, out=tmp_path, settings=service.fast_settings, name="existing")
    service.jobs.check(video, out=tmp_path, settings=service.fast_settings, name="existing", force=True)
    first = service.submit(video, name="checked")
    with pytest.raises(OutputExists, match=f"Job {first} will write"):
        service.jobs.check(video, out=service.out, settings=service.fast_settings, name="checked", force=True)


def test_two_unfinished_jobs_cannot_write_the_same_results(service: JobsService, video: Path) -> None:
    first = service.submit(video, name="same")
    with pytest.raises(OutputExists, match=f"Job {first} will write"):
        service.jobs.submit(video, out=service.out, settings=service.fast_settings, name="same", force=True)
    service.jobs.cancel(first)
    second = service.submit(video, name="same")
    with pytest.raises(OutputExists, match=f"Job {second} will write"):
        service.jobs.retry(first)


def test_queued_job_can_be_cancelled_retried_and_deleted(service: JobsService, video: Path) -> None:
    job_id = service.submit(video, name="changed")
    with pytest.raises(InvalidJobState, match="is queued: only failed and cancelled jobs"):
        service.jobs.retry(job_id)
    with pytest.raises(InvalidJobState, match="is queued: cancel it before"):
        service.jobs.delete(job_id)
    info = service.jobs.cancel(job_id)
    assert info.state == "cancelled"
    assert info.ended_at is not None
    assert 0 < ttl_s(service, job_id) <= 7 * 86_400
    assert service.client.lpos("rq:queue:fer-jobs-normal", job_id) is None
    again = service.jobs.retry(job_id)
    assert (again.state, again.submitted_at) == ("queued", info.submitted_at)
    assert ttl_s(service, job_id) == -1
    assert service.client.lpos("rq:queue:fer-jobs-normal", job_id) is not None
    service.jobs.cancel(job_id)
    service.jobs.delete(job_id)
    for method in (service.jobs.get, service.jobs.cancel, service.jobs.retry, service.jobs.delete):
        with pytest.raises(JobNotFound, match=f"Job {job_id} does not exist"):
            method(job_id)
    assert job_id not in [info.job_id for info in service.jobs.list()]
    assert video.exists()


def test_orphaned_jobs_are_queued_again_at_the_second_check(service: JobsService, video: Path) -> None:
    """A worker that dies right after it took a job off its queue leaves an orphan."""
    queued, retrying = service.submit(video, name="lost"), service.submit(video, name="lost too")
    client = service.client
    for job_id in (queued, retrying):
        client.lrem("rq:queue:fer-jobs-normal", 0, job_id)
    client.hset(FileRqJob.key_for(retrying), "status", JobStatus.SCHEDULED)
    maintenance = make_maintenance(service)
    maintenance.recover_orphans()
    assert client.lpos("rq:queue:fer-jobs-normal", queued) is None
    maintenance.recover_orphans()
    for _ in range(2):
        maintenance.recover_orphans()
        assert [client.lpos("rq:queue:fer-jobs-normal", job_id, count=0) for job_id in (queued, retrying)] == [
            [position(service, queued)],
            [position(service, retrying)],
        ]
    assert service.jobs.get(retrying).state == "queued"


def test_ids_and_names_of_expired_jobs_are_removed(service: JobsService, video: Path) -> None:
    job_id = service.submit(video, name="old")
    output_prefix = str(service.out / "old")
    assert service.client.hget(NAMES, output_prefix) == job_id.encode()
    service.client.delete(FileRqJob.key_for(job_id))
    make_maintenance(service).remove_expired()
    assert service.client.hget(NAMES, output_prefix) is None
    assert service.client.zscore(IDS, job_id) is None


def make_maintenance(service: JobsService) -> Maintenance:
    return Maintenance(service.client, Metrics(CollectorRegistry()))


def ttl_s(service: JobsService, job_id: str) -> int:
    return int(service.client.ttl(FileRqJob.key_for(job_id)))


def position(service: JobsService, job_id: str) -> object:
    return service.client.lpos("rq:queue:fer-jobs-normal", job_id)
