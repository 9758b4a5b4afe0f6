"""List of the rows. Each is measured in its own process, so that it inherits no threads or memory."""

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

from benchmarks.goals import Line, NotMeasurable, Row
from benchmarks.rows import Options
from benchmarks.watch import busy_s

Measure = Callable[[Options], Iterable[Line]]


@dataclass(frozen=True, slots=True)
class RowDefinition:
    """A row: its title and the function that measures it, which is imported in the process of the row."""

    title: str
    module: str
    function: str = "measure"


ROWS = {
    "file": RowDefinition("recorded 640×360, one face, every frame, one core", "recorded", "one_face"),
    "file-1080p": RowDefinition("recorded 1080p, three faces, every frame, one core", "recorded", "three_faces"),
    "classify": RowDefinition("classify, one core", "classify"),
    "live": RowDefinition("live: cameras of 640×360 at 15 fps, one face each, one core", "live"),
    "queue": RowDefinition(
        "queue: enqueue → predict → result, one worker, two cores in total", "queue", "one_worker"
    ),
    "workers": RowDefinition("classification workers 1 → 2, two cores", "queue", "two_workers"),
    "start": RowDefinition("start", "start"),
    "memory": RowDefinition("memory (PSS), one camera", "memory"),
}


def run_row(name: str, options: Options) -> Row:
    """Measure a row in its own process."""
    start_s, busy, used = time.monotonic(), busy_s(), _children_s()
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        lines = executor.submit(measure_lines, ROWS[name], options).result()
    duration_s = time.monotonic() - start_s
    others_s = max(0.0, busy_s() - busy - (_children_s() - used))
    return Row(name, ROWS[name].title, lines, others_s / duration_s / (os.cpu_count() or 1), duration_s)


def measure_lines(row: RowDefinition, options: Options) -> list[Line]:
    """Return the lines of a row, or one line with the reason if it cannot be measured."""
    try:
        measure: Measure = getattr(import_module(f"benchmarks.rows.{row.module}"), row.function)
        return list(measure(options))
    except NotMeasurable as error:
        return [Line("all", unmeasured_reason=str(error))]
    except Exception as error:  # noqa: BLE001 - an error in one row must not prevent the others
        traceback.print_exc()
        first = str(error).partition("\n")[0]
        return [Line("all", unmeasured_reason=f"{type(error).__name__}: {first}")]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
