"""Jobs as those see them who submit them; no worker runs here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rq.job import JobStatus

from fer_stream.errors import (
    ConfigError,
    JobNotFound,
    OutputError,
    OutputExists,
    SourceNotFound,
    WrongJobState,
)
from fer_stream.jobs.maintenance import Upkeep
from fer_stream.jobs.record import IDS, NAMES, Record

if TYPE_CHECKING:
    from tests.jobs.conftest import Desk


@pytest.fixture(scope="module")
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "a film.mp4"
    path.write_bytes(b"not looked at before it is done")
    return path


def test_a_submitted_job_waits(desk: Desk, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = time.time()
    info = desk.jobs.submit(Path(film.name), out=Path("new/folder"), settings=desk.quick, priority="low")
    assert (info.path, info.out, info.name) == (film, tmp_path / "new" / "folder", "a film")
    assert info.out.is_dir()
    assert (info.state, info.priority, info.progress, info.frames, info.attempts) == ("queued", "low", None, 0, 0)
    assert before <= info.submitted_at <= time.time()
    assert (info.started_at, info.ended_at, info.error, info.outputs) == (None, None, None, ())
    assert desk.jobs.get(info.job_id) == info
    assert desk.jobs.list()[0] == info


def test_what_cannot_be_done_is_refused_at_once(desk: Desk, film: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no file"):
        desk.submit(tmp_path / "none.mp4")
    for name in ("../escape", "a/b", "..", ".hidden", "nul\0"):
        with pytest.raises(ConfigError, match="no plain file name"):
            desk.submit(film, name=name)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot make the folder"):
        desk.jobs.submit(film, out=tmp_path / "file", settings=desk.quick)
    (desk.out / "there.report.html").write_text("theirs")
    with pytest.raises(OutputExists, match=r"there\.report\.html exists"):
        desk.submit(film, name="there")


def test_a_check_refuses_what_submit_would_and_leaves_nothing(desk: Desk, film: Path, tmp_path: Path) -> None:
    known = desk.jobs.list()
    desk.jobs.check(film, out=tmp_path / "no folder yet", settings=desk.quick)
    assert (desk.jobs.list(), list(tmp_path.iterdir())) == (known, [film])
    with pytest.raises(SourceNotFound, match="no file"):
        desk.jobs.check(tmp_path / "none.mp4", out=tmp_path, settings=desk.quick)
    (tmp_path / "there.report.html").write_text("theirs")
    with pytest.raises(OutputExists, match=r"there\.report\.html exists"):
        desk.jobs.check(film, out=tmp_path, settings=desk.quick, name="there")
    desk.jobs.check(film, out=tmp_path, settings=desk.quick, name="there", force=True)
    first = desk.submit(film, name="checked")
    with pytest.raises(OutputExists, match=f"The job {first} will write"):
        desk.jobs.check(film, out=desk.out, settings=desk.quick, name="checked", force=True)


def test_two_unfinished_jobs_never_write_the_same(desk: Desk, film: Path) -> None:
    first = desk.submit(film, name="same")
    with pytest.raises(OutputExists, match=f"The job {first} will write"):
        desk.jobs.submit(film, out=desk.out, settings=desk.quick, name="same", force=True)
    desk.jobs.cancel(first)
    second = desk.submit(film, name="same")
    with pytest.raises(OutputExists, match=f"The job {second} will write"):
        desk.jobs.retry(first)


def test_a_job_that_waits_is_cancelled_retried_and_deleted(desk: Desk, film: Path) -> None:
    job_id = desk.submit(film, name="changed")
    with pytest.raises(WrongJobState, match="is queued: only one that failed or was cancelled"):
        desk.jobs.retry(job_id)
    with pytest.raises(WrongJobState, match="is queued: cancel it first"):
        desk.jobs.delete(job_id)
    info = desk.jobs.cancel(job_id)
    assert info.state == "cancelled"
    assert info.ended_at is not None
    assert 0 < lifetime(desk, job_id) <= 7 * 86_400
    assert desk.client.lpos("rq:queue:fer-jobs-normal", job_id) is None
    again = desk.jobs.retry(job_id)
    assert (again.state, again.submitted_at) == ("queued", info.submitted_at)
    assert lifetime(desk, job_id) == -1
    assert desk.client.lpos("rq:queue:fer-jobs-normal", job_id) is not None
    desk.jobs.cancel(job_id)
    desk.jobs.delete(job_id)
    for ask in (desk.jobs.get, desk.jobs.cancel, desk.jobs.retry, desk.jobs.delete):
        with pytest.raises(JobNotFound, match=f"There is no job {job_id}"):
            ask(job_id)
    assert job_id not in [info.job_id for info in desk.jobs.list()]
    assert film.exists()


def test_jobs_that_a_crash_left_in_no_queue_are_found(desk: Desk, film: Path) -> None:
    """A worker that dies right after it took a job off its queue has told nobody that it has it."""
    queued, retrying = desk.submit(film, name="lost"), desk.submit(film, name="lost too")
    client = desk.client
    for job_id in (queued, retrying):
        client.lrem("rq:queue:fer-jobs-normal", 0, job_id)
    client.hset(Record.key_for(retrying), "status", JobStatus.SCHEDULED)
    upkeep = Upkeep(client)
    upkeep.tidy()
    assert client.lpos("rq:queue:fer-jobs-normal", queued) is None
    upkeep.tidy()
    for _ in range(2):
        upkeep.tidy()
        assert [client.lpos("rq:queue:fer-jobs-normal", job_id, count=0) for job_id in (queued, retrying)] == [
            [position(desk, queued)],
            [position(desk, retrying)],
        ]
    assert desk.jobs.get(retrying).state == "queued"


def test_what_has_expired_is_forgotten(desk: Desk, film: Path) -> None:
    job_id = desk.submit(film, name="old")
    place = str(desk.out / "old")
    assert desk.client.hget(NAMES, place) == job_id.encode()
    desk.client.delete(Record.key_for(job_id))
    Upkeep(desk.client).tidy()
    assert desk.client.hget(NAMES, place) is None
    assert desk.client.zscore(IDS, job_id) is None


def lifetime(desk: Desk, job_id: str) -> int:
    return int(desk.client.ttl(Record.key_for(job_id)))


def position(desk: Desk, job_id: str) -> object:
    return desk.client.lpos("rq:queue:fer-jobs-normal", job_id)
