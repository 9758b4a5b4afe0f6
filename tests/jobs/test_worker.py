"""Jobs run by real worker processes, including crashes of workers, jobs and the store."""

from __future__ import annotations

import os
import re
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

from fer_stream.config.live import JobSettings
from fer_stream.errors import InvalidJobState, OutputExists
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.jobs.job import JobInfo, Priority
from fer_stream.jobs.queue import RqJobs
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.jobs.conftest import JobsService

TABLE_SUFFIXES = ["frames.csv", "timeline.json"]


def tables_of(name: str) -> list[str]:
    return [f"{name}.{suffix}" for suffix in TABLE_SUFFIXES]


@pytest.fixture
def long_clip(clips: Path) -> Path:
    return clips / "long_mostly_no_face.mp4"


def test_job_writes_the_same_results_as_run(shared_service: JobsService, clips: Path, tmp_path: Path) -> None:
    clip = clips / "one_face_smile.mp4"
    settings = shared_service.live.for_files()
    job_id = shared_service.jobs.submit(clip, out=shared_service.out, settings=settings, name="all").job_id
    expected = process_file(FileProcessor(settings), FileTask(clip, "all", tmp_path)).outputs
    info = shared_service.wait(job_id, "done", "failed")
    assert info.error is None
    assert sorted(path.name for path in info.outputs) == sorted(path.name for path in expected)
    assert all(path.parent == shared_service.out and path.stat().st_size for path in info.outputs)
    for suffix in TABLE_SUFFIXES:
        found, wanted = ((folder / f"all.{suffix}").read_text() for folder in (shared_service.out, tmp_path))
        assert _without_time(found) == _without_time(wanted)
    assert (info.progress, info.frames, info.attempts, info.state) == (1.0, 72, 1, "done")
    assert info.started_at is not None
    assert info.submitted_at <= info.started_at <= (info.ended_at or 0) <= time.time()


def _without_time(text: str) -> str:
    """Remove the time of analysis from timeline.json."""
    return re.sub(r'"at": "[^"]+"', '"at": ""', text)


def test_progress_increases_and_cancelled_job_leaves_no_files(shared_service: JobsService, long_clip: Path) -> None:
    # All frames and an annotated video, so that the job takes long enough on any machine.
    settings = shared_service.live.for_files()
    job_id = shared_service.jobs.submit(long_clip, out=shared_service.out, settings=settings, name="cancelled").job_id
    first = shared_service.wait_running(job_id)
    later = shared_service.wait_for(job_id, lambda info: info.frames > first.frames)
    assert (first.progress or 1) < (later.progress or 0) < 1
    assert shared_service.jobs.cancel(job_id).state == "running"
    info = shared_service.wait(job_id, "cancelled", "done", "failed")
    assert (info.state, info.error, info.outputs) == ("cancelled", None, ())
    assert shared_service.files_of("cancelled") == []
    with pytest.raises(InvalidJobState, match="is already cancelled"):
        shared_service.jobs.cancel(job_id)


def test_unreadable_file_fails_without_retry(shared_service: JobsService, clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes((clips / "one_face_smile.mp4").read_bytes()[:100_000])
    job_id = shared_service.submit(path)
    info = shared_service.wait(job_id, "failed", "done", "retrying")
    assert (info.state, info.attempts) == ("failed", 1)
    assert info.error is not None
    assert "half.mp4" in info.error
    assert "Check that it was copied completely" in info.error
    assert "Traceback" not in shared_service.log_text()
    shutil.copy(clips / "one_face_smile.mp4", path)
    assert shared_service.jobs.retry(job_id).state == "queued"
    info = shared_service.wait(job_id, "done", "failed")
    assert (info.state, info.error, shared_service.files_of("half")) == ("done", None, tables_of("half"))


def test_job_over_its_timeout_fails_without_retry(shared_service: JobsService, long_clip: Path) -> None:
    impatient_jobs = RqJobs(shared_service.link, JobSettings(timeout_s=1))
    job_id = impatient_jobs.submit(
        long_clip, out=shared_service.out, settings=shared_service.live.for_files(), name="long"
    ).job_id
    info = shared_service.wait(job_id, "failed", "done", "retrying")
    assert (info.state, info.attempts) == ("failed", 1)
    assert info.error == "Processing took longer than 1 s: raise jobs.timeout_s, or analyse fewer frames (fps)."
    assert shared_service.files_of("long") == []


def test_full_disk_is_retried(shared_service: JobsService, clips: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(64)
    filler = disk / "filler"
    filler.write_bytes(bytes(64 * 1024))
    patient_jobs = RqJobs(shared_service.link, JobSettings(retry_delays_s=(1, 1, 1, 5)))
    clip = clips / "no_face.mp4"
    job_id = patient_jobs.submit(clip, out=disk, settings=shared_service.fast_settings).job_id
    info = shared_service.wait(job_id, "retrying", "failed", "done")
    assert info.state == "retrying"
    assert info.retry_at is not None
    assert info.error is not None
    assert str(disk) in info.error
    assert [path.name for path in disk.iterdir()] == ["filler"]
    filler.unlink()
    info = shared_service.wait(job_id, "done", "failed")
    assert (info.state, info.error) == ("done", None)
    assert sorted(path.name for path in disk.iterdir()) == tables_of("no_face")


def test_existing_results_are_replaced_only_with_force(
    shared_service: JobsService, long_clip: Path, clips: Path
) -> None:
    first = shared_service.submit(long_clip, name="twice")
    with pytest.raises(OutputExists, match=rf"Job {first} will write .*twice"):
        shared_service.submit(long_clip, name="twice")
    shared_service.jobs.cancel(first)
    shared_service.wait(first, "cancelled")
    second = shared_service.submit(clips / "one_face_smile.mp4", name="twice")
    shared_service.wait(second, "done")
    with pytest.raises(OutputExists, match=r"twice.* exists\. Use --existing replace"):
        shared_service.submit(clips / "one_face_smile.mp4", name="twice")
    with pytest.raises(OutputExists, match="exists"):
        shared_service.jobs.retry(first)
    info = shared_service.jobs.submit(
        clips / "no_face.mp4", out=shared_service.out, settings=shared_service.fast_settings, name="twice", force=True
    )
    assert shared_service.wait(info.job_id, "done", "failed").state == "done"
    assert '"people": []' in (shared_service.out / "twice.timeline.json").read_text()


def test_results_created_while_the_job_runs_are_not_replaced(shared_service: JobsService, long_clip: Path) -> None:
    job_id = shared_service.submit(long_clip, name="collision")
    shared_service.wait_running(job_id)
    other = shared_service.out / "collision.frames.csv"
    other.write_text("other content")
    info = shared_service.wait(job_id, "done", "failed", "retrying")
    assert info.state == "failed"
    assert info.error is not None
    assert "collision.frames.csv exists" in info.error
    assert other.read_text() == "other content"
    assert shared_service.files_of("collision") == [other.name]


def test_job_whose_process_crashes_fails_after_three_attempts(
    shared_service: JobsService, long_clip: Path, clips: Path
) -> None:
    poison = shared_service.submit(long_clip, name="poison")
    other = shared_service.submit(clips / "no_face.mp4", name="other", priority="low")
    for attempt in (1, 2, 3):
        shared_service.wait_for(poison, partial(is_running_attempt, attempt))
        os.kill(shared_service.job_process(poison), signal.SIGSEGV)
        info = shared_service.wait_for(poison, lambda info: info.state != "running")
        assert info.error == "The process of the job was killed (SIGSEGV)."
        assert info.state == ("failed" if attempt == 3 else "retrying")
        assert shared_service.files_of("poison") == []
    assert shared_service.wait(other, "done", "failed").attempts == 1
    assert shared_service.jobs.get(other).state == "done"


def test_job_of_a_killed_worker_is_taken_over(service: JobsService, long_clip: Path) -> None:
    worker = service.start_worker()
    job_id = service.submit(long_clip, name="orphan")
    service.wait_running(job_id)
    child = service.job_process(job_id)
    worker.kill()
    worker.wait()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or state_of(child) == "Z", timeout_s=20)
    assert service.files_of("orphan") == [f".partial-{job_id}-1"]
    service.start_worker()
    service.wait_for(job_id, lambda info: info.state != "running")
    info = service.wait(job_id, "done", "failed")
    assert (info.state, info.attempts) == ("done", 2)
    assert service.files_of("orphan") == tables_of("orphan")


def test_stopped_worker_requeues_its_job(service: JobsService, long_clip: Path, clips: Path) -> None:
    worker = service.start_worker()
    first = service.submit(long_clip, name="first")
    service.wait_running(first)
    second = service.submit(clips / "no_face.mp4", name="second")
    worker.terminate()
    assert worker.wait(20) == 0
    info = service.jobs.get(first)
    assert (info.state, info.attempts, info.error, info.progress) == ("queued", 1, None, None)
    assert service.files_of("first") == []
    # A restarted store has all records.
    before = service.jobs.list()
    service.stop_server()
    service.start_server()
    assert service.jobs.list() == before
    service.start_worker()
    ended = [service.wait(job_id, "done", "failed") for job_id in (first, second)]
    assert [info.state for info in ended] == ["done", "done"]
    assert (ended[0].started_at or 0) < (ended[1].started_at or 0)


def test_job_continues_over_an_outage_of_the_store(service: JobsService, long_clip: Path) -> None:
    service.start_worker()
    job_id = service.submit(long_clip, name="outage")
    service.wait_running(job_id)
    child = service.job_process(job_id)
    service.stop_server()
    # The job continues without the store: its process uses more CPU time.
    used = cpu_ticks(child)
    wait_until(lambda: cpu_ticks(child) > used + 20)
    service.start_server()
    info = service.wait(job_id, "done", "failed", "retrying")
    assert (info.state, info.attempts, info.error) == ("done", 1, None)
    assert service.files_of("outage") == tables_of("outage")


def test_jobs_of_higher_priority_start_first(service: JobsService, clips: Path) -> None:
    priorities: list[Priority] = ["low", "normal", "high"]
    ids = [service.submit(clips / "no_face.mp4", name=priority, priority=priority) for priority in priorities]
    service.start_worker()
    ended = [service.wait(job_id, "done", "failed") for job_id in ids]
    assert [info.priority for info in sorted(ended, key=lambda info: info.started_at or 0)] == priorities[::-1]


def test_only_the_job_function_is_called(shared_service: JobsService, clips: Path, tmp_path: Path) -> None:
    """Records written to the store by rq itself do not execute code."""
    marker = tmp_path / "marker"
    shell = f"touch {marker}"
    plain = Queue("fer-jobs-high", shared_service.client)
    json_queue = Queue("fer-jobs-high", shared_service.client, serializer=JSONSerializer)
    callback = Callback("os.system")
    jobs = [
        plain.enqueue("os.system", shell),
        json_queue.enqueue("os.system", shell),
        json_queue.enqueue("os.system", shell, on_failure=callback, on_success=callback, retry=Retry(3)),
        json_queue.enqueue("fer_stream.jobs", shell, on_failure=callback),
        plain.enqueue("fer_stream.jobs", Poison(shell)),
    ]
    valid = shared_service.submit(clips / "no_face.mp4", name="valid", priority="low")
    assert shared_service.wait(valid, "done", "failed").state == "done"
    assert [job.get_status() for job in jobs] == ["failed"] * len(jobs)
    assert not marker.exists()
    assert shared_service.log_text().count("outcome=refused") >= len(jobs)
    assert [info.job_id for info in shared_service.jobs.list() if info.job_id in {job.id for job in jobs}] == []


def is_running_attempt(attempt: int, info: JobInfo) -> bool:
    return info.attempts == attempt and info.frames > 0


class Poison:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def test_records_contain_no_password(
    make_service: Callable[..., JobsService], redis_url: str, canary: str, clips: Path, tmp_path: Path
) -> None:
    service = make_service(url=redis_url)
    service.client.flushdb()
    service.start_worker()
    (tmp_path / "bad.mp4").write_text("not a video")
    ids = [service.submit(clips / "no_face.mp4"), service.submit(tmp_path / "bad.mp4")]
    for job_id in ids:
        service.wait(job_id, "done", "failed")
    secrets = [canary.encode(), quote(canary, safe="").encode(), b64encode(canary.encode())]
    texts = [
        service.log_text().encode(),
        *all_keys_and_values(service.client),
        *(path.read_bytes() for path in service.out.iterdir()),
    ]
    assert len(texts) > 10
    assert not [secret for secret in secrets for text in texts if secret in text]


def all_keys_and_values(client: redis.Redis) -> Iterator[bytes]:
    """Yield every key and value of a server, and the decompressed values of rq."""
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


def cpu_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
