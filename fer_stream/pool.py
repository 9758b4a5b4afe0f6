"""Many files side by side, each in a process of its own that keeps its models from file to file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from fer_stream.config.settings import FileSettings
from fer_stream.errors import FerStreamError
from fer_stream.files import FileProcessor, FileTask, FileResult, process_file
from fer_stream.outputs.atomic_file import discard_partials_of
from fer_stream.pipeline import Progress, StopFlag
from fer_stream.records import SourceInfo

OnProgress = Callable[[FileTask, SourceInfo, Progress], object]

# What ends a batch: the parent hears it and tells its workers.
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

# How often the parent looks whether it was asked to stop.
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended: with a result, or with an error and the exit code that belongs to it.

    `trace` is the traceback of a fault that nobody foresaw.
    """

    job: FileTask
    result: FileResult | None = None
    error: str | None = None
    exit_code: int = 0
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class _ProgressMessage:
    """How far a job is."""

    info: SourceInfo
    run: Progress


@dataclass(frozen=True, slots=True)
class _Skipped:
    """A job came after the word to halt."""


_Message = Outcome | _ProgressMessage | _Skipped


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_files(
    jobs: Sequence[FileTask], settings: FileSettings, *, processes: int, stop: StopFlag, progress: OnProgress
) -> Generator[Outcome]:
    """Run `jobs` in at most `processes` worker processes; give each outcome as it comes.

    A job that fails leaves the others alone, also where a broken file crashes FFmpeg or OpenCV and with it the
    process. One job alone needs no such protection and runs here, which saves 0.7 s. Once `stop` is set, running jobs
    end with what they have and the others are not begun. Running jobs are killed when the generator is closed.
    """
    if len(jobs) == 1:
        (job,) = jobs
        yield _run_one(partial(FileProcessor, settings), job, stop, partial(progress, job))
        return
    crew = _WorkerPool(jobs, settings, processes)
    try:
        while crew.has_work():
            if stop.is_set():
                crew.stop()
            yield from crew.outcomes(progress)
    finally:
        crew.kill()


class _WorkerPool:
    """The worker processes, and the jobs that wait for one of them."""

    def __init__(self, jobs: Sequence[FileTask], settings: FileSettings, processes: int) -> None:
        self._waiting = deque(jobs)
        self._processes = min(processes, len(jobs))
        self._settings = settings
        self._busy: list[_Worker] = []

    def has_work(self) -> bool:
        return bool(self._waiting or self._busy)

    def outcomes(self, progress: OnProgress) -> Iterator[Outcome]:
        """Give every worker a job, wait a moment for news, pass on what they are."""
        while self._waiting and len(self._busy) < self._processes:
            self._busy.append(_Worker(self._waiting.popleft(), self._settings, cores() // self._processes))
        ready = wait([worker.connection for worker in self._busy], _POLL_S)
        for worker in [worker for worker in self._busy if worker.connection in ready]:
            news = worker.receive()
            if isinstance(news, _ProgressMessage):
                progress(worker.job, news.info, news.run)
                continue
            self._dispatch_next(worker)
            if isinstance(news, Outcome):
                yield news

    def stop(self) -> None:
        self._waiting.clear()
        for worker in self._busy:
            worker.stop()

    def kill(self) -> None:
        for worker in self._busy:
            worker.kill()

    def _dispatch_next(self, worker: _Worker) -> None:
        if self._waiting and worker.alive:
            worker.submit(self._waiting.popleft())
        else:
            self._busy.remove(worker)
            worker.end()


class _Worker:
    """A process that works on one job at a time, as its parent sees it."""

    def __init__(self, job: FileTask, settings: FileSettings, threads: int) -> None:
        # Spawned, not forked: OpenCV, FFmpeg and ONNX Runtime have threads that a fork would not take along.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, settings, max(1, threads)), daemon=True)
        with _signals_blocked():
            self._process.start()
        theirs.close()
        self.alive = True
        self._halted = False
        self.submit(job)

    def submit(self, job: FileTask) -> None:
        self.job = job
        self._send(job)

    def stop(self) -> None:
        """Have the job end with what it has; no other may be begun."""
        if not self._halted:
            self._halted = True
            self._send(None)

    def receive(self) -> _Message:
        """What came from the process, or that it died."""
        try:
            news: _Message = self.connection.recv()
        except (EOFError, OSError):
            self.alive = False
            self._process.join()
            return Outcome(self.job, error=_describe_crash(self.job, self._process.exitcode or 0), exit_code=1)
        return news

    def end(self) -> None:
        """Wait until the process is gone, which is not working on anything."""
        self.connection.close()
        self._process.join()
        if self._process.exitcode:
            discard_partials_of(self._process.pid or 0, self.job.out)

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def _send(self, message: FileTask | None) -> None:
        with suppress(OSError):  # it died, which `receive` will tell
            self.connection.send(message)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals wait until the body is done, and for ever in a process that it starts, which inherits this."""
    # Started by the first process, it would unblock them.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_crash(job: FileTask, exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return (
            f"The process that worked on {job.path} was killed (SIGKILL), perhaps for want of memory. Work on fewer "
            "files at a time with --workers."
        )
    how = f"{signal.Signals(-exit_code).name}, " if exit_code < 0 else ""
    return (
        f"{job.path} crashed the process that worked on it ({how}exit code {exit_code}), as a damaged file may. "
        "Convert it to H.264, or leave it out."
    )


# In the worker process


class _StopSignal:
    """Set when the parent says halt or is gone: while a job runs, nothing else can come from there."""

    def __init__(self, parent: Connection) -> None:
        self._parent = parent

    def is_set(self) -> bool:
        return self._parent.poll()


def _work(parent: Connection, settings: FileSettings, threads: int) -> None:
    """Work on one job after the other, until the parent says halt or is gone; signals never reach us."""
    engine = cache(partial(FileProcessor, settings, threads=threads))
    halt = _StopSignal(parent)

    def tell(info: SourceInfo, run: Progress) -> None:
        parent.send(_ProgressMessage(info, run))

    with suppress(EOFError, ConnectionError):  # the parent is gone
        while (job := parent.recv()) is not None:
            parent.send(_Skipped() if halt.is_set() else _run_one(engine, job, halt, tell))


def _run_one(
    engine: Callable[[], FileProcessor], job: FileTask, stop: StopFlag, progress: Callable[[SourceInfo, Progress], object]
) -> Outcome:
    try:
        result = process_file(engine(), job, stop=stop, progress=progress)
    except FerStreamError as error:
        return Outcome(job, error=str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - one file must not take the others with it; the fault is reported
        said = f"{job.path}: {type(error).__name__}: {error}"
        return Outcome(job, error=said, exit_code=1, trace=traceback.format_exc())
    return Outcome(job, result)
