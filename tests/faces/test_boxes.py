"""Geometry of boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.detector import areas, iou_matrix, nms, nms_groups
from fer_stream.records import F32

coordinate = st.floats(-1e4, 1e4, width=32)
FOUND = np.array([(0, 0, 10, 10), (50, 50, 60, 60), (1, 0, 11, 10), (0, 1, 10, 11)], np.float32)
CONFIDENCE = np.array([0.7, 0.8, 0.9, 0.6], np.float32)

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


def test_nms_keeps_the_most_confident_of_overlapping_boxes() -> None:
    assert nms(FOUND, CONFIDENCE, max_iou=0.3) == [2, 1]


def test_nms_groups_contain_the_suppressed_boxes() -> None:
    assert [rows.tolist() for rows in nms_groups(FOUND, CONFIDENCE, max_iou=0.3)] == [[2, 0, 3], [1]]


def test_a_box_is_in_the_group_of_the_most_confident_box_that_suppresses_it() -> None:
    row = array((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10))
    groups = nms_groups(row, np.array([0.8, 0.7, 0.9], np.float32), max_iou=0.3)
    assert [rows.tolist() for rows in groups] == [[2, 1], [0]]


def test_nms_keeps_the_order_of_equal_confidences() -> None:
    assert nms(array((0, 0, 1, 1), (5, 5, 6, 6), (9, 9, 10, 10)), np.ones(3, np.float32), max_iou=0.3) == [0, 1, 2]


def test_nms_without_boxes_is_empty() -> None:
    assert nms(array(), np.empty(0, np.float32), max_iou=0.3) == []
    assert nms_groups(array(), np.empty(0, np.float32), max_iou=0.3) == []
