"""Frames and segments of one stream, independent of order and grouping of its messages."""

from __future__ import annotations

import random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config.settings import TimelineSettings
from fer_stream.records import (
    LABELS,
    UNKNOWN,
    EndOfStream,
    Face,
    FaceKey,
    FrameHeader,
    LabelledFrame,
    PersonSummary,
    Prediction,
    Quality,
    UnknownReason,
)
from fer_stream.timeline.builder import BuilderState, Message, OnLoss, TimelineBuilder
from fer_stream.timeline.checkpoint import decode_state, encode_state

SETTINGS = TimelineSettings()
FPS = 25.0
STREAM = "test@1"
Shown = tuple[int, str]
"""Person id, and emotion or reason of low quality."""
LOW_QUALITY = {"small": Quality(0.1, "small"), "blurred": Quality(0.2, "blurred")}


def prediction(index: int, face: Shown) -> Prediction:
    person_id, emotion = face
    shown = LABELS.index(emotion) if emotion in LABELS else 0
    probs = np.full(7, 0.02, np.float32)
    probs[shown] = 0.88
    quality = LOW_QUALITY.get(emotion, Quality(0.9, "ok"))
    box = np.array([0, 0, 50, 50], np.float32)
    return Prediction(Face(FaceKey(STREAM, person_id, index), index / FPS, 0.0, box, 0.9, quality), probs, "test")


def messages(film: list[list[Shown]]) -> list[Message]:
    sent: list[Message] = []
    for index, faces in enumerate(film):
        sent += [prediction(index, face) for face in faces]
        sent.append(FrameHeader(STREAM, index, index / FPS, len(faces)))
    return [*sent, EndOfStream(STREAM, len(film) / FPS, len(film), sum(map(len, film)))]


def build(sent: list[Message], chunk: int = 16) -> tuple[list[LabelledFrame], tuple[PersonSummary, ...]]:
    builder = TimelineBuilder(SETTINGS)
    frames: list[LabelledFrame] = []
    for start in range(0, len(sent), chunk):
        frames += builder.add(sent[start : start + chunk])
    return frames, builder.people()


def comparable(frames: list[LabelledFrame]) -> list[tuple[int, list[tuple[int, str, str | None]]]]:
    return [
        (frame.index, [(face.person_id, face.label, face.unknown_reason) for face in frame.faces]) for frame in frames
    ]


def test_frames_without_faces_are_returned_in_order() -> None:
    frames, people = build(messages([[], [(1, "happy")], [], [(1, "happy")], []]))
    assert [(frame.index, len(frame.faces)) for frame in frames] == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]
    assert [person.frames for person in people] == [2]


def test_segments_agree_with_frame_labels() -> None:
    film: list[list[Shown]] = [[(1, "neutral")]] * 50 + [[(1, "happy"), (2, "sad")]] * 50
    frames, (one, two) = build(messages(film))
    assert [segment.label for segment in one.segments] == ["neutral", "happy"]
    assert one.segments[1].start_s == pytest.approx(2.0, abs=0.09)
    assert [segment.label for segment in two.segments] == ["sad"]
    for frame in frames:
        for face in frame.faces:
            person = one if face.person_id == 1 else two
            covering = [s.label for s in person.segments if s.start_s <= frame.time_s < s.end_s]
            assert covering == [face.label]
    assert sum(one.shares.values()) == pytest.approx(1)


def test_face_of_low_quality_is_unknown() -> None:
    frames, (person,) = build(messages([[(1, "small")]] * 40))
    assert person.shares == {UNKNOWN: 1.0}
    assert person.unknown_shares == {"small": 1.0}
    assert [segment.unknown_reason for segment in person.segments] == ["small"]
    assert {face.unknown_reason for frame in frames for face in frame.faces} == {"small"}


def test_provisional_unknown_has_a_reason() -> None:
    builder = TimelineBuilder(SETTINGS)
    provisional = builder.provisional(builder.add(messages([[(1, "small"), (2, "happy")]] * 3)[:-1]))
    assert [(face.label, face.unknown_reason) for face in provisional[-1].faces] == [
        (UNKNOWN, "small"), ("happy", None),
    ]  # fmt: skip


def test_still_image_of_low_quality_is_unknown() -> None:
    _, (person,) = build(messages([[(1, "blurred")]]))
    assert (person.shares, person.unknown_shares) == ({UNKNOWN: 1.0}, {"blurred": 1.0})


def test_short_time_of_low_quality_is_bridged() -> None:
    film: list[list[Shown]] = [[(1, "happy")]] * 40 + [[(1, "small")]] * 5 + [[(1, "happy")]] * 40
    _, (person,) = build(messages(film))
    assert person.shares == {"happy": 1.0}


def test_segments_exclude_absences() -> None:
    film: list[list[Shown]] = [[(1, "happy")]] * 50 + [[]] * 50 + [[(1, "happy")]] * 50
    _, (person,) = build(messages(film))
    assert [s.label for s in person.segments] == ["happy", "happy"]
    assert [s.start_s for s in person.segments] == [0.0, 4.0]
    assert [s.end_s for s in person.segments] == pytest.approx([2.0, 6.0])


def test_labels_are_final_within_the_documented_delay() -> None:
    builder = TimelineBuilder(SETTINGS)
    delay_s = 3 * SETTINGS.smoothing_s + 2 * SETTINGS.min_segment_s + SETTINGS.max_gap_s
    rng = random.Random(0)
    film: list[list[Shown]] = [[(p, rng.choice(LABELS)) for p in (1, 2) if rng.random() < 0.7] for _ in range(500)]
    out = 0
    for index, faces in enumerate(film):
        header = FrameHeader(STREAM, index, index / FPS, len(faces))
        out += len(builder.add([*(prediction(index, face) for face in faces), header]))
        assert (index - out) / FPS <= delay_s + 2 / FPS


def test_frame_waits_for_all_its_faces() -> None:
    builder = TimelineBuilder(SETTINGS)
    sent = messages([[(1, "happy"), (2, "sad")]] * 100)
    late = sent.pop(0)
    assert builder.add(sent[:-1]) == []
    assert len(builder.add([late, sent[-1]])) == 100


face = st.tuples(st.integers(1, 3), st.sampled_from([*LABELS, *LOW_QUALITY]))
films = st.lists(st.lists(face, max_size=3, unique_by=lambda face: face[0]), min_size=1, max_size=120)


@given(film=films, chunk=st.integers(1, 64), rng=st.randoms(use_true_random=False))
def test_order_and_grouping_of_messages_do_not_change_the_result(
    film: list[list[Shown]], chunk: int, rng: random.Random
) -> None:
    sent = messages(film)
    expected, people = build(sent, chunk=len(sent))
    *sent, end = sent
    # Headers keep their order, as one capture sends them; predictions are up to eight frames late.
    due = {id(message): arrival(message, rng) for message in sent}
    other, others = build([*sorted(sent, key=lambda message: due[id(message)]), end], chunk=chunk)
    assert comparable(other) == comparable(expected)
    assert others == people
    assert [frame.index for frame in expected] == list(range(len(film)))


def arrival(message: Message, rng: random.Random) -> float:
    if isinstance(message, Prediction):
        return message.face.key.frame_index + rng.random() * 8
    assert isinstance(message, FrameHeader)
    return message.index


@given(film=films)
def test_exactly_the_unknown_faces_and_segments_have_a_reason(film: list[list[Shown]]) -> None:
    frames, people = build(messages(film))
    found = [(face.label, face.unknown_reason) for frame in frames for face in frame.faces]
    found += [(segment.label, segment.unknown_reason) for person in people for segment in person.segments]
    for person in people:
        assert sum(person.unknown_shares.values()) == pytest.approx(person.shares.get(UNKNOWN, 0))
    for label, reason in found:
        assert reason in (get_args(UnknownReason) if label == UNKNOWN else [None])


@given(film=films, cut=st.integers(0, 400))
def test_restored_state_continues_identically(film: list[list[Shown]], cut: int) -> None:
    sent = messages(film)
    expected, people = build(sent, chunk=1)
    before = TimelineBuilder(SETTINGS)
    frames = [frame for message in sent[:cut] for frame in before.add([message])]
    data = encode_state(before.state)
    after = TimelineBuilder(SETTINGS, state=decode_state(BuilderState, data))
    assert encode_state(after.state) == data
    frames += [frame for message in sent[cut:] for frame in after.add([message])]
    assert comparable(frames) == comparable(expected)
    assert after.people() == people


def test_duplicate_messages_are_ignored() -> None:
    sent = messages([[(1, "happy")]] * 60)
    twice = [message for message in sent[:-1] for _ in range(2)]
    assert comparable(build([*twice, sent[-1]])[0]) == comparable(build(sent)[0])


def test_missing_faces_are_reported_and_do_not_block_frames() -> None:
    missing: list[int] = []
    builder = TimelineBuilder(SETTINGS, on_loss=OnLoss(missing=missing.append))
    sent = messages([[(1, "happy")]] * 100)
    del sent[20]  # the prediction of frame 10
    assert builder.add(sent[:-1]) == []
    frames = builder.finalize_before(2.0)
    assert missing == [1]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[10].faces == ()
    assert len(frames) + len(builder.close()) == 100


def test_face_after_the_end_of_the_wait_is_late() -> None:
    missing, late = list[int](), list[int]()
    builder = TimelineBuilder(SETTINGS, on_loss=OnLoss(missing.append, late.append))
    sent = messages([[(1, "happy")]] * 3)
    builder.add(sent[1:-1])
    builder.finalize_before(1.0)
    builder.add(sent[:1])
    assert (missing, late) == ([1], [1])


def test_every_frame_is_returned_provisionally_at_once() -> None:
    builder = TimelineBuilder(SETTINGS)
    seen: list[LabelledFrame] = []
    for message in messages([[(1, "neutral")]] * 50 + [[(1, "happy")]] * 50 + [[]] * 50)[:-1]:
        seen += builder.provisional(builder.add([message]))
    assert [frame.index for frame in seen] == list(range(150))
    assert [seen[index].faces[0].label for index in (0, 40, 49, 99)] == ["neutral", "neutral", "neutral", "happy"]


def test_segments_are_drained_once_and_absent_people_removed() -> None:
    builder = TimelineBuilder(SETTINGS)
    film: list[list[Shown]] = [[(1, "happy")]] * 50 + [[]] * 50 + [[(2, "sad")]] * 50
    taken = []
    for message in messages(film):
        builder.add([message])
        taken += builder.drain_segments()
    assert [(one.person_id, one.label) for one in taken] == [(1, "happy"), (2, "sad")]
    assert builder.people() == ()
