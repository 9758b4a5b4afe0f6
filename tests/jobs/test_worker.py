"""Jobs done by real workers, and what is left of them when something dies."""

from __future__ import annotations

import os
import shutil
import signal
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import redis
from rq import Callback, Queue, Retry
from rq.serializers import JSONSerializer

from fer_stream.config import JobSettings
from fer_stream.errors import OutputExists, WrongJobState
from fer_stream.files import Engine, FileJob, run_job
from fer_stream.jobs.job import JobInfo, Priority
from fer_stream.jobs.queue import RqJobs

if TYPE_CHECKING:
    from tests.jobs.conftest import Desk

TABLES = ["frames.csv", "timeline.json"]


def tables_of(name: str) -> list[str]:
    return [f"{name}.{ending}" for ending in TABLES]


@pytest.fixture
def long_clip(clips: Path) -> Path:
    return clips / "long_mostly_no_face.mp4"


def test_a_job_gives_what_run_gives(busy_desk: Desk, clips: Path, tmp_path: Path) -> None:
    clip = clips / "one_face_smile.mp4"
    settings = busy_desk.live.for_files()
    job_id = busy_desk.jobs.submit(clip, out=busy_desk.out, settings=settings, name="all").job_id
    expected = run_job(Engine(settings), FileJob(clip, "all", tmp_path)).outputs
    info = busy_desk.wait(job_id, "done", "failed")
    assert info.error is None
    assert sorted(path.name for path in info.outputs) == sorted(path.name for path in expected)
    assert all(path.parent == busy_desk.out and path.stat().st_size for path in info.outputs)
    for ending in TABLES:
        assert (busy_desk.out / f"all.{ending}").read_text() == (tmp_path / f"all.{ending}").read_text()
    assert (info.progress, info.frames, info.attempts, info.state) == (1.0, 72, 1, "done")
    assert info.started_at is not None
    assert info.submitted_at <= info.started_at <= (info.ended_at or 0) <= time.time()


def test_progress_grows_and_a_cancelled_job_leaves_nothing(busy_desk: Desk, long_clip: Path) -> None:
    # All frames and a video, so that it is under way for long on any machine.
    settings = busy_desk.live.for_files()
    job_id = busy_desk.jobs.submit(long_clip, out=busy_desk.out, settings=settings, name="cancelled").job_id
    first = busy_desk.begun(job_id)
    later = busy_desk.wait_for(job_id, lambda info: info.frames > first.frames)
    assert (first.progress or 1) < (later.progress or 0) < 1
    assert busy_desk.jobs.cancel(job_id).state == "running"
    info = busy_desk.wait(job_id, "cancelled", "done", "failed")
    assert (info.state, info.error, info.outputs) == ("cancelled", None, ())
    assert busy_desk.written("cancelled") == []
    with pytest.raises(WrongJobState, match="is cancelled already"):
        busy_desk.jobs.cancel(job_id)


def test_a_file_that_cannot_be_read_fails_once_and_says_why(busy_desk: Desk, clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes((clips / "one_face_smile.mp4").read_bytes()[:100_000])
    job_id = busy_desk.submit(path)
    info = busy_desk.wait(job_id, "failed", "done", "retrying")
    assert (info.state, info.attempts) == ("failed", 1)
    assert info.error is not None
    assert "half.mp4 is no video file that FFmpeg can read" in info.error
    assert "Traceback" not in busy_desk.said()
    shutil.copy(clips / "one_face_smile.mp4", path)
    assert busy_desk.jobs.retry(job_id).state == "queued"
    info = busy_desk.wait(job_id, "done", "failed")
    assert (info.state, info.error, busy_desk.written("half")) == ("done", None, tables_of("half"))


def test_a_job_that_takes_too_long_fails_once(busy_desk: Desk, long_clip: Path) -> None:
    hasty = RqJobs(busy_desk.link, JobSettings(timeout_s=1))
    job_id = hasty.submit(long_clip, out=busy_desk.out, settings=busy_desk.live.for_files(), name="long").job_id
    info = busy_desk.wait(job_id, "failed", "done", "retrying")
    assert (info.state, info.attempts) == ("failed", 1)
    assert info.error == "It took longer than 1 s: raise jobs.timeout_s, or look at fewer frames (fps)."
    assert busy_desk.written("long") == []


def test_a_full_disk_is_tried_again(busy_desk: Desk, clips: Path, tiny_disk: Callable[[int], Path]) -> None:
    disk = tiny_disk(64)
    filler = disk / "filler"
    filler.write_bytes(bytes(64 * 1024))
    patient = RqJobs(busy_desk.link, JobSettings(retry_delays_s=(1, 1, 1, 5)))
    clip = clips / "no_face.mp4"
    job_id = patient.submit(clip, out=disk, settings=busy_desk.quick).job_id
    info = busy_desk.wait(job_id, "retrying", "failed", "done")
    assert info.state == "retrying"
    assert info.retry_at is not None
    assert info.error is not None
    assert "No room left" in info.error
    assert [path.name for path in disk.iterdir()] == ["filler"]
    filler.unlink()
    info = busy_desk.wait(job_id, "done", "failed")
    assert (info.state, info.error) == ("done", None)
    assert sorted(path.name for path in disk.iterdir()) == tables_of("no_face")


def test_the_same_file_twice_overwrites_nothing(busy_desk: Desk, long_clip: Path, clips: Path) -> None:
    first = busy_desk.submit(long_clip, name="twice")
    with pytest.raises(OutputExists, match=rf"The job {first} will write .*twice"):
        busy_desk.submit(long_clip, name="twice")
    busy_desk.jobs.cancel(first)
    busy_desk.wait(first, "cancelled")
    second = busy_desk.submit(clips / "one_face_smile.mp4", name="twice")
    busy_desk.wait(second, "done")
    with pytest.raises(OutputExists, match=r"twice.* exists\. Use --force"):
        busy_desk.submit(clips / "one_face_smile.mp4", name="twice")
    with pytest.raises(OutputExists, match="exists"):
        busy_desk.jobs.retry(first)
    info = busy_desk.jobs.submit(
        clips / "no_face.mp4", out=busy_desk.out, settings=busy_desk.quick, name="twice", force=True
    )
    assert busy_desk.wait(info.job_id, "done", "failed").state == "done"
    assert '"people": []' in (busy_desk.out / "twice.timeline.json").read_text()


def test_results_that_came_meanwhile_are_not_replaced(busy_desk: Desk, long_clip: Path) -> None:
    job_id = busy_desk.submit(long_clip, name="meanwhile")
    busy_desk.begun(job_id)
    theirs = busy_desk.out / "meanwhile.frames.csv"
    theirs.write_text("theirs")
    info = busy_desk.wait(job_id, "done", "failed", "retrying")
    assert info.state == "failed"
    assert info.error is not None
    assert "meanwhile.frames.csv exists" in info.error
    assert theirs.read_text() == "theirs"
    assert busy_desk.written("meanwhile") == [theirs.name]


def test_a_video_that_kills_its_process_is_given_up_after_three_attempts(
    busy_desk: Desk, long_clip: Path, clips: Path
) -> None:
    poison = busy_desk.submit(long_clip, name="poison")
    other = busy_desk.submit(clips / "no_face.mp4", name="other", priority="low")
    for attempt in (1, 2, 3):
        busy_desk.wait_for(poison, partial(is_under_way, attempt))
        os.kill(busy_desk.child(poison), signal.SIGSEGV)
        info = busy_desk.wait_for(poison, lambda info: info.state != "running")
        assert info.error == "The process that worked on it was killed (SIGSEGV)."
        assert info.state == ("failed" if attempt == 3 else "retrying")
        assert busy_desk.written("poison") == []
    assert busy_desk.wait(other, "done", "failed").attempts == 1
    assert busy_desk.jobs.get(other).state == "done"


def test_a_job_whose_worker_is_killed_is_done_by_the_next(desk: Desk, long_clip: Path) -> None:
    worker = desk.work()
    job_id = desk.submit(long_clip, name="orphan")
    desk.begun(job_id)
    child = desk.child(job_id)
    worker.kill()
    worker.wait()
    killed_s = time.monotonic()
    deadline_s = killed_s + 5
    while Path(f"/proc/{child}").exists() and state_of(child) != "Z":
        assert time.monotonic() < deadline_s, "the process of the job outlived its worker"
        time.sleep(0.05)
    assert desk.written("orphan") == [f".partial-{job_id}-1"]
    desk.work()
    desk.wait_for(job_id, lambda info: info.state != "running")
    print(f"found after {time.monotonic() - killed_s:.0f} s")
    info = desk.wait(job_id, "done", "failed")
    assert (info.state, info.attempts) == ("done", 2)
    assert desk.written("orphan") == tables_of("orphan")


def test_a_worker_that_is_told_to_stop_gives_its_job_back(desk: Desk, long_clip: Path, clips: Path) -> None:
    worker = desk.work()
    first = desk.submit(long_clip, name="first")
    desk.begun(first)
    second = desk.submit(clips / "no_face.mp4", name="second")
    told_s = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 0
    print(f"stopped after {time.monotonic() - told_s:.1f} s")
    info = desk.jobs.get(first)
    assert (info.state, info.attempts, info.error, info.progress) == ("queued", 1, None, None)
    assert desk.written("first") == []
    # A store that is started anew knows all of it.
    before = desk.jobs.list()
    desk.stop_server()
    desk.start_server()
    assert desk.jobs.list() == before
    desk.work()
    ended = [desk.wait(job_id, "done", "failed") for job_id in (first, second)]
    assert [info.state for info in ended] == ["done", "done"]
    assert (ended[0].started_at or 0) < (ended[1].started_at or 0)


def test_the_store_may_go_away_while_a_job_runs(desk: Desk, long_clip: Path) -> None:
    desk.work()
    job_id = desk.submit(long_clip, name="outage")
    desk.begun(job_id)
    desk.stop_server()
    time.sleep(2)
    desk.start_server()
    info = desk.wait(job_id, "done", "failed", "retrying")
    assert (info.state, info.attempts, info.error) == ("done", 1, None)
    assert desk.written("outage") == tables_of("outage")


def test_higher_priorities_go_first(desk: Desk, clips: Path) -> None:
    wanted: list[Priority] = ["low", "normal", "high"]
    ids = [desk.submit(clips / "no_face.mp4", name=priority, priority=priority) for priority in wanted]
    desk.work()
    ended = [desk.wait(job_id, "done", "failed") for job_id in ids]
    assert [info.priority for info in sorted(ended, key=lambda info: info.started_at or 0)] == wanted[::-1]


def test_no_foreign_function_is_ever_called(busy_desk: Desk, clips: Path, tmp_path: Path) -> None:
    """Whoever can write to the store, as rq itself would, gets nothing run."""
    marker = tmp_path / "marker"
    shell = f"touch {marker}"
    plain = Queue("fer-jobs-high", busy_desk.client)
    json_queue = Queue("fer-jobs-high", busy_desk.client, serializer=JSONSerializer)
    callback = Callback("os.system")
    jobs = [
        plain.enqueue("os.system", shell),
        json_queue.enqueue("os.system", shell),
        json_queue.enqueue("os.system", shell, on_failure=callback, on_success=callback, retry=Retry(3)),
        json_queue.enqueue("fer_stream.jobs", shell, on_failure=callback),
        plain.enqueue("fer_stream.jobs", Poison(shell)),
    ]
    honest = busy_desk.submit(clips / "no_face.mp4", name="honest", priority="low")
    assert busy_desk.wait(honest, "done", "failed").state == "done"
    assert [job.get_status() for job in jobs] == ["failed"] * len(jobs)
    assert not marker.exists()
    assert busy_desk.said().count("is refused") >= len(jobs)
    assert [info.job_id for info in busy_desk.jobs.list() if info.job_id in {job.id for job in jobs}] == []


def is_under_way(attempt: int, info: JobInfo) -> bool:
    return info.attempts == attempt and info.frames > 0


class Poison:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def test_no_password_in_any_record(
    make_desk: Callable[..., Desk], redis_url: str, canary: str, clips: Path, tmp_path: Path
) -> None:
    desk = make_desk(url=redis_url)
    desk.client.flushdb()
    desk.work()
    (tmp_path / "bad.mp4").write_text("no video")
    ids = [desk.submit(clips / "no_face.mp4"), desk.submit(tmp_path / "bad.mp4")]
    for job_id in ids:
        desk.wait(job_id, "done", "failed")
    secrets = [canary.encode(), quote(canary, safe="").encode(), b64encode(canary.encode())]
    texts = [desk.said().encode(), *everything(desk.client), *(path.read_bytes() for path in desk.out.iterdir())]
    assert len(texts) > 10
    assert not [secret for secret in secrets for text in texts if secret in text]


def everything(client: redis.Redis) -> Iterator[bytes]:
    """Every key and value of a server, with what rq compressed in plain."""
    for key in client.scan_iter("*"):
        yield key
        dump = client.dump(key)
        yield dump if isinstance(dump, bytes) else b""
        if client.type(key) == b"hash":
            values: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]
            for value in values.values():
                yield value
                with suppress(zlib.error):
                    yield zlib.decompress(value)


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
