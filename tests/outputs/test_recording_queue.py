"""The recording queue has bounded memory and drops the oldest pixels."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest

from fer_stream.outputs.recording import RecordingItem, RecordingQueue
from fer_stream.records import LabelledFrame


def make_item(index: int, time_s: float | None = None, *, stream_id: str = "door@1", side: int = 10) -> RecordingItem:
    image = np.zeros((side, side, 3), np.uint8)
    labelled = LabelledFrame(stream_id, index, index / 10 if time_s is None else time_s, ())
    return RecordingItem(labelled, (side, side), image)


def runs(queue: RecordingQueue, max_gap_s: float = 2.0) -> list[list[int]]:
    """Return the frame indexes of every run of a closed queue."""
    result = []
    while queue.wait():
        result.append([item.labelled.index for item in queue.run(max_gap_s)])
    return result


def test_run_ends_at_a_gap_a_new_session_a_new_size_and_a_decrease_of_time() -> None:
    queue = RecordingQueue(10**6)
    for item in [
        make_item(0), make_item(1), make_item(2, 2.1), make_item(3, 4.2),
        make_item(4, 4.3, side=12), make_item(5, 4.4, side=12),
        make_item(6, 4.5, stream_id="door@2", side=12), make_item(7, 4.4, stream_id="door@2", side=12),
    ]:  # fmt: skip
        queue.put(item)
    queue.close()
    assert runs(queue) == [[0, 1, 2], [3], [4, 5], [6], [7]]
    assert not queue.wait()


def test_oldest_pixels_are_dropped_but_their_items_stay() -> None:
    queue = RecordingQueue(3 * 300)
    for index in range(10):
        queue.put(make_item(index))
    queue.close()
    taken = list(queue.run(2.0))
    assert [item.labelled.index for item in taken] == list(range(10))
    assert [item.labelled.index for item in taken if item.image is not None] == [7, 8, 9]
    assert queue.dropped == 7


def test_newest_image_is_kept_even_if_it_exceeds_the_limit() -> None:
    queue = RecordingQueue(100)
    queue.put(make_item(0))
    queue.put(make_item(1))
    queue.close()
    assert [item.image is None for item in queue.run(2.0)] == [True, False]


@pytest.mark.parametrize("taken", [0, 3, 6])
def test_taken_items_free_memory(taken: int) -> None:
    queue = RecordingQueue(3 * 300)
    for index in range(6):
        queue.put(make_item(index))
    for _ in range(taken):
        queue.skip()
    free = max(0, taken - 3)
    dropped = queue.dropped
    for index in range(6, 6 + free):
        queue.put(make_item(index))
    assert queue.dropped == dropped
    queue.put(make_item(6 + free))
    assert queue.dropped == dropped + 1


def test_skipped_frames_are_counted() -> None:
    queue = RecordingQueue(10**6)
    queue.put(make_item(0))
    queue.put(make_item(1))
    queue.skip()
    queue.close()
    assert queue.dropped == 1
    assert runs(queue) == [[1]]


def test_run_ends_if_no_item_arrives_within_the_maximum_gap() -> None:
    queue = RecordingQueue(10**6)
    queue.put(make_item(0))
    assert [item.labelled.index for item in queue.run(0.01)] == [0]


def test_queue_without_consumer_keeps_at_most_4096_items() -> None:
    queue = RecordingQueue(300)
    for index in range(5000):
        queue.put(make_item(index))
    queue.close()
    (indexes,) = runs(queue)
    assert (len(indexes), indexes[-1]) == (4096, 4999)
    assert queue.dropped == 4999


def test_wait_ends_with_an_item_and_with_closing() -> None:
    queue, answers = RecordingQueue(10**6), list[bool]()

    def consume() -> None:
        while True:
            answers.append(queue.wait())
            if not answers[-1]:
                return
            queue.skip()

    thread = Thread(target=consume)
    thread.start()
    queue.put(make_item(0))
    queue.close()
    thread.join(10)
    assert answers == [True, False]
