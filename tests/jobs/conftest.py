"""A store, workers on it, and what they did."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import redis
import yaml

from fer_stream.broker.client import Link
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.config import FileSettings, LiveSettings
from fer_stream.config.loader import load
from fer_stream.jobs.job import JobInfo, JobState, Priority
from fer_stream.jobs.queue import RqJobs
from fer_stream.jobs.record import MAINTENANCE, queue_of
from fer_stream.service.connections import open_jobs, open_store_link, store_url

WORKER = (sys.executable, "-m", "fer_stream.cli", "worker", "jobs", "--config")


class Desk:
    """Settings in a folder, the store that they name, and workers that can be killed."""

    def __init__(self, folder: Path, weights: Path, store: dict[str, Any]) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.out.mkdir()
        self.config = folder / "live.yaml"
        self.log = folder / "log"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "state_dir": str(folder / "state"),
                    "detector": {"type": "yunet", "weights": str(weights)},
                    "jobs": {"retry_delays_s": [1, 1]},
                    "metrics": {"port": None},
                    "log": {"level": "debug"},
                    "store": store,
                }
            )
        )
        self.live = load(self.config, LiveSettings)
        self._started: list[subprocess.Popen[bytes]] = []
        self._jobs: RqJobs | None = None
        self._server: EmbeddedServer | None = None
        if not store:
            self.start_server()

    # The store

    def start_server(self) -> None:
        self._server = EmbeddedServer(self.folder / "state", "store")

    def stop_server(self) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def jobs(self) -> RqJobs:
        if self._jobs is None:
            self._jobs = open_jobs(self.link, self.live)
        return self._jobs

    @cached_property
    def link(self) -> Link:
        return open_store_link(self.live, Event())

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(store_url(self.live))

    # Jobs

    @property
    def quick(self) -> FileSettings:
        """Tables alone, of some of the frames."""
        return self.live.for_files().with_values(
            {"fps": 5, "outputs.video": False, "outputs.report": False, "outputs.plot": False}
        )

    def submit(self, path: Path, *, name: str | None = None, priority: Priority = "normal") -> str:
        return self.jobs.submit(path, out=self.out, settings=self.quick, name=name, priority=priority).job_id

    def wait(self, job_id: str, *states: JobState, within_s: float = 200) -> JobInfo:
        return self.wait_for(job_id, lambda info: info.state in states, within_s)

    def wait_for(self, job_id: str, holds: Callable[[JobInfo], bool], within_s: float = 200) -> JobInfo:
        deadline_s = time.monotonic() + within_s
        while not holds(info := self.jobs.get(job_id)):
            assert time.monotonic() < deadline_s, f"waited in vain: {info}\n{self.said()[-5000:]}"
            time.sleep(0.05)
        return info

    def begun(self, job_id: str) -> JobInfo:
        """A job in the midst of its decoding."""
        return self.wait_for(job_id, lambda info: info.state == "running" and 0 < (info.progress or 0) < 0.8)

    def written(self, name: str) -> list[str]:
        """The results of a name, and all that was left behind."""
        return sorted(path.name for path in self.out.glob(f"{name}.*")) + [path.name for path in self.out.glob(".*")]

    def fall_silent(self, job_id: str) -> None:
        """As if the worker of a job, which is stopped, had given no sign of life for long."""
        registry = queue_of("normal", self.client).started_job_registry
        ((_, execution),) = registry.get_job_and_execution_ids(cleanup=False)
        self.client.zadd(registry.key, {f"{job_id}:{execution}": time.time() - 1}, xx=True)
        self.client.delete(MAINTENANCE)

    # Workers

    def work(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self._started.append(subprocess.Popen([*WORKER, str(self.config)], stdout=log, stderr=log))
        return self._started[-1]

    def child(self, job_id: str) -> int:
        """The process that works on a job."""
        worker_name = self.client.hget(f"rq:job:{job_id}", "worker_name")
        assert isinstance(worker_name, bytes)
        pid = self.client.hget(f"rq:worker:{worker_name.decode()}", "pid")
        assert isinstance(pid, bytes)
        (child,) = Path(f"/proc/{int(pid)}/task/{int(pid)}/children").read_text().split()
        return int(child)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def end(self) -> None:
        for worker in self._started:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        if self._jobs is not None:
            self._jobs.close()
        self.stop_server()


@pytest.fixture(scope="module")
def make_desk(yunet_weights: Path) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(**store: Any) -> Desk:
        # Not pytest's own folder, whose path may be too long for a socket.
        desks.append(Desk(Path(tempfile.mkdtemp(prefix="fer-")), yunet_weights, store))
        return desks[-1]

    yield make
    for desk in desks:
        desk.end()
        shutil.rmtree(desk.folder, ignore_errors=True)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """A store of its own, and no worker yet."""
    return make_desk()


@pytest.fixture(scope="module")
def busy_desk(make_desk: Callable[..., Desk]) -> Desk:
    """A store with a worker, which all tests of a module share."""
    desk = make_desk()
    desk.work()
    return desk
