"""Many files side by side: one process per core, each with models of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from threading import Thread
from typing import Any

from fer_stream.config import FileSettings
from fer_stream.errors import FerStreamError
from fer_stream.filejob import Engine, FileJob, FileResult, run_job
from fer_stream.pipeline import FileRun, Flag
from fer_stream.records import SourceInfo

Progress = Callable[[FileJob, SourceInfo, FileRun], object]

# How often the parent looks whether it was asked to stop.
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended: with a result, or with an error and the exit code that belongs to it.

    `trace` is the traceback of a fault that nobody foresaw.
    """

    job: FileJob
    result: FileResult | None = None
    error: str | None = None
    exit_code: int = 0
    trace: str | None = None


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Sequence[FileJob], settings: FileSettings, *, processes: int, stop: Flag, progress: Progress
) -> Iterator[Outcome]:
    """Run `jobs` on at most `processes` cores; give each outcome as it comes.

    A job that fails leaves the others alone. Once `stop` is set, running jobs end with what they have and the others
    are not begun. Raises a `ModelError` or `ConfigError` where no job could run at all.
    """
    processes = min(processes, len(jobs))
    if processes > 1:
        yield from _run_side_by_side(jobs, settings, processes, stop, progress)
        return
    engine = Engine(settings)
    for job in jobs:
        if stop.is_set():
            return
        yield _attempt(lambda: engine, job, stop, progress)


def _attempt(engine: Callable[[], Engine], job: FileJob, stop: Flag, progress: Progress) -> Outcome:
    try:
        result = run_job(engine(), job, stop=stop, progress=lambda info, run: progress(job, info, run))
    except FerStreamError as error:
        return Outcome(job, error=str(error), exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - one file must not take the others with it; the fault is reported
        return Outcome(job, error=f"{type(error).__name__}: {error}", exit_code=1, trace=traceback.format_exc())
    return Outcome(job, result)


def _run_side_by_side(
    jobs: Sequence[FileJob], settings: FileSettings, processes: int, stop: Flag, progress: Progress
) -> Iterator[Outcome]:
    # Spawned, not forked: OpenCV, FFmpeg and ONNX Runtime have threads that a fork would not take along.
    context = multiprocessing.get_context("spawn")
    news, halt = context.SimpleQueue(), context.Event()
    listener = Thread(target=_relay, args=(news, progress), daemon=True)
    listener.start()
    pool = ProcessPoolExecutor(
        processes, context, _start_worker, (settings, max(1, cores() // processes), halt, news)
    )
    try:
        futures = {pool.submit(_work, job): job for job in jobs}
        yield from _collect(futures, stop, halt)
    finally:
        halt.set()
        pool.shutdown(cancel_futures=True)
        news.put(None)
        listener.join()


def _collect(futures: dict[Future[Outcome | None], FileJob], stop: Flag, halt: Any) -> Iterator[Outcome]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            yield from _outcome(future, futures[future])
        if stop.is_set() and not halt.is_set():
            halt.set()
            pending = {future for future in pending if not future.cancel()}


def _outcome(future: Future[Outcome | None], job: FileJob) -> Iterator[Outcome]:
    try:
        outcome = future.result()
    except BrokenProcessPool:
        yield Outcome(job, error="the process that worked on it was killed, perhaps for want of memory", exit_code=1)
        return
    if outcome is not None:
        yield outcome


class _Worker:
    """What one worker process keeps between its jobs."""

    def __init__(self, settings: FileSettings, threads: int, halt: Flag, news: Any) -> None:
        self._settings = settings
        self._threads = threads
        self._halt = halt
        self._news = news

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self._settings, threads=self._threads)

    def run(self, job: FileJob) -> Outcome | None:
        """None where the job was not begun."""
        if self._halt.is_set():
            return None
        return _attempt(lambda: self._engine, job, self._halt, lambda *report: self._news.put(report))


_worker: _Worker


def _start_worker(*setup: Any) -> None:
    """Set up a worker process. Ctrl-C is the parent's business: it tells the workers to halt."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _worker = _Worker(*setup)


def _work(job: FileJob) -> Outcome | None:
    return _worker.run(job)


def _relay(news: Any, progress: Progress) -> None:
    while (report := news.get()) is not None:
        progress(*report)
