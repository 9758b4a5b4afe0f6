"""Curves in panels side by side, and the look that all pictures of the benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = "#e4e4e4"
INK = "#333333"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: for all eyes


@dataclass(frozen=True, slots=True)
class Curve:
    """y over x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over the same x. `line` is a bound to be drawn, `log` a logarithmic axis."""

    title: str
    x_label: str
    curves: Sequence[Curve]
    unit: str
    line: float | None = None
    log: bool = False


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels side by side as PNG."""
    mpl.use("Agg")
    figure, rows = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), layout="constrained", squeeze=False)
    for axes, panel in zip(rows[0], panels, strict=True):
        _panel(axes, panel)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tidy(axes: Axes) -> None:
    """No frame, a faint grid, small print."""
    axes.grid(axis="y", color=GRID, lw=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK, labelsize=9)
    axes.title.set(fontsize=10, color=INK)


def _panel(axes: Axes, panel: Panel) -> None:
    for curve, colour in zip(panel.curves, COLOURS, strict=False):
        axes.plot(curve.x, curve.y, "o-", color=colour, lw=1.5, ms=4, label=curve.name)
    if panel.line is not None:
        axes.axhline(panel.line, color=INK, lw=0.6, ls=":")
    if panel.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * max(max(curve.y) for curve in panel.curves))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(panel.x_label)
    axes.set_title(f"{panel.title}, {panel.unit}", loc="left")
    if len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=9)
    tidy(axes)
