"""Selection of frames for previews and the boxes covered in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.config.servers import WebSettings
from fer_stream.faces.crop import CropGeometry
from fer_stream.faces.detector import DetectorSpec, InputSpec
from fer_stream.records import F32, U8, Detections, Frame
from fer_stream.service.camera_video import PreviewBuffer, PreviewPublisher
from tests.support.memory_store import MemoryStore
from tests.support.waiting import wait_until

IMAGE = np.zeros((90, 160, 3), np.uint8)


def frame(index: int, fps: float = 10, session: int = 1) -> Frame:
    return Frame(f"door@{session}", index, index / fps, 0.0, ArrayPixels(IMAGE))


def box(left: float) -> F32:
    return np.array([[left, 10, left + 20, 30]], np.float32)


class FakeDetector:
    """A detector that returns configured boxes."""

    spec = DetectorSpec("fake", CropGeometry(scale=1, y_offset=0), InputSpec(320, 1280, 1280, 16_384, 16.0))

    def __init__(self) -> None:
        self.boxes = box(0)

    def detect(self, image: U8) -> Detections:
        return Detections(self.boxes, np.ones(len(self.boxes), np.float32))


def push_frame(buffer: PreviewBuffer, detector: FakeDetector, index: int, boxes: F32, session: int = 1) -> None:
    """Process a frame like a capture thread."""
    tapped = buffer.wrap(detector)
    detector.boxes = boxes
    tapped.detect(IMAGE)
    buffer.push(frame(index, session=session))


def test_newest_frame_is_returned_once_and_only_on_request() -> None:
    buffer, detector = PreviewBuffer(blur=False, fps=3), FakeDetector()
    push_frame(buffer, detector, 0, box(0))
    assert (buffer.width, buffer.height) == (160, 90)
    assert buffer.pop() is None
    buffer.requested = True
    for index in (1, 2, 3):
        push_frame(buffer, detector, index, box(0))
    taken = buffer.pop()
    assert taken is not None
    assert (taken[0].index, taken[1]) == (3, [])
    assert buffer.pop() is None
    push_frame(buffer, detector, 4, box(0))
    buffer.requested = False
    push_frame(buffer, detector, 5, box(0))
    assert buffer.pop() is None


def test_face_is_covered_half_a_second_before_and_after_its_detection() -> None:
    buffer, detector = PreviewBuffer(blur=True, fps=10), FakeDetector()
    nobody = np.empty((0, 4), np.float32)
    buffer.requested = True
    covered = {}
    for index in range(40):
        push_frame(buffer, detector, index, box(5) if index == 20 else nobody)
        if (taken := buffer.pop()) is not None:
            covered[taken[0].index] = len(taken[1])
    assert len(covered) > 20
    assert {index: boxes > 0 for index, boxes in covered.items()} == {index: 15 <= index <= 25 for index in covered}


def test_blurred_frame_is_delayed_until_later_detections_are_available() -> None:
    buffer, detector = PreviewBuffer(blur=True, fps=3), FakeDetector()
    buffer.requested = True
    for index in range(5):
        push_frame(buffer, detector, index, box(index))
        assert buffer.pop() is None
    push_frame(buffer, detector, 5, box(5))
    taken = buffer.pop()
    assert taken is not None
    assert taken[0].index == 0
    assert [round(float(each[0])) for each in taken[1]] == [0, 1, 2, 3, 4, 5]


def test_new_session_discards_frames_of_the_previous_one() -> None:
    buffer, detector = PreviewBuffer(blur=True, fps=10), FakeDetector()
    buffer.requested = True
    for index in range(50, 60):
        push_frame(buffer, detector, index, box(0))
    for index in range(8):
        push_frame(buffer, detector, index, box(50), session=2)
    taken = buffer.pop()
    assert taken is not None
    assert taken[0].stream_id == "door@2"
    assert {float(each[0]) for each in taken[1]} == {50.0}


class CountingStore(MemoryStore):
    """Counts how often the publisher asks for requests."""

    polls = 0

    def preview_requests(self, sources: Sequence[str]) -> set[str]:
        self.polls += 1
        return super().preview_requests(sources)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def test_previews_are_published_only_on_request(store: CountingStore) -> None:
    previews = PreviewPublisher(store, WebSettings(preview_fps=10))
    buffer, detector = previews.buffer("door"), FakeDetector()
    previews.start()
    try:
        push_frame(buffer, detector, 0, box(0))
        polls = store.polls
        wait_until(lambda: store.polls > polls + 1)
        assert store.preview("door") is None
        store.request_previews("door")
        indexes = count(1)

        def is_published() -> bool:
            push_frame(buffer, detector, next(indexes), box(0))
            return store.preview("door") is not None

        wait_until(is_published)
    finally:
        previews.close()
        previews.join()
    published = store.preview("door")
    assert published is not None
    assert (published.stream_id, published.width, published.height) == ("door@1", 160, 90)


@pytest.mark.parametrize("settings", [WebSettings(previews="off"), WebSettings(port=None)])
def test_disabled_previews_start_no_work(store: CountingStore, settings: WebSettings) -> None:
    previews = PreviewPublisher(store, settings)
    previews.start()
    previews.join(5)
    assert not previews.is_alive()
