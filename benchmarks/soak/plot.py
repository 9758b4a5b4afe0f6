"""Chart of a soak run: latency, drops and memory over time, with a mark for every fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.plot import COLOURS, TEXT, apply_style
from benchmarks.soak.account import percentiles
from benchmarks.soak.observe import Observed
from benchmarks.watch import Arrival

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BIN_S = 10.0
_ROLES = ("capture", "classify", "timeline", "serve", "queue", "store")


def plot(observed: Observed, path: Path) -> None:
    """Write the chart as PNG."""
    mpl.use("Agg")
    kinds = sorted({fault.kind for fault in observed.faults})
    figure, (marks, latency, drops, memory) = plt.subplots(
        4, 1, sharex=True, figsize=(11, 9), height_ratios=[max(1, len(kinds)) * 0.28, 3, 2, 3], layout="constrained"
    )
    _faults(marks, observed, kinds)
    _latency(latency, observed)
    _drops(drops, observed)
    _memory(memory, observed)
    for axes in (marks, latency, drops, memory):
        apply_style(axes)
        for fault in observed.faults:
            axes.axvspan(*(_minutes(observed, edge) for edge in fault.window), color="#f3f0ea", lw=0, zorder=0)
    memory.set_xlabel("minutes")
    memory.set_xlim(0, _minutes(observed, observed.span[1]))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _faults(axes: Axes, observed: Observed, kinds: Sequence[str]) -> None:
    for fault in observed.faults:
        axes.plot(_minutes(observed, fault.started_s), kinds.index(fault.kind), "|", color=COLOURS[1], ms=7, mew=2)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_title("Faults", loc="left")


def _latency(axes: Axes, observed: Observed) -> None:
    bins = _binned([arrival for some in observed.arrivals.values() for arrival in some], observed)
    minutes = [(number + 0.5) * _BIN_S / 60 for number in bins]
    spread = [percentiles([arrival.latency_s for arrival in some]) for some in bins.values()]
    for which, colour, label in (
        ("max", "#bbbbbb", "slowest"),
        ("p95", COLOURS[1], "p95"),
        ("p50", COLOURS[0], "p50"),
    ):
        axes.plot(minutes, [1000 * one[which] for one in spread], color=colour, lw=1.2, label=label)
    axes.axhline(100, color=TEXT, lw=0.6, ls=":")
    axes.set_yscale("log")
    axes.set_title(f"Latency from frame to result, ms, per {_BIN_S:.0f} s", loc="left")
    axes.legend(loc="upper right", ncols=3, frameon=False)


def _binned(arrivals: Sequence[Arrival], observed: Observed) -> dict[int, list[Arrival]]:
    bins: dict[int, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        if observed.span[0] <= arrival.received_s <= observed.span[1]:
            bins[int((arrival.received_s - observed.span[0]) / _BIN_S)].append(arrival)
    return dict(sorted(bins.items()))


def _drops(axes: Axes, observed: Observed) -> None:
    what = {"fer_frames_dropped_total": "frames", "fer_crops_dropped_total": "faces"}
    for (name, label), colour in zip(what.items(), COLOURS, strict=False):
        axes.step(*_rises(observed, name), color=colour, lw=1.2, label=label, where="post")
    axes.set_title("Dropped, cumulative", loc="left")
    axes.legend(loc="upper left", frameon=False)


def _rises(observed: Observed, name: str) -> tuple[list[float], list[float]]:
    """Return minutes and the cumulative increase of all series of `name`."""
    steps: list[tuple[float, float]] = []
    for (_, series), samples in observed.watched.metrics.items():
        if series.startswith(name):
            before = 0.0
            for time_s, value in samples:
                steps.append((time_s, value - before if value >= before else value))
                before = value
    steps.sort()
    times = [_minutes(observed, time_s) for time_s, _ in steps]
    return times, np.cumsum([rise for _, rise in steps]).tolist()


def _memory(axes: Axes, observed: Observed) -> None:
    for role, colour in zip(_ROLES, COLOURS, strict=True):
        lives: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for one in observed.watched.usage:
            if one.role == role:
                lives[one.pid].append((_minutes(observed, one.time_s), one.pss_mb))
        # The first sample of a process is during its start.
        grown = [life[1:] for life in lives.values() if len(life) > 1]
        for number, life in enumerate(grown):
            axes.plot(*zip(*life, strict=True), color=colour, lw=1.4, label="" if number else role)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_title("Memory (PSS), MB", loc="left")
    axes.legend(loc="upper right", ncols=6, frameon=False)


def _minutes(observed: Observed, time_s: float) -> float:
    return (time_s - observed.span[0]) / 60
