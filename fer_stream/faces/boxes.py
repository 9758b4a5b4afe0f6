"""Geometry of boxes: area, intersection over union, non-maximum suppression.

A box is (x1, y1, x2, y2) in px.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_stream.records import F32, F64, I64

_TINY = np.finfo(np.float64).tiny

Boxes = NDArray[np.floating[Any]]


def areas(boxes: Boxes) -> F64:
    """Return the areas of boxes (…, 4) in px², float64 (…,)."""
    result: F64 = (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1, dtype=np.float64)
    return result


def iou_matrix(a: Boxes, b: Boxes) -> F64:
    """Return the intersection over union of each box in `a` (n, 4) with each box in `b` (m, 4), float64 (n, m).

    The IoU of boxes without an area is 0.
    """
    rows, columns = a[:, np.newaxis].astype(np.float64), b.astype(np.float64)
    sides = np.minimum(rows[..., 2:], columns[:, 2:]) - np.maximum(rows[..., :2], columns[:, :2])
    intersection = np.maximum(sides, 0.0).prod(axis=-1)
    union = areas(rows) + areas(columns) - intersection
    result: F64 = intersection / np.maximum(union, _TINY)
    return result


def suppress(boxes: F32, confidence: F32, max_iou: float) -> list[I64]:
    """Group boxes (n, 4) by greedy non-maximum suppression.

    Each group is the most confident remaining box and all remaining boxes whose IoU with it exceeds `max_iou`.
    Returns the rows of each group, int64; both the groups and the rows in a group start with the highest
    `confidence` (n,).
    """
    remaining = np.argsort(-confidence, kind="stable")
    groups = []
    while len(remaining):
        overlapping = iou_matrix(boxes[remaining[:1]], boxes[remaining])[0] > max_iou
        overlapping[0] = True  # also if the box has no area
        groups.append(remaining[overlapping])
        remaining = remaining[~overlapping]
    return groups
