"""Recall and agreement on boxes with known results."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.agreement import Agreement, Recall, agreement, matched, recall
from fer_stream.records import F32, LabelledFace, LabelledFrame, Quality

_LEFT, _RIGHT = (0.0, 0.0, 10.0, 10.0), (100.0, 0.0, 110.0, 10.0)


def boxes(*corners: tuple[float, float, float, float]) -> F32:
    return np.array(corners, np.float32).reshape(-1, 4)


def frame(index: int, *faces: tuple[int, tuple[float, float, float, float], str]) -> LabelledFrame:
    probs = np.full(7, 1 / 7, np.float32)
    return LabelledFrame(
        "clip@1",
        index,
        index / 25,
        tuple(
            LabelledFace(person_id, np.array(box, np.float32), 0.9, Quality(0.8, "ok"), probs, probs, label)
            for person_id, box, label in faces
        ),
    )


def test_boxes_are_matched_once_in_order_of_iou() -> None:
    close, closer = (2.0, 0.0, 12.0, 10.0), (1.0, 0.0, 11.0, 10.0)
    assert matched(boxes(close, closer), boxes(_LEFT)) == [(1, 0)]
    assert matched(boxes(_RIGHT, _LEFT), boxes(_LEFT, _RIGHT)) == [(0, 1), (1, 0)]
    assert matched(boxes(), boxes(_LEFT)) == matched(boxes(_LEFT), boxes()) == []


def test_recall_counts_faces_of_the_reference() -> None:
    truth = [boxes(_LEFT, _RIGHT), boxes(), boxes(_LEFT)]
    found = [boxes(_LEFT), boxes(_RIGHT), boxes(_LEFT)]
    assert recall(found, truth) == Recall(found=2, faces=3)
    assert str(recall(found, truth)) == "recall 66.7% of 3 faces"
    assert recall(found[:1], truth) == Recall(found=1, faces=2)


def test_labels_and_identities_are_compared_with_the_reference() -> None:
    reference = [frame(0, (1, _LEFT, "happy"), (2, _RIGHT, "sad")), frame(1, (1, _LEFT, "happy")), frame(2)]
    run = [frame(0, (1, _LEFT, "happy"), (3, _RIGHT, "sad")), frame(1), frame(2, (4, _RIGHT, "sad"))]
    assert agreement(reference, reference) == Agreement(labels=3, identities=3, faces=3)
    assert agreement(run, reference) == Agreement(labels=2, identities=1, faces=3)


def test_runs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        agreement([frame(0)], [frame(0), frame(1)])
