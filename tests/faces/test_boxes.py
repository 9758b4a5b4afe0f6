"""Geometry of boxes."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.boxes import areas, iou_matrix, suppress
from fer_stream.records import F32

coordinate = st.floats(-1e4, 1e4, width=32)
boxes = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=8)


def array(*rows: tuple[float, ...]) -> F32:
    return np.array(rows, np.float32).reshape(-1, 4)


def sorted_corners(rows: list[tuple[float, float, float, float]]) -> F32:
    return array(*((min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows))


def test_areas() -> None:
    assert areas(array((0, 0, 2, 3), (5, 5, 5, 9))).tolist() == [6, 0]


def test_iou_is_intersection_over_union() -> None:
    a, b = array((0, 0, 10, 10)), array((0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10), (30, 30, 40, 40))
    np.testing.assert_allclose(iou_matrix(a, b), [[1, 1 / 3, 0, 0]])


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = array((3, 3, 3, 3))
    assert iou_matrix(point, point).tolist() == [[0.0]]


def test_iou_without_boxes_is_empty() -> None:
    assert iou_matrix(array(), array((0, 0, 1, 1))).shape == (0, 1)
    assert iou_matrix(array((0, 0, 1, 1)), array()).shape == (1, 0)


@given(a=boxes, b=boxes)
def test_iou_is_symmetric_and_between_0_and_1(
    a: list[tuple[float, float, float, float]], b: list[tuple[float, float, float, float]]
) -> None:
    iou = iou_matrix(sorted_corners(a), sorted_corners(b))
    assert ((iou >= 0) & (iou <= 1 + 1e-9)).all()
    np.testing.assert_array_equal(iou, iou_matrix(sorted_corners(b), sorted_corners(a)).T)


def test_suppression_groups_overlapping_boxes_by_confidence() -> None:
    found = array((0, 0, 10, 10), (50, 50, 60, 60), (1, 0, 11, 10), (0, 1, 10, 11))
    groups = suppress(found, np.array([0.7, 0.8, 0.9, 0.6], np.float32), max_iou=0.3)
    assert [rows.tolist() for rows in groups] == [[2, 0, 3], [1]]


def test_suppression_keeps_equal_confidences_in_order() -> None:
    groups = suppress(array((0, 0, 1, 1), (5, 5, 6, 6), (9, 9, 10, 10)), np.ones(3, np.float32), max_iou=0.3)
    assert [rows.tolist() for rows in groups] == [[0], [1], [2]]


def test_suppression_without_boxes_is_empty() -> None:
    assert suppress(array(), np.empty(0, np.float32), max_iou=0.3) == []


def test_suppression_keeps_the_boxes_that_opencv_keeps() -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        corners, sizes = random.uniform(0, 80, (40, 2)), random.uniform(5, 40, (40, 2))
        found = np.hstack((corners, corners + sizes)).astype(np.float32)
        confidence = random.uniform(0.1, 1, 40).astype(np.float32)
        rects = np.hstack((found[:, :2], found[:, 2:] - found[:, :2]))
        expected = cv2.dnn.NMSBoxes(rects.tolist(), confidence.tolist(), 0.0, 0.3)
        assert [int(rows[0]) for rows in suppress(found, confidence, 0.3)] == list(expected)
