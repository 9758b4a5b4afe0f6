"""Which frames of a capture become pictures, and what is covered in them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.config import WebSettings
from fer_stream.faces.crop import CropGeometry
from fer_stream.faces.detector import DetectorSpec
from fer_stream.records import F32, U8, Detections, Frame
from fer_stream.service.previews import PreviewPublisher, PreviewBuffer
from tests.support.memory_store import MemoryStore

IMAGE = np.zeros((90, 160, 3), np.uint8)


def frame(index: int, fps: float = 10, epoch: int = 1) -> Frame:
    return Frame(f"door@{epoch}", index, index / fps, 0.0, ArrayPixels(IMAGE))


def box(left: float) -> F32:
    return np.array([[left, 10, left + 20, 30]], np.float32)


class Finds:
    """A detector that finds what it was told."""

    spec = DetectorSpec("fake", CropGeometry(scale=1, y_offset=0))

    def __init__(self) -> None:
        self.boxes = box(0)

    def detect(self, image: U8) -> Detections:
        return Detections(self.boxes, np.ones(len(self.boxes), np.float32))


def show(view: PreviewBuffer, detector: Finds, index: int, boxes: F32, epoch: int = 1) -> None:
    """What a capture does with a frame."""
    heard = view.wrap(detector)
    detector.boxes = boxes
    heard.detect(IMAGE)
    view.push(frame(index, epoch=epoch))


def test_the_newest_frame_is_taken_once_and_only_while_it_is_wanted() -> None:
    view, detector = PreviewBuffer(blur=False, fps=3), Finds()
    show(view, detector, 0, box(0))
    assert (view.width, view.height) == (160, 90)
    assert view.pop() is None
    view.requested = True
    for index in (1, 2, 3):
        show(view, detector, index, box(0))
    taken = view.pop()
    assert taken is not None
    assert (taken[0].index, taken[1]) == (3, [])
    assert view.pop() is None
    show(view, detector, 4, box(0))
    view.requested = False
    show(view, detector, 5, box(0))
    assert view.pop() is None


def test_a_face_is_covered_half_a_second_before_it_is_found_and_after() -> None:
    view, detector = PreviewBuffer(blur=True, fps=10), Finds()
    nobody = np.empty((0, 4), np.float32)
    view.requested = True
    covered = {}
    for index in range(40):
        show(view, detector, index, box(5) if index == 20 else nobody)
        if (taken := view.pop()) is not None:
            covered[taken[0].index] = len(taken[1])
    assert len(covered) > 20
    assert {index: boxes > 0 for index, boxes in covered.items()} == {index: 15 <= index <= 25 for index in covered}


def test_a_blurred_picture_waits_until_it_is_known_what_to_cover() -> None:
    view, detector = PreviewBuffer(blur=True, fps=3), Finds()
    view.requested = True
    for index in range(5):
        show(view, detector, index, box(index))
        assert view.pop() is None
    show(view, detector, 5, box(5))
    taken = view.pop()
    assert taken is not None
    assert taken[0].index == 0
    assert [round(float(each[0])) for each in taken[1]] == [0, 1, 2, 3, 4, 5]


def test_a_new_epoch_forgets_the_old_one() -> None:
    view, detector = PreviewBuffer(blur=True, fps=10), Finds()
    view.requested = True
    for index in range(50, 60):
        show(view, detector, index, box(0))
    for index in range(8):
        show(view, detector, index, box(50), epoch=2)
    taken = view.pop()
    assert taken is not None
    assert taken[0].stream_id == "door@2"
    assert {float(each[0]) for each in taken[1]} == {50.0}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def running(previews: PreviewPublisher) -> Iterator[PreviewPublisher]:
    previews.start()
    yield previews
    previews.close()
    previews.join(5)


def test_pictures_go_to_those_who_look_and_to_nobody_else(store: MemoryStore) -> None:
    previews = PreviewPublisher(store, WebSettings(preview_fps=10))
    view, detector = previews.buffer("door"), Finds()
    for _ in running(previews):
        for index in range(8):
            show(view, detector, index, box(0))
            time.sleep(0.1)
        assert store.preview("door") is None
        store.watch("door")
        deadline_s = time.monotonic() + 10
        while (seen := store.preview("door")) is None:
            assert time.monotonic() < deadline_s
            index += 1
            show(view, detector, index, box(0))
            time.sleep(0.05)
        assert (seen.stream_id, seen.width, seen.height) == ("door@1", 160, 90)


@pytest.mark.parametrize("settings", [WebSettings(previews="off"), WebSettings(port=None)])
def test_where_no_pictures_are_to_be_none_are_made(store: MemoryStore, settings: WebSettings) -> None:
    previews = PreviewPublisher(store, settings)
    previews.start()
    previews.join(5)
    assert not previews.is_alive()
