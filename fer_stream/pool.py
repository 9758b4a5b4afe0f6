"""Parallel processing of many files in worker processes that keep their models from file to file."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fer_stream.errors import FerStreamError, ResourceLimitReached
from fer_stream.files import FileProcessor, FileResult, FileTask, find_results, missing_results, process_file
from fer_stream.log import quiet_libraries
from fer_stream.outputs.atomic_file import discard_partial_files
from fer_stream.pipeline import Progress, StopFlag
from fer_stream.records import SourceInfo
from fer_stream.resource_limits import cores, describe_shortage

if TYPE_CHECKING:
    from fer_stream.config.settings import FileSettings

OnProgress = Callable[[FileTask, SourceInfo, Progress], object]
"""Called after each batch of a file."""

# Signals that stop a run. Only the parent handles them; it sends its workers a message.
STOP_SIGNALS = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # no SIGHUP on Windows
}

_SIGKILL = 9
"""On Windows, which lacks the name, exit codes are not negative."""

# Interval at which the parent checks the stop flag.
_POLL_INTERVAL_S = 0.2


OutcomeState = Literal["already done", "new", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of one task: a result, or an error message with its exit code, or both if the result is incomplete.

    `kept` are the results of an earlier run, if there was nothing to do. `traceback` is that of an unexpected error.
    """

    task: FileTask
    result: FileResult | None = None
    error: str | None = None
    exit_code: int = 0
    traceback: str | None = None
    kept: tuple[Path, ...] = ()

    @property
    def state(self) -> OutcomeState:
        """How the task ended."""
        if self.error is not None:
            return "failed"
        if self.result is None:
            return "already done"
        return "interrupted" if self.result.summary.stopped else "new"


@dataclass(frozen=True, slots=True)
class _ProgressMessage:
    """Progress of the current task of a worker."""

    info: SourceInfo
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Skipped:
    """A task that a worker received after the stop message."""


_Message = Outcome | _ProgressMessage | _Skipped


def process_files(
    tasks: Sequence[FileTask], settings: FileSettings, *, workers: int, stop: StopFlag, progress: OnProgress
) -> Generator[Outcome]:
    """Process `tasks` in at most `workers` processes, and yield each outcome when the task ends.

    A task that fails does not affect the others, even if a damaged file crashes FFmpeg or OpenCV and with it the
    process. A single task needs no such protection and runs in this process, which saves 0.7 s. When `stop` is set,
    running tasks end with partial results and waiting tasks are skipped. Closing the generator kills running tasks.
    """
    if len(tasks) == 1:
        (task,) = tasks
        yield _run_one(partial(FileProcessor, settings), task, stop, partial(progress, task))
        return
    pool = _WorkerPool(tasks, settings, workers)
    try:
        while pool.has_work():
            if stop.is_set():
                pool.stop()
            yield from pool.outcomes(progress)
    finally:
        pool.kill()


class _WorkerPool:
    """Worker processes, and the tasks that wait for one of them."""

    def __init__(self, tasks: Sequence[FileTask], settings: FileSettings, workers: int) -> None:
        self._waiting = deque(tasks)
        self._max_workers = min(workers, len(tasks))
        self._settings = settings
        self._busy: list[_Worker] = []

    def has_work(self) -> bool:
        """Return whether a task is waiting or running."""
        return bool(self._waiting or self._busy)

    def outcomes(self, progress: OnProgress) -> Iterator[Outcome]:
        """Start missing workers, wait at most 0.2 s for messages, and yield the outcomes among them."""
        while self._waiting and len(self._busy) < self._max_workers:
            self._busy.append(_Worker(self._waiting.popleft(), self._settings, cores() // self._max_workers))
        ready = wait([worker.connection for worker in self._busy], _POLL_INTERVAL_S)
        for worker in [worker for worker in self._busy if worker.connection in ready]:
            message = worker.receive()
            if isinstance(message, _ProgressMessage):
                progress(worker.task, message.info, message.progress)
                continue
            self._dispatch_next(worker)
            if isinstance(message, Outcome):
                yield message

    def stop(self) -> None:
        """Skip waiting tasks and stop running ones."""
        self._waiting.clear()
        for worker in self._busy:
            worker.stop()

    def kill(self) -> None:
        """Kill all workers."""
        for worker in self._busy:
            worker.kill()

    def _dispatch_next(self, worker: _Worker) -> None:
        if self._waiting and worker.alive:
            worker.submit(self._waiting.popleft())
        else:
            self._busy.remove(worker)
            worker.close()


class _Worker:
    """The parent's handle of a process that works on one task at a time."""

    def __init__(self, task: FileTask, settings: FileSettings, threads: int) -> None:
        # Spawned, not forked: a fork would not copy the threads of OpenCV, FFmpeg and ONNX Runtime.
        context = multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        self._process = context.Process(target=_work, args=(child_connection, settings, max(1, threads)), daemon=True)
        with _signals_blocked():
            self._process.start()
        child_connection.close()
        self.alive = True
        self._stopping = False
        self.submit(task)

    def submit(self, task: FileTask) -> None:
        """Send the next task to the process."""
        self.task = task
        self._send(task)

    def stop(self) -> None:
        """Ask the process to end its task with partial results and to skip any other."""
        if not self._stopping:
            self._stopping = True
            self._send(None)

    def receive(self) -> _Message:
        """Receive a message; if the process crashed, return the outcome of its task."""
        try:
            message: _Message = self.connection.recv()
        except (EOFError, OSError):
            self.alive = False
            self._process.join()
            return Outcome(self.task, error=_describe_crash(self.task, self._process.exitcode or 0), exit_code=1)
        return message

    def close(self) -> None:
        """Wait for the end of the process, which must be idle or dead, and remove its partial files."""
        self.connection.close()
        self._process.join()
        if self._process.exitcode:
            discard_partial_files(self._process.pid or 0, self.task.output_dir)

    def kill(self) -> None:
        """Kill the process and remove its partial files."""
        self._process.kill()
        self.close()

    def _send(self, message: FileTask | None) -> None:
        with suppress(OSError):  # the process crashed, which `receive` reports
            self.connection.send(message)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in the body, and permanently in a process started in it, which inherits the mask.

    Windows has no mask: a worker ignores Ctrl-C there.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # The resource tracker, if started together with the first worker, would unblock the signals.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_crash(task: FileTask, exit_code: int) -> str:
    if exit_code == -_SIGKILL:
        return (
            f"{task.path}: the worker process was killed (SIGKILL), possibly because memory ran out. Reduce the "
            "number of processes with --workers."
        )
    cause = f"{signal.Signals(-exit_code).name}, " if exit_code < 0 else ""
    return (
        f"{task.path}: the worker process crashed ({cause}exit code {exit_code}), possibly because the file is "
        "damaged. Convert it to H.264 or leave it out."
    )


# In the worker process


class _StopSignal:
    """Set by any message from the parent, and by its end.

    While a task runs, the parent sends only the stop message.
    """

    def __init__(self, parent: Connection) -> None:
        self._parent = parent

    def is_set(self) -> bool:
        """Return whether the parent sent the stop message or ended."""
        return self._parent.poll()


def _work(parent: Connection, settings: FileSettings, threads: int) -> None:
    """Process tasks from the parent until it sends the stop message or ends. Signals are blocked in this process."""
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_libraries()
    processor = cache(partial(FileProcessor, settings, threads=threads))
    stop = _StopSignal(parent)

    def report(info: SourceInfo, progress: Progress) -> None:
        parent.send(_ProgressMessage(info, progress))

    with suppress(EOFError, ConnectionError):  # the parent ended
        while (task := parent.recv()) is not None:
            parent.send(_Skipped() if stop.is_set() else _run_one(processor, task, stop, report))


def _run_one(
    processor: Callable[[], FileProcessor],
    task: FileTask,
    stop: StopFlag,
    progress: Callable[[SourceInfo, Progress], object],
) -> Outcome:
    try:
        loaded = processor()
        kept = find_results(loaded, task)
        if kept and not missing_results(loaded, task, kept):
            return Outcome(task, kept=tuple(sorted(kept.paths)))
        result = process_file(loaded, task, keep=kept.paths if kept else (), stop=stop, progress=progress)
    except FerStreamError as error:
        return Outcome(task, error=str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - one file must not affect the others; the error is reported
        if shortage := describe_shortage(error):
            return Outcome(task, error=f"{task.path}: {shortage}", exit_code=ResourceLimitReached.exit_code)
        message = f"{task.path}: {type(error).__name__}: {error}"
        return Outcome(task, error=message, exit_code=1, traceback=traceback.format_exc())
    if result.failures:
        return Outcome(task, result, error=_describe_failures(result), exit_code=result.failures[0].exit_code)
    return Outcome(task, result)


def _describe_failures(result: FileResult) -> str:
    written = ", ".join(map(str, result.outputs))
    return "\n".join(
        [*map(str, result.failures), f"Written: {written}. To add what is missing, run the command again."]
    )
