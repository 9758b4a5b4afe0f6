"""A worker that was suspended while its job was given to another one drops the job without side effects."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from rq.timeouts import HorseMonitorTimeoutException

from fer_stream.config.live import JobSettings
from fer_stream.errors import OutputError
from fer_stream.jobs.queue import RqJobs
from fer_stream.jobs.record import FileRqJob, fetch_jobs, queue_for
from fer_stream.jobs.worker import JobWorker
from fer_stream.metrics import Metrics
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.jobs.conftest import JobsService

RESULTS = ["suspended.frames.csv", "suspended.timeline.json"]


@pytest.fixture
def long_clip(clips: Path) -> Path:
    return clips / "long_mostly_no_face.mp4"


def test_worker_resumed_during_the_next_attempt_drops_the_job(service: JobsService, long_clip: Path) -> None:
    first = service.start_worker()
    job_id = service.submit(long_clip, name="suspended")
    service.wait_running(job_id)
    child = service.job_process(job_id)
    with Suspended(first.pid, child) as suspended:
        service.expire_heartbeat(job_id)
        service.start_worker()
        service.wait_for(job_id, lambda info: info.attempts == 2 and info.frames > 0)
        suspended.resume(first.pid)
        wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert service.jobs.get(job_id).state == "running"
    assert service.files_of("suspended") == [f".partial-{job_id}-2"]
    info = service.wait(job_id, "done", "failed", "retrying")
    assert (info.state, info.attempts, info.error) == ("done", 2, None)
    assert service.files_of("suspended") == RESULTS
    assert "job_reassigned" in service.log_text()
    assert first.poll() is None


def test_job_process_stops_by_itself_while_its_worker_is_suspended(
    service: JobsService, long_clip: Path, clips: Path
) -> None:
    first = service.start_worker()
    job_id = submit_with_long_retry_delay(service, long_clip)
    service.wait_running(job_id)
    child = service.job_process(job_id)
    with Suspended(first.pid):
        service.expire_heartbeat(job_id)
        other = service.start_worker()
        left = service.wait(job_id, "retrying")
        wait_until(lambda: state_of(child) == "Z")
        info = service.jobs.get(job_id)
        assert (info.attempts, info.frames, info.error) == (1, left.frames, left.error), "the process continued"
        service.make_retry_due(job_id)
        info = service.wait(job_id, "done", "failed")
        assert (info.state, info.attempts, info.error) == ("done", 2, None)
        assert service.files_of("suspended") == RESULTS
        other.terminate()
        assert other.wait(20) == 0
    next_id = service.submit(clips / "no_face.mp4")
    assert service.wait(next_id, "done", "failed").state == "done"
    assert len(re.findall(rf"job_ended.*job={job_id}.*outcome=done", service.log_text())) == 1


def test_worker_resumed_before_the_next_attempt_drops_the_job(service: JobsService, long_clip: Path) -> None:
    first = service.start_worker()
    job_id = submit_with_long_retry_delay(service, long_clip)
    service.wait_running(job_id)
    child = service.job_process(job_id)
    with Suspended(first.pid, child) as suspended:
        service.expire_heartbeat(job_id)
        service.start_worker()
        service.wait(job_id, "retrying")
        suspended.resume(child)
        wait_until(lambda: state_of(child) == "Z")
        assert service.jobs.get(job_id).state == "retrying"
        suspended.resume(first.pid)
        wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert service.files_of("suspended") == []
    service.make_retry_due(job_id)
    info = service.wait(job_id, "done", "failed")
    assert (info.state, info.attempts, info.error) == ("done", 2, None)
    assert service.files_of("suspended") == RESULTS


def test_reassigned_job_is_not_started(service: JobsService, clips: Path) -> None:
    job_id = service.submit(clips / "no_face.mp4")
    former, owner = make_worker(service), make_worker(service)
    job = begin_attempt(former, job_id)
    execution = former.prepare_execution(job)
    begin_attempt(owner, job_id)
    assert not former.perform_job(job, queue_for("normal", service.client), execution)
    assert job.owned_by(owner.name)
    info = service.jobs.get(job_id)
    assert (info.state, info.attempts, info.error) == ("queued", 2, None)
    assert not service.client.zcard(job.started_job_registry.key), "the job would appear abandoned"


def test_failures_of_a_former_owner_are_not_recorded(service: JobsService, clips: Path) -> None:
    job_id = service.submit(clips / "no_face.mp4")
    former, owner = make_worker(service), make_worker(service)
    job = begin_attempt(former, job_id)
    owned = begin_attempt(owner, job_id)
    former.handle_exception(job, OutputError, OutputError("Cannot write"), None)
    former.handle_work_horse_killed(job, 0, signal.SIGKILL, None)  # type: ignore[no-untyped-call]
    assert service.jobs.get(job_id).error is None
    owner.handle_exception(owned, OutputError, OutputError("Cannot write"), None)
    assert job_of(service, job_id).meta["error"] == "Cannot write"


def test_exit_status_is_kept_if_the_alarm_arrives_late(service: JobsService, monkeypatch: pytest.MonkeyPatch) -> None:
    reap = os.wait4

    def reap_and_ring(pid: int, options: int) -> tuple[int, int, Any]:
        reaped = reap(pid, options)
        signal.raise_signal(signal.SIGALRM)
        return reaped

    worker = make_worker(service)
    worker._horse_pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    monkeypatch.setattr(os, "wait4", reap_and_ring)
    with worker.death_penalty_class(60, HorseMonitorTimeoutException):
        pid, status, _ = worker.wait_for_horse()
    assert status is not None
    assert (pid, os.waitstatus_to_exitcode(status)) == (worker.horse_pid, 3)


def test_stopped_worker_takes_no_job(service: JobsService, clips: Path) -> None:
    job_id = service.submit(clips / "no_face.mp4")
    worker = make_worker(service)
    worker._stop.set()
    worker.run()
    assert queue_for("normal", service.client).job_ids == [job_id]


def test_cleanup_of_an_attempt_keeps_later_ones_even_after_a_retry(service: JobsService, clips: Path) -> None:
    job_id = service.submit(clips / "no_face.mp4")
    first = begin_attempt(make_worker(service), job_id)
    first.staging_dir(first.task()).mkdir()
    service.jobs.cancel(job_id)
    service.jobs.retry(job_id)
    second = begin_attempt(make_worker(service), job_id)
    second.staging_dir(second.task()).mkdir()
    first.remove_partial_outputs()
    assert service.files_of("no_face") == [f".partial-{job_id}-2"]
    second.remove_partial_outputs()
    assert service.files_of("no_face") == []


class Suspended(ExitStack):
    """Suspends processes with SIGSTOP until `resume` or the end of the body."""

    def __init__(self, *processes: int) -> None:
        super().__init__()
        for process in processes:
            os.kill(process, signal.SIGSTOP)
            self.callback(self.resume, process)

    def resume(self, process: int) -> None:
        if Path(f"/proc/{process}").exists():
            os.kill(process, signal.SIGCONT)


def submit_with_long_retry_delay(service: JobsService, path: Path) -> str:
    jobs = RqJobs(service.link, JobSettings(retry_delays_s=(3600,)))
    return jobs.submit(path, out=service.out, settings=service.fast_settings, name="suspended").job_id


def make_worker(service: JobsService) -> JobWorker:
    """Return a worker in this process that does not run yet."""
    metrics = Metrics(CollectorRegistry())
    return JobWorker(service.client, workers=1, metrics=metrics, stop=Event(), heartbeat=lambda: None)


def begin_attempt(worker: JobWorker, job_id: str) -> FileRqJob:
    (record,) = fetch_jobs(worker.connection, [job_id])
    assert record is not None
    record.begin_attempt(worker.name)
    return record


def job_of(service: JobsService, job_id: str) -> FileRqJob:
    (record,) = fetch_jobs(service.client, [job_id])
    assert record is not None
    return record


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
