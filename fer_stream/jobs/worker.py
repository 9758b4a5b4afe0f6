"""The rq worker: takes jobs off the queue, one after the other, each in a process of its own.

The process that works on a job (rq's work horse) is forked for it and may die at any moment: of a video that crashes
FFmpeg, for want of memory, because the job was cancelled, or because we are told to stop. Whatever is left to do then
is done here, in the parent, which loads no model and no codec. Results are written into a hidden folder beside their
place and moved from there when all are whole; the parent removes the folder of a process that died.

Where this goes beyond rq: a cancelled job is killed; a job that is under way when the worker is told to stop goes
back to the head of its queue; the process of a job does not outlive its worker; a worker that slept, and whose job
was given to another one meanwhile, leaves it to that one; and jobs that a crash left in no queue at all are found.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import redis
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import DeserializationError, StopRequested
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.registry import StartedJobRegistry, clean_registries
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker_registration import clean_worker_registry

from fer_stream.errors import FerStreamError
from fer_stream.jobs.failures import how_it_ended, too_late, verdict
from fer_stream.jobs.job import JobState
from fer_stream.jobs.maintenance import TURN_S, Upkeep
from fer_stream.jobs.progress import Reporter
from fer_stream.jobs.record import Record, priority_of, queues, records
from fer_stream.log import redact_secrets
from fer_stream.metrics import Metrics

_log = logging.getLogger(__name__)

# Seconds: how often the parent looks after its job; a worker is dead when it was silent for so long; how long a
# worker waits for a job before it looks for those whose wait is over.
_LOOK_S = 1
_SILENT_S = 20
_WAIT_S = 5

# How an attempt ends: "refused" was none of ours, "interrupted" by the end of the worker.
_OUTCOMES = ("done", "failed", "cancelled", "retrying", "interrupted", "refused")

# Added to that of the worker: whatever the cameras need, they get first.
_NICENESS = 10

_PR_SET_PDEATHSIG = 1  # prctl(2)


class JobWorker(Worker):
    """Does jobs until it is told to stop, as one of so many `processes` on this machine.

    `told` is called with the number of the signal that says so, `beat` whenever the loop comes round.
    """

    max_connection_wait_time = 5.0

    def __init__(
        self,
        client: redis.Redis,
        *,
        processes: int,
        metrics: Metrics,
        told: Callable[[int], object],
        beat: Callable[[], object],
    ) -> None:
        super().__init__(
            queues(client),
            connection=client,
            job_class=Record,
            serializer=JSONSerializer,
            job_monitoring_interval=_LOOK_S,
            maintenance_interval=TURN_S,
            exception_handlers=[self._abandoned],
        )
        self._processes = processes
        self._metrics = metrics
        self._told = told
        self._beat = beat
        self._waits = False
        self._upkeep = Upkeep(client)
        for outcome in _OUTCOMES:
            metrics.jobs.labels(outcome)

    # The loop of the worker

    def subscribe(self) -> None:
        """Take no commands over Redis: there would be a thread for it, and we fork."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End at once: what is under way goes back to the head of its queue."""
        self._told(signum)
        self._stop_requested = True
        if self._waits:
            raise StopRequested
        self.kill_horse()

    def dequeue_job_and_maintain_ttl(
        self,
        timeout: int | None,  # noqa: ARG002
        max_idle_time: int | None = None,  # noqa: ARG002
    ) -> tuple[Job, Queue]:
        """Wait for a job, and meanwhile for the next attempts of those that failed."""
        found = None
        self._waits = True
        try:
            if self._stop_requested:
                raise StopRequested
            while found is None:
                self._upkeep.put_back_due()
                self._come_round()
                found = super().dequeue_job_and_maintain_ttl(_WAIT_S, _WAIT_S)
        finally:
            self._waits = False
        return found

    def _come_round(self) -> None:
        self._beat()
        for queue in self.queues:
            self._metrics.jobs_waiting.labels(priority_of(queue.name)).set(len(queue))

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Do a job in a process of its own."""
        assert isinstance(job, Record)
        if job.get_status(refresh=False) != JobStatus.QUEUED:
            _log.info("the job %s was taken by another worker", job.id)
            return
        job.begin_attempt(self.name)
        job.work = partial(self._work, job)
        _log.info("job %s begins", job.id)
        super().execute_job(job, queue)
        job.sweep()
        self._count(job)

    # The parent, while its child works

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Start the process that does the job."""
        super().fork_work_horse(job, queue)
        if self._stop_requested:
            self.kill_horse()

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the end of the process, until rq's alarm rings, which must not take how it ended away with it."""
        # When a stopped worker goes on, a ring may go to another of its threads: it ends no wait, so there is a next
        # one; and it may be heard late, so it must not end anything once the process is reaped.
        signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _LOOK_S)
        os.waitid(os.P_PID, self.horse_pid, os.WEXITED | os.WNOWAIT)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, lambda *_: None)
        return super().wait_for_horse()

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Say that we live, and end a job that was cancelled, is not ours any more, or takes too long.

        rq has the process of the job raise an exception when its time is up, which whatever runs there may swallow.
        """
        assert isinstance(job, Record)
        unwanted = _is_late(job)
        try:
            super().maintain_heartbeats(job, execution)
            self._come_round()
            unwanted |= job.is_to_cancel() or not job.is_of(self.name)
        except RedisError as error:
            _log.warning("the store is away, the job %s goes on: %s", job.id, redact_secrets(str(error)))
        if unwanted:
            self.kill_horse()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002
        """For how many seconds a sign of life holds."""
        return _SILENT_S

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """End the process of the job. It alone: rq ends its process group, which is ours until it has its own."""
        if self.horse_pid:
            with suppress(ProcessLookupError):
                os.kill(self.horse_pid, sig)

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:  # noqa: ARG002
        """Note why the process of a job died, unless another worker has the job."""
        assert isinstance(job, Record)
        job.sweep()
        if not job.is_of(self.name):
            return
        job.get_meta(refresh=True)
        if not self._stop_requested:
            late = _is_late(job)
            reason = too_late(job) if late else f"The process that worked on it {how_it_ended(ret_val)}."
            job.blame(reason, curable=not late)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",  # noqa: ARG002 - a traceback, where `blame` has told the reason
        execution: Execution | None = None,
    ) -> None:
        """Try the job again, or not, or give it back; leave it alone if another worker has it."""
        assert isinstance(job, Record)
        if not job.is_of(self.name):
            _log.warning("the job %s was given to another worker", job.id)
            self._leave(job, execution)
        elif self._stop_requested and not job.is_to_cancel():
            self._give_back(job, queue, execution)
        else:
            super().handle_job_failure(job, queue, started_job_registry, job.meta.get("error") or "", execution)

    def _leave(self, job: Record, execution: Execution | None) -> None:
        """Strike off our part in a job, which would else be found abandoned while another worker does it."""
        with self.connection.pipeline() as pipeline:
            self.cleanup_execution(job, pipeline, execution)
            pipeline.execute()

    def _give_back(self, job: Record, queue: Queue, execution: Execution | None) -> None:
        _log.info("job %s goes back on the queue", job.id)
        job.give_back()
        with self.connection.pipeline() as pipeline:
            queue.enqueue_job(job, pipeline=pipeline, at_front=True)
            self.cleanup_execution(job, pipeline, execution)
            pipeline.execute()

    def _count(self, job: Record) -> None:
        (record,) = records(self.connection, [job.id])
        if record is None or record.worker_name != self.name:
            return
        state = record.state if record.state in _OUTCOMES else "interrupted"
        outcome = state if record.is_ours else "refused"
        _log.info("job %s is %s", job.id, outcome)
        self._metrics.jobs.labels(outcome).inc()
        if outcome == "done":
            info = record.info()
            self._metrics.job_duration.observe((info.ended_at or 0.0) - (info.started_at or 0.0))

    # The child

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Do the job, giving way to the cameras, and end with the worker."""
        os.nice(_NICENESS)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(1)
        super().main_work_horse(job, queue)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Note that the job is under way, unless another worker was given it before this process came to that."""
        assert isinstance(job, Record)
        self._check_ours(job)
        super().prepare_job_execution(job, remove_from_intermediate_queue)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Note why a job failed, unless another worker has it."""
        assert isinstance(job, Record)
        if not job.is_of(self.name):
            return
        error = exc_info[1]
        if not isinstance(error, FerStreamError | JobTimeoutException | DeserializationError):
            _log.error("job %s failed", job.id, exc_info=exc_info)
        reason, curable = verdict(error, job)
        job.blame(reason, curable=curable)

    def _work(self, record: Record) -> None:
        # Not at the top of this module: the parent, which forks, is to have neither their memory nor their threads.
        from fer_stream.files import Engine, FileJob
        from fer_stream.jobs.staging import do
        from fer_stream.pool import cores

        task = record.task()
        record.sweep()

        def before_placing() -> None:
            self._check_ours(record)
            record.report(placing=True)

        result = do(
            FileJob(task.path, task.name, task.out, force=task.force or record.placing),
            lambda: Engine(task.settings, threads=max(1, cores() // self._processes)),
            folder=record.folder(task),
            report=Reporter(record, partial(self._check_ours, record)),
            before_placing=before_placing,
        )
        outputs = [str(path) for path in result.outputs]
        record.report(outputs=outputs, frames=result.summary.frames, error=None, retry_at=None)

    def _check_ours(self, record: Record) -> None:
        if not record.is_of(self.name):
            raise _GivenAway

    # All jobs

    def clean_registries(self) -> None:
        """Look after jobs whose worker died; rq would leave that to others for 15 minutes if we died in the midst."""
        self.last_cleaned_at = now()  # type: ignore[assignment]  # rq knows None alone
        if self._upkeep.turn(self.name):
            for queue in self.queues:
                clean_registries(queue, self._exc_handlers)
                clean_worker_registry(queue)
            self._upkeep.tidy()

    def _abandoned(self, job: Job, *_: object) -> None:
        """Note that the worker of a job died, before rq tries it again or not."""
        assert isinstance(job, Record)
        job.disown()
        job.sweep()
        job.blame(
            f"Its worker gave no sign of life for {_SILENT_S} s: killed, or cut off from the store.", curable=True
        )
        state: JobState = "retrying" if job.should_retry else "cancelled" if job.cancel_asked else "failed"
        self._metrics.jobs.labels(state).inc()
        _log.warning("the worker of job %s is gone: %s", job.id, state)


def _is_late(job: Record) -> bool:
    """Has the attempt under way taken longer than it may?"""
    if not job.started_at or not job.timeout:
        return False
    return (now() - job.started_at).total_seconds() > job.timeout


class _GivenAway(Exception):  # noqa: N818 - nobody sees it
    """Another worker has the job now."""
