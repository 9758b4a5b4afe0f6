"""The rq worker: takes jobs off the queues, one at a time, and runs each in a process of its own.

The process of a job (rq's work horse) is forked and may die at any moment: of a video that crashes FFmpeg, of lack of
memory, because the job was cancelled, or because the worker stops. All cleanup is therefore done in the parent, which
loads no model and no codec. Results are written into a hidden directory and moved when all are complete; the parent
removes the directory of a process that died.

Differences from rq:

* `JobWorker.run` replaces `Worker.work`: between jobs a stop request is noticed within a second, and no signal
  handler interrupts a job between leaving the queue and being recorded.
* A cancelled job is killed. The flag in the record is polled with every heartbeat; rq's `send_stop_job_command` uses
  pub/sub, which loses commands while the worker reconnects.
* A job that runs when the worker stops goes back to the head of its queue.
* The process of a job ends with its worker.
* A suspended worker whose job was given to another one drops it (`FileRqJob.owned_by`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import DequeueTimeout, DeserializationError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import HorseMonitorTimeoutException, JobTimeoutException
from rq.utils import now

from fer_stream.errors import FerStreamError
from fer_stream.jobs.maintenance import HEARTBEAT_TIMEOUT_S, Maintenance
from fer_stream.jobs.record import (
    FileRqJob,
    all_queues,
    classify_failure,
    describe_exit,
    fetch_jobs,
    priority_of,
    timeout_message,
)
from fer_stream.log import get_logger

if TYPE_CHECKING:
    from fer_stream.metrics import Metrics

_log = get_logger(__name__)

_HEARTBEAT_INTERVAL_S = 1.0
_EXIT_POLL_S = 0.1
# Seconds to block for a job before retries that are due and a stop request are checked again.
_DEQUEUE_TIMEOUT_S = 1

# Outcomes of an attempt: "refused" is not a job of fer-stream, "interrupted" was stopped with the worker.
_OUTCOMES = ("done", "failed", "cancelled", "retrying", "interrupted", "refused")

# Added to the niceness of the worker, so that cameras take precedence.
_NICENESS = 10

_PR_SET_PDEATHSIG = 1  # prctl(2)


class JobWorker(Worker):
    """Runs jobs until `stop` is set, as one of `workers` on this machine that share its cores.

    `heartbeat` is called at least every two seconds while the store answers.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        workers: int,
        metrics: Metrics,
        stop: Event,
        heartbeat: Callable[[], object],
    ) -> None:
        super().__init__(
            all_queues(client),
            connection=client,
            job_class=FileRqJob,
            serializer=JSONSerializer,
            worker_ttl=HEARTBEAT_TIMEOUT_S,
            work_horse_killed_handler=self._record_crash,
        )
        self._workers = workers
        self._metrics = metrics
        self._stop = stop
        self._on_heartbeat = heartbeat
        self._maintenance = Maintenance(client, metrics)
        for outcome in _OUTCOMES:
            metrics.jobs.labels(outcome)

    def run(self) -> None:
        """Run jobs until stopped. Raises `RedisError` if the store stays unreachable."""
        self.register_birth()  # type: ignore[no-untyped-call]
        try:
            while not self._stop.is_set():
                self._maintenance.run_if_due(self.name)
                self._maintenance.enqueue_due()
                self._report_alive()
                self.heartbeat()
                if (dequeued := self._dequeue()) is not None:
                    self._process(*dequeued)
        finally:
            with suppress(RedisError):
                self.register_death()  # type: ignore[no-untyped-call]

    def _dequeue(self) -> tuple[Job, Queue] | None:
        try:
            return Queue.dequeue_any(
                self.queues,
                _DEQUEUE_TIMEOUT_S,
                connection=self.connection,
                job_class=FileRqJob,
                serializer=JSONSerializer,
            )
        except DequeueTimeout:
            return None

    def _report_alive(self) -> None:
        self._on_heartbeat()
        for queue in self.queues:
            self._metrics.jobs_waiting.labels(priority_of(queue.name)).set(len(queue))

    def _process(self, job: Job, queue: Queue) -> None:
        """Run a job in a process of its own and count how it ended."""
        assert isinstance(job, FileRqJob)
        if job.get_status(refresh=False) != JobStatus.QUEUED:
            _log.info("job_skipped", job=job.id, reason="another worker took it")
            return
        if self._stop.is_set():
            queue.enqueue_job(job, at_front=True)
            return
        job.begin_attempt(self.name)
        job.work = partial(self._work, job)
        _log.info("job_started", job=job.id, attempt=job.attempts)
        self.execute_job(job, queue)
        job.remove_partial_outputs()
        self._count_outcome(job)

    def _count_outcome(self, job: FileRqJob) -> None:
        (record,) = fetch_jobs(self.connection, [job.id])
        if record is None or record.worker_name != self.name:
            return
        state = record.state if record.state in _OUTCOMES else "interrupted"
        outcome = state if record.is_valid else "refused"
        _log.info("job_ended", job=job.id, outcome=outcome)
        self._metrics.jobs.labels(outcome).inc()
        if outcome == "done":
            info = record.info()
            self._metrics.job_duration.observe((info.ended_at or 0.0) - (info.started_at or 0.0))

    # Overridden methods of rq.Worker

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the process of the job, which is killed if the worker stops.

        Raises `HorseMonitorTimeoutException` when a heartbeat is due.
        """
        # rq's own timer is a single SIGALRM. The kernel may deliver it to another thread, which does not interrupt
        # the wait, or after the process was reaped, which would lose the exit status.
        signal.alarm(0)
        signal.signal(signal.SIGALRM, lambda *_: None)
        deadline_s = time.monotonic() + _HEARTBEAT_INTERVAL_S
        while os.waitid(os.P_PID, self.horse_pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() >= deadline_s:
                raise HorseMonitorTimeoutException
            if self._stop.is_set():
                self.kill_horse()
                time.sleep(_EXIT_POLL_S)
            else:
                self._stop.wait(_EXIT_POLL_S)
        return super().wait_for_horse()

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send heartbeats, and kill a job that was cancelled, reassigned or takes too long.

        rq enforces the timeout by an exception inside the process, which native code may delay or suppress.
        """
        assert isinstance(job, FileRqJob)
        kill = _is_overdue(job)
        try:
            super().maintain_heartbeats(job, execution)
            self._report_alive()
            kill |= job.check_cancel_requested() or not job.owned_by(self.name)
        except RedisError as error:
            _log.warning("store_unreachable", job=job.id, action="the job continues", error=str(error))
        if kill:
            self.kill_horse()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002
        """Return the seconds after which a worker without a heartbeat is considered dead."""
        return HEARTBEAT_TIMEOUT_S

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the process of the job. rq kills its process group, which is the worker's own right after the fork."""
        if self.horse_pid:
            with suppress(ProcessLookupError):
                os.kill(self.horse_pid, sig)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Record why a job failed, unless it was reassigned. rq would log a traceback of every failure."""
        assert isinstance(job, FileRqJob)
        if not job.owned_by(self.name):
            return
        error = exc_info[1]
        if not isinstance(error, FerStreamError | JobTimeoutException | DeserializationError):
            _log.error("job_failed", job=job.id, exc_info=exc_info)
        reason, retryable = classify_failure(error, job)
        job.record_failure(reason, retryable=retryable)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",  # noqa: ARG002 - a traceback; `record_failure` has stored the reason
        execution: Execution | None = None,
    ) -> None:
        """Schedule the next attempt or fail the job; requeue it if the worker stops; drop it if it was reassigned."""
        assert isinstance(job, FileRqJob)
        if not job.owned_by(self.name):
            _log.warning("job_reassigned", job=job.id)
            # Otherwise the job of the other worker would appear abandoned.
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline, execution)
                pipeline.execute()
        elif self._stop.is_set() and not job.check_cancel_requested():
            _log.info("job_requeued", job=job.id)
            job.reset_progress()
            with self.connection.pipeline() as pipeline:
                queue.enqueue_job(job, pipeline=pipeline, at_front=True)
                self.cleanup_execution(job, pipeline, execution)
                pipeline.execute()
        else:
            super().handle_job_failure(job, queue, started_job_registry, job.meta.get("error") or "", execution)

    # Called by rq in the parent

    def _record_crash(self, job: Job, _pid: int, status: int | None, _usage: object) -> None:
        """Record why the process of a job died, unless the job was reassigned or is about to be requeued."""
        assert isinstance(job, FileRqJob)
        job.remove_partial_outputs()
        if self._stop.is_set() or not job.owned_by(self.name):
            return
        job.get_meta(refresh=True)
        overdue = _is_overdue(job)
        reason = timeout_message(job) if overdue else f"The process of the job {describe_exit(status)}."
        job.record_failure(reason, retryable=not overdue)

    # In the process of the job

    def _work(self, job: FileRqJob) -> None:
        """Process the file at low priority. The process is killed when the worker ends."""
        os.nice(_NICENESS)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(1)
        # Not at module level: the parent, which forks, must have neither their memory nor their threads.
        from fer_stream.files import FileProcessor, FileTask
        from fer_stream.jobs.staging import ProgressReporter, run_staged
        from fer_stream.resource_limits import cores

        task = job.task()
        job.remove_partial_outputs()

        def before_publish() -> None:
            job.check_owned_by(self.name)
            job.update_meta(publishing=True)

        result = run_staged(
            FileTask(task.path, task.name, task.out, "replace" if task.force or job.publishing else "error"),
            lambda: FileProcessor(task.settings, threads=max(1, cores() // self._workers)),
            staging_dir=job.staging_dir(task),
            on_progress=ProgressReporter(job, partial(job.check_owned_by, self.name)),
            before_publish=before_publish,
        )
        outputs = [str(path) for path in result.outputs]
        job.update_meta(outputs=outputs, frames=result.summary.frames, error=None, retry_at=None)


def _is_overdue(job: FileRqJob) -> bool:
    """Return True if the current attempt has exceeded its timeout."""
    if not job.started_at or not job.timeout:
        return False
    return (now() - job.started_at).total_seconds() > job.timeout
