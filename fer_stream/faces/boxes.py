"""Geometry of boxes: area, intersection over union, non-maximum suppression.

A box is (x1, y1, x2, y2) in px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
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


def nms(boxes: F32, confidence: F32, max_iou: float) -> list[int]:
    """Return the rows of the boxes (n, 4) that remain after greedy non-maximum suppression, most confident first.

    A box is suppressed if its IoU with a more confident remaining box exceeds `max_iou`. `confidence` (n,) must be
    positive.
    """
    rectangles = np.hstack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]))
    return list(cv2.dnn.NMSBoxes(rectangles.tolist(), confidence.tolist(), 0.0, max_iou))


def nms_groups(boxes: F32, confidence: F32, max_iou: float) -> list[I64]:
    """Return for each box that `nms` keeps, in the same order, its row and the rows that it suppresses, int64.

    The rows of a group are sorted by `confidence`, the highest first.
    """
    kept = nms(boxes, confidence, max_iou)
    if not kept:
        return []
    overlapping = iou_matrix(boxes[kept], boxes) > max_iou
    overlapping[:, kept] = np.eye(len(kept), dtype=bool)
    first = overlapping & (overlapping.cumsum(axis=0) == 1)
    order = np.argsort(-confidence, kind="stable")
    return [order[row[order]] for row in first]
