"""Line charts side by side, and the common style of all plots of the benchmarks."""

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
TEXT = "#333333"
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
)  # Okabe and Ito, for all types of colour vision


@dataclass(frozen=True, slots=True)
class Curve:
    """Values y over x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over the same x. `line` is a limit to draw; `log` selects a logarithmic y axis."""

    title: str
    x_label: str
    curves: Sequence[Curve]
    unit: str
    line: float | None = None
    log: bool = False


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels side by side as a PNG file."""
    mpl.use("Agg")
    figure, rows = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), layout="constrained", squeeze=False)
    for axes, panel in zip(rows[0], panels, strict=True):
        _draw_panel(axes, panel)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def apply_style(axes: Axes) -> None:
    """Apply the common style: no border, light grid, small labels."""
    axes.grid(axis="y", color=GRID, lw=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelcolor=TEXT, labelsize=9)
    axes.title.set(fontsize=10, color=TEXT)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for curve, colour in zip(panel.curves, COLOURS, strict=False):
        axes.plot(curve.x, curve.y, "o-", color=colour, lw=1.5, ms=4, label=curve.name)
    if panel.line is not None:
        axes.axhline(panel.line, color=TEXT, lw=0.6, ls=":")
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
    apply_style(axes)
