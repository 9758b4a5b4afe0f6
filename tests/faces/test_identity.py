"""Person ids: numbering, backfills, reassociation, scene cuts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.config.settings import TrackerSettings
from fer_stream.faces.bytetrack import ByteTrack
from fer_stream.faces.identity import Backfill, IdentityTracker, TrackAssignment
from fer_stream.records import U8, Detections, Frame

FPS = 25.0
SETTINGS = TrackerSettings()
GRAY: U8 = np.full((240, 320, 3), 120, np.uint8)


def frame(index: int, fps: float = FPS) -> Frame:
    return Frame("test@1", index, index / fps, 0.0, ArrayPixels(GRAY))


def faces(*boxes: tuple[float, float, float], confidence: float = 0.9) -> Detections:
    """Return square boxes, given as centre x, centre y, side."""
    xyxy = np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in boxes], np.float32).reshape(-1, 4)
    return Detections(xyxy, np.full(len(xyxy), confidence, np.float32))


def make_identity() -> IdentityTracker:
    return IdentityTracker(lambda: ByteTrack(SETTINGS, high_confidence=0.6), SETTINGS)


def person_ids(updates: list[TrackAssignment]) -> list[list[int]]:
    """Return the person id of every detection in every frame, with backfills applied."""
    rows = [update.person_ids.tolist() for update in updates]
    for update in updates:
        for one in update.backfills:
            assert rows[one.frame_index][one.row] == -1
            rows[one.frame_index][one.row] = one.person_id
    return rows


def assign(frames: list[Detections], fps: float = FPS) -> list[list[int]]:
    identity = make_identity()
    return person_ids([identity.update(found, frame(i, fps)) for i, found in enumerate(frames)])


def test_the_first_detection_gets_its_id_one_frame_later() -> None:
    identity = make_identity()
    first = identity.update(faces((100, 100, 50)), frame(0))
    second = identity.update(faces((101, 100, 50)), frame(1))
    assert first.person_ids.tolist() == [-1]
    assert second.person_ids.tolist() == [1]
    assert second.backfills == (Backfill(frame_index=0, row=0, person_id=1),)


def test_ids_do_not_depend_on_the_order_of_the_detections() -> None:
    left, right = (80.0, 100.0, 50.0), (240.0, 100.0, 50.0)
    assert assign([faces(left, right), faces(left, right), faces(right, left)]) == [[1, 2], [1, 2], [2, 1]]


def test_a_detection_in_a_single_frame_gets_no_id() -> None:
    nothing = Detections.none()
    assert assign([nothing, faces((100, 100, 50)), nothing, nothing]) == [[], [-1], [], []]


def test_a_scene_cut_ends_the_tracks_even_in_the_same_place() -> None:
    identity, face = make_identity(), faces((160, 120, 60))
    before = [identity.update(face, frame(index)) for index in range(10)]
    identity.reset()
    after = [identity.update(face, frame(index)) for index in range(10, 20)]
    assert person_ids([*before, *after]) == [[1]] * 10 + [[2]] * 10


def test_a_face_that_was_propagated_far_keeps_its_id() -> None:
    identity = make_identity()
    for index in range(3):
        identity.update(faces((60, 100, 40)), frame(index))
    for index in range(3, 13):
        identity.propagate(faces((60 + 20 * (index - 2), 100, 40)), frame(index))
    assert identity.update(faces((280, 100, 40)), frame(13)).person_ids.tolist() == [1]


def test_a_face_that_reappears_in_the_same_place_gets_its_id_back() -> None:
    face, nothing = faces((160, 120, 60)), Detections.none()
    away = int((SETTINGS.track_timeout_s + 1) * FPS)
    rows = assign([face] * 10 + [nothing] * away + [faces((170, 125, 62))] * 10)
    assert {row[0] for row in rows if row} == {1}


def test_a_face_that_reappears_too_late_gets_a_new_id() -> None:
    face, nothing = faces((160, 120, 60)), Detections.none()
    away = int((SETTINGS.track_timeout_s + SETTINGS.reassociate_s + 1) * FPS)
    rows = assign([face] * 10 + [nothing] * away + [face] * 10)
    assert rows[-1] == [2]


def test_a_face_that_reappears_elsewhere_or_with_another_size_gets_a_new_id() -> None:
    face, nothing = faces((160, 120, 60)), Detections.none()
    away = int((SETTINGS.track_timeout_s + 1) * FPS)
    for other in (faces((60, 120, 60)), faces((160, 120, 100))):
        assert assign([face] * 10 + [nothing] * away + [other] * 10)[-1] == [2]


def test_two_faces_that_fit_one_lost_person_both_get_new_ids() -> None:
    nothing, away = Detections.none(), int((SETTINGS.track_timeout_s + 1) * FPS)
    rows = assign([faces((160, 120, 60))] * 10 + [nothing] * away + [faces((130, 120, 60), (190, 120, 60))] * 10)
    assert rows[-1] == [2, 3]


def test_a_face_that_fits_two_lost_persons_gets_a_new_id() -> None:
    nothing, away = Detections.none(), int((SETTINGS.track_timeout_s + 1) * FPS)
    rows = assign([faces((130, 120, 60), (190, 120, 60))] * 10 + [nothing] * away + [faces((160, 120, 60))] * 10)
    assert rows[-1] == [3]


def test_a_person_in_view_is_not_reassociated() -> None:
    here = (160.0, 120.0, 60.0)
    beside = (195.0, 120.0, 60.0)
    rows = assign([faces(here)] * 10 + [faces(here, beside)] * 10)
    assert rows[-1] == [1, 2]


def test_the_faces_of_a_single_frame_get_ids_at_its_end() -> None:
    identity = make_identity()
    only = identity.update(faces((60, 100, 40), (200, 100, 40), confidence=0.5), frame(0))
    ended = TrackAssignment(np.empty(0, np.int64), identity.reset())
    assert person_ids([only, ended])[0] == [1, 2], "as in a still image, which has no other frame either"


def test_the_last_frame_of_a_scene_does_not_confirm_its_own_faces() -> None:
    identity = make_identity()
    identity.update(Detections.none(), frame(0))
    identity.update(faces((60, 100, 40)), frame(1))
    assert identity.reset() == ()


def test_frames_far_apart_confirm_their_own_faces() -> None:
    identity, seconds = make_identity(), 20
    left, right = faces((60, 100, 40)), faces((260, 100, 40))
    updates = [identity.update(found, frame(i, 1 / seconds)) for i, found in enumerate((left, right, right))]
    assert person_ids([*updates, TrackAssignment(np.empty(0, np.int64), identity.reset())])[:3] == [[1], [2], [3]]


box = st.tuples(st.floats(20, 300), st.floats(20, 220), st.floats(8, 120))
frames = st.lists(st.lists(box, max_size=5), min_size=1, max_size=25)


@given(frames=frames, fps=st.sampled_from([0.5, 1.0, 5.0, 15.0, 30.0]))
def test_ids_are_unique_in_a_frame_and_consecutive(
    frames: list[list[tuple[float, float, float]]], fps: float
) -> None:
    rows = assign([faces(*boxes) for boxes in frames], fps=fps)
    seen: list[int] = []
    for row, boxes in zip(rows, frames, strict=True):
        assert len(row) == len(boxes)
        assigned = [person_id for person_id in row if person_id > 0]
        assert len(assigned) == len(set(assigned)), "one person twice in a frame"
        seen += [person_id for person_id in assigned if person_id not in seen]
    assert sorted(seen) == list(range(1, len(seen) + 1)), "ids are consecutive from 1"
