"""The glue around the box tracker: numbering, back-filling, re-linking, cuts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.pixel_formats import Plain
from fer_stream.config import TrackerSettings
from fer_stream.faces.bytetrack import ByteTrack
from fer_stream.faces.identity import Backfill, IdentityTracker, NoTracking, TrackAssignment
from fer_stream.records import U8, Detections, Frame

FPS = 25.0
SETTINGS = TrackerSettings()
GRAY: U8 = np.full((240, 320, 3), 120, np.uint8)


def frame(index: int, fps: float = FPS) -> Frame:
    return Frame("test@1", index, index / fps, 0.0, Plain(GRAY))


def faces(*boxes: tuple[float, float, float], confidence: float = 0.9) -> Detections:
    """Square faces given as centre x, centre y, side."""
    xyxy = np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in boxes], np.float32).reshape(-1, 4)
    return Detections(xyxy, np.full(len(xyxy), confidence, np.float32))


def identities() -> IdentityTracker:
    return IdentityTracker(lambda: ByteTrack(SETTINGS), SETTINGS)


def persons(updates: list[TrackAssignment]) -> list[list[int]]:
    """The person of every detection of every frame, with what became known later filled in."""
    rows = [update.track_ids.tolist() for update in updates]
    for update in updates:
        for one in update.backfills:
            assert rows[one.frame_index][one.row] == -1
            rows[one.frame_index][one.row] = one.track_id
    return rows


def follow(pictures: list[Detections], fps: float = FPS) -> list[list[int]]:
    people = identities()
    return persons([people.update(found, frame(i, fps)) for i, found in enumerate(pictures)])


def test_the_first_detection_gets_its_number_one_frame_later() -> None:
    people = identities()
    first = people.update(faces((100, 100, 50)), frame(0))
    second = people.update(faces((101, 100, 50)), frame(1))
    assert first.track_ids.tolist() == [-1]
    assert second.track_ids.tolist() == [1]
    assert second.backfills == (Backfill(frame_index=0, row=0, track_id=1),)


def test_two_faces_keep_their_numbers_whatever_the_order_of_the_detections() -> None:
    left, right = (80.0, 100.0, 50.0), (240.0, 100.0, 50.0)
    assert follow([faces(left, right), faces(left, right), faces(right, left)]) == [[1, 2], [1, 2], [2, 1]]


def test_a_detection_of_a_single_frame_is_nobody() -> None:
    nothing = Detections.none()
    assert follow([nothing, faces((100, 100, 50)), nothing, nothing]) == [[], [-1], [], []]


def test_a_cut_ends_the_tracks_though_the_face_is_in_the_same_place() -> None:
    people, face = identities(), faces((160, 120, 60))
    before = [people.update(face, frame(index)) for index in range(10)]
    people.reset()
    after = [people.update(face, frame(index)) for index in range(10, 20)]
    assert persons([*before, *after]) == [[1]] * 10 + [[2]] * 10


def test_a_face_that_was_carried_far_is_the_same_person() -> None:
    people = identities()
    for index in range(3):
        people.update(faces((60, 100, 40)), frame(index))
    for index in range(3, 13):
        people.propagate(faces((60 + 20 * (index - 2), 100, 40)), frame(index))
    assert people.update(faces((280, 100, 40)), frame(13)).track_ids.tolist() == [1]


def test_a_face_that_returns_to_its_place_is_the_same_person() -> None:
    face, nothing = faces((160, 120, 60)), Detections.none()
    away = int((SETTINGS.track_timeout_s + 1) * FPS)
    rows = follow([face] * 10 + [nothing] * away + [faces((170, 125, 62))] * 10)
    assert {row[0] for row in rows if row} == {1}


def test_a_face_that_returns_too_late_is_somebody_new() -> None:
    face, nothing = faces((160, 120, 60)), Detections.none()
    away = int((SETTINGS.track_timeout_s + SETTINGS.reassociate_s + 1) * FPS)
    rows = follow([face] * 10 + [nothing] * away + [face] * 10)
    assert rows[-1] == [2]


def test_a_face_that_returns_elsewhere_or_at_another_size_is_somebody_new() -> None:
    face, nothing = faces((160, 120, 60)), Detections.none()
    away = int((SETTINGS.track_timeout_s + 1) * FPS)
    for other in (faces((60, 120, 60)), faces((160, 120, 100))):
        assert follow([face] * 10 + [nothing] * away + [other] * 10)[-1] == [2]


def test_two_who_could_both_be_the_one_that_left_are_both_new() -> None:
    nothing, away = Detections.none(), int((SETTINGS.track_timeout_s + 1) * FPS)
    rows = follow([faces((160, 120, 60))] * 10 + [nothing] * away + [faces((130, 120, 60), (190, 120, 60))] * 10)
    assert rows[-1] == [2, 3]


def test_one_who_could_be_either_of_two_that_left_is_new() -> None:
    nothing, away = Detections.none(), int((SETTINGS.track_timeout_s + 1) * FPS)
    rows = follow([faces((130, 120, 60), (190, 120, 60))] * 10 + [nothing] * away + [faces((160, 120, 60))] * 10)
    assert rows[-1] == [3]


def test_a_person_in_view_is_never_taken_for_one_who_left() -> None:
    here = (160.0, 120.0, 60.0)
    beside = (195.0, 120.0, 60.0)
    rows = follow([faces(here)] * 10 + [faces(here, beside)] * 10)
    assert rows[-1] == [1, 2]


def test_still_pictures_share_nobody() -> None:
    everybody = NoTracking()
    assert everybody.update(faces((10, 10, 5), (20, 20, 5)), frame(0)).track_ids.tolist() == [1, 2]
    assert everybody.update(faces((10, 10, 5)), frame(1)).track_ids.tolist() == [3]


box = st.tuples(st.floats(20, 300), st.floats(20, 220), st.floats(8, 120))
pictures = st.lists(st.lists(box, max_size=5), min_size=1, max_size=25)


@given(pictures=pictures, fps=st.sampled_from([1.0, 5.0, 15.0, 30.0]))
def test_whatever_is_detected_numbers_are_sound(pictures: list[list[tuple[float, float, float]]], fps: float) -> None:
    rows = follow([faces(*boxes) for boxes in pictures], fps=fps)
    seen: list[int] = []
    for row, boxes in zip(rows, pictures, strict=True):
        assert len(row) == len(boxes)
        known = [track for track in row if track > 0]
        assert len(known) == len(set(known)), "one person, twice in one frame"
        seen += [track for track in known if track not in seen]
    assert sorted(seen) == list(range(1, len(seen) + 1)), "numbers run from 1 without holes"
