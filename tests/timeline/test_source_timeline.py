"""Timelines of one source across sessions, gaps and losses."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config.live import LiveSettings, LiveTimelineSettings
from fer_stream.records import (
    LABELS,
    EndOfStream,
    Face,
    FaceCrop,
    FaceKey,
    FrameHeader,
    Gap,
    LabelledFrame,
    Prediction,
    Quality,
    Segment,
)
from fer_stream.service.process import timeline_settings
from fer_stream.timeline.builder import OnLoss
from fer_stream.timeline.source_timeline import Message, SourceTimeline, stream_id_of_state

FPS = 10.0
LATENESS_S = 2.0
BOX = np.array([0, 0, 50, 50], np.float32)
GOOD = Quality(0.9, "ok")


def stream(session: int) -> str:
    return f"door@{session}"


def face(index: int, session: int = 1, person: int = 1) -> Face:
    return Face(FaceKey(stream(session), person, index), index / FPS, 0.0, BOX, 0.9, GOOD)


def prediction(index: int, emotion: str, session: int = 1, person: int = 1) -> Prediction:
    probs = np.full(7, 0.02, np.float32)
    probs[LABELS.index(emotion)] = 0.88
    return Prediction(face(index, session, person), probs, "test")


def header(index: int, faces: int = 1, session: int = 1) -> FrameHeader:
    return FrameHeader(stream(session), index, index / FPS, faces)


def crop(index: int, session: int = 1) -> FaceCrop:
    return FaceCrop(face(index, session), np.zeros((48, 48), np.uint8))


def film(emotion: str, frames: int, session: int = 1) -> list[Message]:
    return [
        message for i in range(frames) for message in (prediction(i, emotion, session), header(i, session=session))
    ]


def make() -> SourceTimeline:
    return SourceTimeline(lambda: LiveTimelineSettings(allowed_lateness_s=LATENESS_S))


class Losses:
    """Numbers of the lost faces of a timeline."""

    def __init__(self) -> None:
        self.missing = self.late = 0
        self.callbacks = OnLoss(self._add_missing, self._add_late)

    def _add_missing(self, count: int) -> None:
        self.missing += count

    def _add_late(self, count: int) -> None:
        self.late += count


def make_counted() -> tuple[SourceTimeline, Losses]:
    losses = Losses()
    settings = LiveTimelineSettings(allowed_lateness_s=LATENESS_S)
    return SourceTimeline(lambda: settings, on_loss=losses.callbacks), losses


def labels(segments: list[Segment]) -> list[tuple[str, int, str]]:
    return [(one.stream_id, one.person_id, one.label) for one in segments]


def test_new_session_ends_the_previous_one() -> None:
    timeline = make()
    timeline.add([*film("happy", 30, session=1), *film("sad", 5, session=2)])
    update = timeline.drain()
    assert labels(update.segments) == [(stream(1), 1, "happy")]
    assert len(update.frames) == 30


@pytest.mark.parametrize("fps", [0.5, 1, 2])
def test_low_frame_rate_does_not_split_segments(fps: float) -> None:
    settings = LiveSettings.model_validate({"sources": {"door": {"url": "rtsp://camera/1", "fps": fps}}})
    timeline = SourceTimeline(lambda: timeline_settings(settings, "door"))
    for index in range(30):
        time_s = round(index / fps * 15) / 15
        shown = prediction(index, "happy")
        timeline.add([replace(shown, face=replace(shown.face, time_s=time_s)), replace(header(index), time_s=time_s)])
    timeline.add([EndOfStream(stream(1), 30 / fps, 30, 30)])
    timeline.advance(timeline.watermark(None))
    assert labels(timeline.drain().segments) == [(stream(1), 1, "happy")]


def test_faces_of_a_previous_session_are_late() -> None:
    timeline, losses = make_counted()
    timeline.add([*film("sad", 5, session=2), prediction(3, "happy", session=1), header(3, session=1)])
    assert losses.late == 1
    assert {frame.stream_id for frame in timeline.drain().provisional} == {stream(2)}


def test_end_of_stream_waits_for_pending_crops() -> None:
    timeline, losses = make_counted()
    timeline.add([*film("happy", 30), header(30), EndOfStream(stream(1), 3.0, 31, 31)])
    timeline.advance(timeline.watermark(crop(30)))
    assert timeline.drain().segments == []
    timeline.add([prediction(30, "happy")])
    timeline.advance(timeline.watermark(None))
    update = timeline.drain()
    assert labels(update.segments) == [(stream(1), 1, "happy")]
    assert losses.missing == 0


def test_frame_waits_only_while_its_crop_is_pending() -> None:
    timeline, losses = make_counted()
    messages = film("happy", 15)
    del messages[20]  # the prediction of frame 10, whose crop was dropped
    timeline.add(messages)
    timeline.advance(timeline.watermark(crop(9)))
    assert len(timeline.drain().provisional) == 10
    timeline.advance(timeline.watermark(crop(13)))
    assert [frame.index for frame in timeline.drain().provisional] == [10, 11, 12, 13, 14]
    assert losses.missing == 1


def test_frame_waits_at_most_for_the_allowed_lateness() -> None:
    timeline, losses = make_counted()
    timeline.add([header(0), *(header(index, faces=0) for index in range(1, 40))])
    timeline.advance(timeline.watermark(crop(0)))
    assert losses.missing == 1
    timeline.add([prediction(0, "happy")])
    assert losses.late == 1


def test_faces_announced_after_the_watermark_are_awaited() -> None:
    timeline, losses = make_counted()
    timeline.add(film("happy", 5))
    watermark = timeline.watermark(None)
    timeline.add([header(5), EndOfStream(stream(1), 0.5, 6, 6)])
    timeline.advance(watermark)
    timeline.add([prediction(5, "happy")])
    timeline.advance(timeline.watermark(None))
    assert (losses.missing, losses.late) == (0, 0)


def test_pending_crops_of_the_previous_session_delay_the_current_one() -> None:
    timeline, losses = make_counted()
    timeline.add([*film("happy", 5, session=1), header(0, session=2)])
    timeline.advance(timeline.watermark(crop(4, session=1)))
    assert losses.missing == 0
    timeline.advance(timeline.watermark(None))
    assert losses.missing == 1


def test_gap_is_returned() -> None:
    timeline = make()
    gap = Gap(stream(1), 1.0, 4.0, "stalled")
    timeline.add([*film("happy", 10), gap])
    assert timeline.drain().gaps == [gap]


def test_duplicate_gap_is_ignored() -> None:
    timeline = make()
    gaps = [Gap(stream(1), 1.0, 4.0, "stalled"), Gap(stream(1), 5.0, 6.0, "ended")]
    timeline.add([*film("happy", 10), gaps[0], gaps[0]])
    found = timeline.drain().gaps
    again = make()
    again.restore(timeline.state())
    again.add([gaps[0], gaps[1]])
    assert [*found, *again.drain().gaps] == gaps


@pytest.mark.parametrize(("stream_start_ms", "end_s"), [(5001, 5.0), (2, 0.9)])
def test_interrupted_session_ends_in_a_gap(stream_start_ms: int, end_s: float) -> None:
    timeline = make()
    timeline.add([*film("happy", 10), *film("sad", 1, session=stream_start_ms)])
    assert timeline.drain().gaps == [Gap(stream(1), 0.9, end_s, "restart")]


@pytest.mark.parametrize("closed", [True, False])
def test_ended_session_leaves_no_gap(closed: bool) -> None:
    timeline = make()
    timeline.add([*film("happy", 10), EndOfStream(stream(1), 0.9, 10, 10)])
    if closed:
        timeline.advance(timeline.watermark(None))
    timeline.add(film("sad", 1, session=5001))
    assert timeline.drain().gaps == []
    assert stream_id_of_state(timeline.state()) == stream(5001)


Out = tuple[list[tuple[int, list[tuple[int, str]]]], list[Segment]]


def play(messages: list[Message], chunks: int, restart_at: set[int]) -> Out:
    """Process `messages` in chunks, with a restart from the saved state after some of them."""
    timeline, frames, segments = make(), list[LabelledFrame](), list[Segment]()
    for number, start in enumerate(range(0, len(messages), chunks)):
        timeline.add(messages[start : start + chunks])
        update = timeline.drain()
        frames, segments = frames + update.frames, segments + update.segments
        if number in restart_at:
            state = timeline.state()
            timeline = make()
            timeline.restore(state)
    timeline.advance(timeline.watermark(None))
    update = timeline.drain()
    faces = [(f.index, [(face.person_id, face.label) for face in f.faces]) for f in [*frames, *update.frames]]
    return faces, [*segments, *update.segments]


@given(
    emotions=st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 12)), min_size=1, max_size=8),
    chunks=st.integers(1, 30),
    restarts=st.sets(st.integers(0, 20), max_size=4),
    rng=st.randoms(use_true_random=False),
)
def test_order_duplicates_and_restarts_do_not_change_the_results(
    emotions: list[tuple[str, int]], chunks: int, restarts: set[int], rng: random.Random
) -> None:
    shown = [emotion for emotion, frames in emotions for _ in range(frames)]
    headers = [header(index) for index in range(len(shown))]
    predictions = [prediction(index, emotion) for index, emotion in enumerate(shown)]
    end = EndOfStream(stream(1), len(shown) / FPS, len(shown), len(shown))
    expected = play([*predictions, *headers, end], 10_000, set())
    # Predictions are up to allowed_lateness_s late, and some are duplicated.
    late = [
        (p.face.time_s + rng.random() * LATENESS_S * 0.9, p)
        for p in predictions
        for _ in range(rng.choice((1, 1, 2)))
    ]
    on_time: list[tuple[float, Message]] = [(m.time_s, m) for m in headers]
    shuffled = [message for _, message in sorted([*late, *on_time], key=lambda pair: pair[0])]
    assert play([*shuffled, end], chunks, restarts) == expected


def test_state_of_another_version_is_rejected() -> None:
    timeline = make()
    timeline.add(film("happy", 3))
    state = timeline.state().replace(b'"version":2', b'"version":99')
    with pytest.raises(ValueError, match="version"):
        make().restore(state)
