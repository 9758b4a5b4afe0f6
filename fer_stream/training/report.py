"""Report of an evaluation as Markdown and JSON, with plots."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fer_stream.records import LABELS
from fer_stream.training.evaluate import CORRUPTIONS, Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

mpl.use("Agg")

CONFUSION, CURVES, COVERAGE = "confusion.png", "robustness.png", "coverage.png"


def write(evaluation: Evaluation, title: str, out: Path) -> Path:
    """Write evaluation.json, evaluation.md and plots to the folder `out`; returns the path of the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    found = {"model": title, **asdict(evaluation)}
    (out / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _confusion(evaluation).savefig(out / CONFUSION, dpi=110, bbox_inches="tight")
    _coverage(evaluation).savefig(out / COVERAGE, dpi=110, bbox_inches="tight")
    if evaluation.robustness:
        _robustness(evaluation).savefig(out / CURVES, dpi=110, bbox_inches="tight")
    path = out / "evaluation.md"
    path.write_text(_markdown(evaluation, title), encoding="utf-8")
    return path


def _markdown(evaluation: Evaluation, title: str) -> str:
    low, high = evaluation.interval
    rows = [
        ("accuracy", f"{evaluation.accuracy:.2%} (95 %: {low:.1%} to {high:.1%})"),
        *_copies_row(evaluation),
        ("balanced accuracy", f"{evaluation.balanced_accuracy:.2%}"),
        *((f"recall of {name}", f"{share:.1%}") for name, share in evaluation.recall.items()),
        ("expected calibration error", f"{evaluation.calibration_error:.3f}"),
    ]
    if evaluation.majority_accuracy is not None:
        rows.append(
            (
                "accuracy against the majority of FER+",
                f"{evaluation.majority_accuracy:.2%} of {evaluation.majority_faces}",
            )
        )
    if evaluation.ferplus_accuracy is not None:
        rows.append(("accuracy of the FER+ head", f"{evaluation.ferplus_accuracy:.2%} of {evaluation.ferplus_faces}"))
    parts = [f"# {title}", f"{evaluation.faces} faces, one crop each.", _table(("measure", "value"), rows)]
    parts += [f"![Confusion matrix]({CONFUSION})"]
    parts += [
        "## Accuracy over coverage",
        _coverage_table(evaluation),
        f"![Accuracy over coverage]({COVERAGE})",
    ]
    if evaluation.robustness:
        parts += ["## Robustness", *map(_corruption_table, evaluation.robustness.items())]
        parts += [f"![Accuracy under each corruption]({CURVES})"]
    if evaluation.speed_ms:
        times = [(name, *(f"{ms:.2f}" for _, ms in speeds)) for name, speeds in evaluation.speed_ms.items()]
        batches = [f"batch {batch}" for batch, _ in next(iter(evaluation.speed_ms.values()))]
        parts += ["## Milliseconds per face (one thread; Keras: all threads)", _table(("backend", *batches), times)]
    return "\n\n".join(parts) + "\n"


def _copies_row(evaluation: Evaluation) -> list[tuple[str, str]]:
    if evaluation.accuracy_without_duplicates is None:
        return []
    return [
        (
            f"accuracy without the {evaluation.duplicates} that are copies of training images",
            f"{evaluation.accuracy_without_duplicates:.2%}",
        )
    ]


def _coverage_table(evaluation: Evaluation) -> str:
    curves = {"by probability": evaluation.selective, "by agreement": evaluation.selective_by_agreement}
    columns = {name: curve for name, curve in curves.items() if curve}
    rows = [
        (f"{points[0][0]:.0%}", *(f"{accuracy:.1%}" for _, accuracy in points))
        for points in zip(*columns.values(), strict=True)
    ]
    return _table(("share judged", *columns), rows)


def _corruption_table(found: tuple[str, list[tuple[float, float]]]) -> str:
    name, curve = found
    return _table(
        (f"{name} ({CORRUPTIONS[name].unit})", "accuracy"), [(f"{level:g}", f"{share:.1%}") for level, share in curve]
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _confusion(evaluation: Evaluation) -> Figure:
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5.4))
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(LABELS)), LABELS, rotation=45, ha="right")
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xlabel("called")
    axes.set_ylabel("label")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", color="white" if share > 0.5 else "black")
    axes.set_title(f"{evaluation.faces} faces, {evaluation.accuracy:.1%} right")
    return figure


def _coverage(evaluation: Evaluation) -> Figure:
    figure = Figure(figsize=(5, 3.2))
    axes = figure.add_subplot()
    axes.plot(*zip(*evaluation.selective, strict=True), marker="o", label="by probability")
    if evaluation.selective_by_agreement:
        axes.plot(*zip(*evaluation.selective_by_agreement, strict=True), marker="o", label="by agreement")
    axes.legend()
    axes.set_xlabel("share of the faces that are judged")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    return figure


def _robustness(evaluation: Evaluation) -> Figure:
    curves = list(evaluation.robustness.items())
    figure = Figure(figsize=(11, 2.6 * -(-len(curves) // 4)), layout="constrained")
    for number, (name, curve) in enumerate(curves, start=1):
        axes = figure.add_subplot(-(-len(curves) // 4), 4, number)
        axes.plot(*zip(*curve, strict=True), marker="o")
        axes.axhline(evaluation.accuracy, color="gray", linewidth=0.8, linestyle="--")
        axes.set_ylim(0, 1)
        axes.set_title(name)
        axes.set_xlabel(CORRUPTIONS[name].unit)
        axes.grid(alpha=0.3)
    return figure
