"""A store with worker processes, and access to their jobs, results and logs."""

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

from fer_stream.broker.client import RedisClient
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.config.live import LiveSettings
from fer_stream.config.loader import load
from fer_stream.config.settings import FileSettings
from fer_stream.jobs.job import JobInfo, JobState, Priority
from fer_stream.jobs.queue import RqJobs
from fer_stream.jobs.record import MAINTENANCE, queue_for
from fer_stream.service.process import connect_store, open_jobs, store_url
from tests.support.waiting import wait_until

WORKER = (sys.executable, "-m", "fer_stream.cli", "worker", "jobs", "--config")


class JobsService:
    """A store, job workers that can be killed, and their settings, all in one directory."""

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
        self._workers: list[subprocess.Popen[bytes]] = []
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
    def link(self) -> RedisClient:
        return connect_store(self.live, Event())

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(store_url(self.live))

    # Jobs

    @property
    def fast_settings(self) -> FileSettings:
        """Tables only, at 5 frames per second."""
        return self.live.for_files().with_values(
            {"fps": 5, "outputs.video": False, "outputs.report": False, "outputs.plot": False}
        )

    def submit(self, path: Path, *, name: str | None = None, priority: Priority = "normal") -> str:
        return self.jobs.submit(path, out=self.out, settings=self.fast_settings, name=name, priority=priority).job_id

    def wait(self, job_id: str, *states: JobState, within_s: float = 200) -> JobInfo:
        return self.wait_for(job_id, lambda info: info.state in states, within_s)

    def wait_for(self, job_id: str, condition: Callable[[JobInfo], bool], within_s: float = 200) -> JobInfo:
        states: list[JobInfo] = []

        def reached() -> bool:
            states[:] = [self.jobs.get(job_id)]
            return condition(states[0])

        wait_until(reached, within_s, describe=lambda: f"{states}\n{self.log_text()[-5000:]}")
        return states[0]

    def wait_running(self, job_id: str) -> JobInfo:
        """Wait until a job has decoded a part of its file, but not most of it."""
        return self.wait_for(job_id, lambda info: info.state == "running" and 0 < (info.progress or 0) < 0.8)

    def files_of(self, name: str) -> list[str]:
        """Return the results called `name`, and all hidden files in the output directory."""
        return sorted(path.name for path in self.out.glob(f"{name}.*")) + [path.name for path in self.out.glob(".*")]

    def expire_heartbeat(self, job_id: str) -> None:
        """Make the heartbeat of the suspended worker of a job expire now."""
        registry = queue_for("normal", self.client).started_job_registry
        ((_, execution),) = registry.get_job_and_execution_ids(cleanup=False)
        self.client.zadd(registry.key, {f"{job_id}:{execution}": time.time() - 1}, xx=True)
        self.client.delete(MAINTENANCE)

    def make_retry_due(self, job_id: str) -> None:
        """End the retry delay of a job now."""
        self.client.zadd(queue_for("normal", self.client).scheduled_job_registry.key, {job_id: 0}, xx=True)

    # Workers

    def start_worker(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self._workers.append(subprocess.Popen([*WORKER, str(self.config)], stdout=log, stderr=log))
        return self._workers[-1]

    def job_process(self, job_id: str) -> int:
        """Return the id of the process that runs a job."""
        worker_name = self.client.hget(f"rq:job:{job_id}", "worker_name")
        assert isinstance(worker_name, bytes)
        pid = self.client.hget(f"rq:worker:{worker_name.decode()}", "pid")
        assert isinstance(pid, bytes)
        (child,) = Path(f"/proc/{int(pid)}/task/{int(pid)}/children").read_text().split()
        return int(child)

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def close(self) -> None:
        for worker in self._workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        if self._jobs is not None:
            self._jobs.close()
        self.stop_server()


@pytest.fixture(scope="module")
def make_service(yunet_weights: Path) -> Iterator[Callable[..., JobsService]]:
    services: list[JobsService] = []

    def make(**store: Any) -> JobsService:
        # The path of pytest's temporary directory may be too long for a socket.
        services.append(JobsService(Path(tempfile.mkdtemp(prefix="fer-")), yunet_weights, store))
        return services[-1]

    yield make
    for service in services:
        service.close()
        shutil.rmtree(service.folder, ignore_errors=True)


@pytest.fixture
def service(make_service: Callable[..., JobsService]) -> JobsService:
    """A new store without a worker."""
    return make_service()


@pytest.fixture(scope="module")
def shared_service(make_service: Callable[..., JobsService]) -> JobsService:
    """A store with a worker, shared by the tests of a module."""
    service = make_service()
    service.start_worker()
    return service
