"""A worker that slept while its job was given to another one: it gives up, and harms nothing of that one."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from rq.exceptions import StopRequested
from rq.timeouts import HorseMonitorTimeoutException

from fer_stream.config import JobSettings
from fer_stream.errors import OutputError
from fer_stream.jobs.queue import RqJobs
from fer_stream.jobs.record import Record, queue_of, records
from fer_stream.jobs.worker import JobWorker
from fer_stream.metrics import Metrics
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.jobs.conftest import Desk

RESULTS = ["slept.frames.csv", "slept.timeline.json"]


@pytest.fixture
def long_clip(clips: Path) -> Path:
    return clips / "long_mostly_no_face.mp4"


def test_a_worker_that_wakes_beside_the_next_attempt_gives_up(desk: Desk, long_clip: Path) -> None:
    sleeper = desk.work()
    job_id = desk.submit(long_clip, name="slept")
    desk.begun(job_id)
    child = desk.child(job_id)
    with asleep(sleeper.pid, child) as sleeping:
        desk.fall_silent(job_id)
        desk.work()
        desk.wait_for(job_id, lambda info: info.attempts == 2 and info.frames > 0)
        sleeping.wake(sleeper.pid)
        until(lambda: not Path(f"/proc/{child}").exists())
    assert desk.jobs.get(job_id).state == "running"
    assert desk.written("slept") == [f".partial-{job_id}-2"]
    info = desk.wait(job_id, "done", "failed", "retrying")
    assert (info.state, info.attempts, info.error) == ("done", 2, None)
    assert desk.written("slept") == RESULTS
    assert f"the job {job_id} was given to another worker" in desk.said()
    assert sleeper.poll() is None


def test_a_process_whose_worker_sleeps_gives_up_by_itself(desk: Desk, long_clip: Path, clips: Path) -> None:
    sleeper = desk.work()
    job_id = desk.submit(long_clip, name="slept")
    desk.begun(job_id)
    child = desk.child(job_id)
    with asleep(sleeper.pid):
        desk.fall_silent(job_id)
        other = desk.work()
        left = desk.wait(job_id, "retrying")
        until(lambda: state_of(child) == "Z")
        info = desk.jobs.get(job_id)
        assert (info.attempts, info.frames, info.error) == (1, left.frames, left.error), "it went on"
        info = desk.wait(job_id, "done", "failed")
        assert (info.state, info.attempts, info.error) == ("done", 2, None)
        assert desk.written("slept") == RESULTS
        other.terminate()
        assert other.wait(20) == 0
    next_id = desk.submit(clips / "no_face.mp4")
    assert desk.wait(next_id, "done", "failed").state == "done"
    assert desk.said().count(f"job {job_id} is done") == 1


def test_a_worker_that_wakes_before_the_next_attempt_gives_up(desk: Desk, long_clip: Path) -> None:
    sleeper = desk.work()
    patient = RqJobs(desk.link, JobSettings(retry_delays_s=(5,)))
    job_id = patient.submit(long_clip, out=desk.out, settings=desk.quick, name="slept").job_id
    desk.begun(job_id)
    child = desk.child(job_id)
    with asleep(sleeper.pid, child) as sleeping:
        desk.fall_silent(job_id)
        desk.work()
        desk.wait(job_id, "retrying")
        sleeping.wake(child)
        until(lambda: state_of(child) == "Z")
        assert desk.jobs.get(job_id).state == "retrying"
        sleeping.wake(sleeper.pid)
        until(lambda: not Path(f"/proc/{child}").exists())
    assert desk.written("slept") == []
    info = desk.wait(job_id, "done", "failed")
    assert (info.state, info.attempts, info.error) == ("done", 2, None)
    assert desk.written("slept") == RESULTS


def test_a_process_that_comes_to_its_job_too_late_does_not_begin(desk: Desk, clips: Path) -> None:
    job_id = desk.submit(clips / "no_face.mp4")
    slept, other = worker(desk), worker(desk)
    mine = begun_by(slept, job_id)
    execution = slept.prepare_execution(mine)
    begun_by(other, job_id)
    assert not slept.perform_job(mine, queue_of("normal", desk.client), execution)
    assert mine.is_of(other.name)
    info = desk.jobs.get(job_id)
    assert (info.state, info.attempts, info.error) == ("queued", 2, None)
    assert not desk.client.zcard(mine.started_job_registry.key), "it would be found abandoned"


def test_what_fails_for_a_worker_that_is_out_is_not_held_against_the_job(desk: Desk, clips: Path) -> None:
    job_id = desk.submit(clips / "no_face.mp4")
    slept, other = worker(desk), worker(desk)
    mine = begun_by(slept, job_id)
    theirs = begun_by(other, job_id)
    slept.handle_exception(mine, OutputError, OutputError("Cannot write"), None)
    slept.handle_work_horse_killed(mine, 0, signal.SIGKILL, None)
    assert desk.jobs.get(job_id).error is None
    other.handle_exception(theirs, OutputError, OutputError("Cannot write"), None)
    assert record_of(desk, job_id).meta["error"] == "Cannot write"


def test_how_a_process_ended_is_known_though_the_alarm_is_heard_late(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reap = os.wait4

    def reap_and_ring(pid: int, options: int) -> tuple[int, int, Any]:
        reaped = reap(pid, options)
        signal.raise_signal(signal.SIGALRM)
        return reaped

    slept = worker(desk)
    slept._horse_pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    monkeypatch.setattr(os, "wait4", reap_and_ring)
    with slept.death_penalty_class(60, HorseMonitorTimeoutException):
        pid, status, _ = slept.wait_for_horse()
    assert status is not None
    assert (pid, os.waitstatus_to_exitcode(status)) == (slept.horse_pid, 3)


def test_a_worker_that_is_told_to_stop_between_two_jobs_takes_no_other(desk: Desk, clips: Path) -> None:
    job_id = desk.submit(clips / "no_face.mp4")
    told = worker(desk)
    told.request_stop(signal.SIGTERM, None)
    with pytest.raises(StopRequested):
        told.dequeue_job_and_maintain_ttl(None)
    assert queue_of("normal", desk.client).job_ids == [job_id]


def test_no_attempt_sweeps_up_a_later_one_not_even_after_a_retry(desk: Desk, clips: Path) -> None:
    job_id = desk.submit(clips / "no_face.mp4")
    first = begun_by(worker(desk), job_id)
    first.folder(first.task()).mkdir()
    desk.jobs.cancel(job_id)
    desk.jobs.retry(job_id)
    second = begun_by(worker(desk), job_id)
    second.folder(second.task()).mkdir()
    first.sweep()
    assert desk.written("no_face") == [f".partial-{job_id}-2"]
    second.sweep()
    assert desk.written("no_face") == []


class asleep(ExitStack):  # noqa: N801 - reads as one
    """Processes that are stopped, until they are woken, or the test ends."""

    def __init__(self, *processes: int) -> None:
        super().__init__()
        for process in processes:
            os.kill(process, signal.SIGSTOP)
            self.callback(self.wake, process)

    def wake(self, process: int) -> None:
        if Path(f"/proc/{process}").exists():
            os.kill(process, signal.SIGCONT)


def worker(desk: Desk) -> JobWorker:
    """One that is in this process, and takes nothing off the queue."""
    metrics = Metrics(CollectorRegistry())
    return JobWorker(desk.client, processes=1, metrics=metrics, told=lambda _: None, beat=lambda: None)


def begun_by(by: JobWorker, job_id: str) -> Record:
    (record,) = records(by.connection, [job_id])
    assert record is not None
    record.begin_attempt(by.name)
    return record


def record_of(desk: Desk, job_id: str) -> Record:
    (record,) = records(desk.client, [job_id])
    assert record is not None
    return record


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
