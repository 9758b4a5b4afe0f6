"""Which rows the table has. Each is measured in a process of its own, so that it inherits no threads or memory."""

from __future__ import annotations

import os
import resource
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context

from benchmarks.goals import Line, Row, NotMeasurable
from benchmarks.rows import Options
from benchmarks.watch import busy_s

Measure = Callable[[Options], Iterable[Line]]


@dataclass(frozen=True, slots=True)
class Work:
    """A row: what is done, and the function that measures it, which is loaded in the row's own process."""

    title: str
    module: str
    function: str = "measure"


WORKS = {
    "file": Work("recorded 640×360, one face, every frame, one core", "recorded", "one_face"),
    "file-1080p": Work("recorded 1080p, three faces, every frame, one core", "recorded", "three_faces"),
    "classify": Work("classify, one core", "classify"),
    "live": Work("live: cameras of 640×360 at 15 fps, one face each, on one core", "live"),
    "queue": Work("queue: put → predict → result, one worker, two cores for all", "queue", "one_worker"),
    "workers": Work("classify workers 1 → 2, two cores", "queue", "two_workers"),
    "start": Work("start", "start"),
    "memory": Work("memory (PSS), one camera", "memory"),
}


def measured(name: str, options: Options) -> Row:
    """Measure a row, in a process of its own."""
    began_s, busy, used = time.monotonic(), busy_s(), _children_s()
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        lines = alone.submit(lines_of, WORKS[name], options).result()
    lasted_s = time.monotonic() - began_s
    others_s = max(0.0, busy_s() - busy - (_children_s() - used))
    return Row(name, WORKS[name].title, lines, others_s / lasted_s / (os.cpu_count() or 1), lasted_s)


def lines_of(work: Work, options: Options) -> list[Line]:
    """The lines of a row; one that says why where it cannot be measured."""
    measure: Measure = getattr(import_module(f"benchmarks.rows.{work.module}"), work.function)
    try:
        return list(measure(options))
    except NotMeasurable as error:
        return [Line("all of it", why_not=str(error))]
    except Exception as error:  # noqa: BLE001 - one row that breaks must not cost the others
        traceback.print_exc()
        first = str(error).partition("\n")[0]
        return [Line("all of it", why_not=f"{type(error).__name__}: {first}")]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
