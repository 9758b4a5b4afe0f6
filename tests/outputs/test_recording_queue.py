"""Pictures wait for the encoder in bounded memory; the newest stay."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest

from fer_stream.outputs.recording import RecordingItem, RecordingQueue
from fer_stream.records import LabelledFrame


def shot(index: int, time_s: float | None = None, *, stream_id: str = "door@1", side: int = 10) -> RecordingItem:
    image = np.zeros((side, side, 3), np.uint8)
    labelled = LabelledFrame(stream_id, index, index / 10 if time_s is None else time_s, ())
    return RecordingItem(labelled, (side, side), image)


def runs(queue: RecordingQueue, max_gap_s: float = 2.0) -> list[list[int]]:
    """The indices of the shots of every run of a closed queue."""
    found = []
    while queue.wait():
        found.append([shot.labelled.index for shot in queue.run(max_gap_s)])
    return found


def test_a_run_ends_at_a_gap_another_epoch_or_size_and_where_time_goes_back() -> None:
    queue = RecordingQueue(10**6)
    for item in [
        shot(0), shot(1), shot(2, 2.1), shot(3, 4.2),
        shot(4, 4.3, side=12), shot(5, 4.4, side=12),
        shot(6, 4.5, stream_id="door@2", side=12), shot(7, 4.4, stream_id="door@2", side=12),
    ]:  # fmt: skip
        queue.put(item)
    queue.close()
    assert runs(queue) == [[0, 1, 2], [3], [4, 5], [6], [7]]
    assert not queue.wait()


def test_the_oldest_pictures_are_dropped_but_not_their_frames() -> None:
    queue = RecordingQueue(3 * 300)
    for index in range(10):
        queue.put(shot(index))
    queue.close()
    taken = list(queue.run(2.0))
    assert [shot.labelled.index for shot in taken] == list(range(10))
    assert [shot.labelled.index for shot in taken if shot.image is not None] == [7, 8, 9]
    assert queue.dropped == 7


def test_a_picture_larger_than_the_limit_still_passes() -> None:
    queue = RecordingQueue(100)
    queue.put(shot(0))
    queue.put(shot(1))
    queue.close()
    assert [shot.image is None for shot in queue.run(2.0)] == [True, False]


@pytest.mark.parametrize("taken", [0, 3, 6])
def test_taking_makes_room(taken: int) -> None:
    queue = RecordingQueue(3 * 300)
    for index in range(6):
        queue.put(shot(index))
    for _ in range(taken):
        queue.skip()
    room = max(0, taken - 3)
    dropped = queue.dropped
    for index in range(6, 6 + room):
        queue.put(shot(index))
    assert queue.dropped == dropped
    queue.put(shot(6 + room))
    assert queue.dropped == dropped + 1


def test_skipped_pictures_are_counted() -> None:
    queue = RecordingQueue(10**6)
    queue.put(shot(0))
    queue.put(shot(1))
    queue.skip()
    queue.close()
    assert queue.dropped == 1
    assert runs(queue) == [[1]]


def test_a_run_ends_where_nothing_comes_for_the_length_of_a_gap() -> None:
    queue = RecordingQueue(10**6)
    queue.put(shot(0))
    assert [shot.labelled.index for shot in queue.run(0.01)] == [0]


def test_a_stuck_encoder_costs_no_memory() -> None:
    queue = RecordingQueue(300)
    for index in range(5000):
        queue.put(shot(index))
    queue.close()
    (kept,) = runs(queue)
    assert (len(kept), kept[-1]) == (4096, 4999)
    assert queue.dropped == 4999


def test_waiting_ends_with_a_shot_and_with_closing() -> None:
    queue, answers = RecordingQueue(10**6), list[bool]()

    def consume() -> None:
        while True:
            answers.append(queue.wait())
            if not answers[-1]:
                return
            queue.skip()

    thread = Thread(target=consume)
    thread.start()
    queue.put(shot(0))
    queue.close()
    thread.join(10)
    assert answers == [True, False]
