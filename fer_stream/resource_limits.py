"""Limits of this process on memory and threads, which libraries report in misleading ways or by a deadlock."""

from __future__ import annotations

import os
from errno import EAGAIN
from pathlib import Path
from threading import Event, Thread

from fer_stream.errors import ResourceLimitReached

MIN_ADDRESS_SPACE = 1_500_000_000
"""Bytes. A clip of 640×360 px with all outputs took 1.38 GB with BlazeFace and 1.82 GB with YuNet, on two cores."""

MIN_THREADS = 12
"""Threads besides those that decode and encode: the same run had 16 threads at once on two cores."""

# Part of the limit at which an error is attributed to it: the failed allocation itself is not counted.
_EXHAUSTED = 0.8

_CURE = (
    "Raise the limit (`ulimit -v unlimited` for address space, `ulimit -u` or the pids limit of the container for "
    "threads), or use less with --workers 1."
)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ensure_limits(threads: int) -> None:
    """Raise `ResourceLimitReached` if the process has too little address space, or cannot start enough threads.

    `threads` is the number that decodes and encodes each.
    """
    limit = _address_space_limit()
    if limit is not None and limit < MIN_ADDRESS_SPACE:
        raise ResourceLimitReached(
            f"The address space of this process is limited to {limit / 1e9:.1f} GB; an analysis needs about 2 GB. "
            "Raise the limit: `ulimit -v unlimited`. Address space is not memory; to limit memory use a container."
        )
    count = MIN_THREADS + 2 * threads
    started = _count_startable_threads(count)
    if started < count:
        raise ResourceLimitReached(
            f"This process can start {started} more threads; an analysis needs {count}. Raise the limit of the user "
            "(`ulimit -u`) or of the container (pids), or stop other programs."
        )


def describe_shortage(error: BaseException) -> str | None:
    """Return what a user can do if `error` was caused by a limit of the process; None if it was not."""
    if _is_shortage(error):
        return f"The process reached a limit of memory or threads ({error or 'out of memory'}). {_CURE}"
    limit = _address_space_limit()
    if limit is not None and _peak_address_space() > _EXHAUSTED * limit:
        return f"The process has used its address space of {limit / 1e9:.1f} GB, possibly the cause. {_CURE}"
    return None


def _is_shortage(error: BaseException) -> bool:
    threads = isinstance(error, RuntimeError) and "start new thread" in str(error)
    return threads or isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == EAGAIN)


def _address_space_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _peak_address_space() -> int:
    """Return the peak in bytes; 0 where the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmPeak:")), 0)


def _count_startable_threads(count: int) -> int:
    end, started = Event(), list[Thread]()
    try:
        for _ in range(count):
            thread = Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    finally:
        end.set()
        for thread in started:
            thread.join()
    return len(started)
