"""One source over its epochs, its outages and its losses."""

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
from fer_stream.service.connections import timeline_settings
from fer_stream.timeline.source_timeline import Message, SourceTimeline, stream_id_of_state

FPS = 10.0
LATENESS_S = 2.0
BOX = np.array([0, 0, 50, 50], np.float32)
GOOD = Quality(0.9, "ok")


def stream(epoch: int) -> str:
    return f"door@{epoch}"


def face(index: int, epoch: int = 1, person: int = 1) -> Face:
    return Face(FaceKey(stream(epoch), person, index), index / FPS, 0.0, BOX, 0.9, GOOD)


def prediction(index: int, emotion: str, epoch: int = 1, person: int = 1) -> Prediction:
    probs = np.full(7, 0.02, np.float32)
    probs[LABELS.index(emotion)] = 0.88
    return Prediction(face(index, epoch, person), probs, "test")


def mark(index: int, faces: int = 1, epoch: int = 1) -> FrameHeader:
    return FrameHeader(stream(epoch), index, index / FPS, faces)


def crop(index: int, epoch: int = 1) -> FaceCrop:
    return FaceCrop(face(index, epoch), np.zeros((48, 48), np.uint8))


def film(emotion: str, frames: int, epoch: int = 1) -> list[Message]:
    return [message for i in range(frames) for message in (prediction(i, emotion, epoch), mark(i, epoch=epoch))]


def make() -> SourceTimeline:
    return SourceTimeline(lambda: LiveTimelineSettings(allowed_lateness_s=LATENESS_S))


def labels(segments: list[Segment]) -> list[tuple[str, int, str]]:
    return [(one.stream_id, one.person_id, one.label) for one in segments]


def test_a_new_epoch_closes_the_old_one() -> None:
    timeline = make()
    timeline.add([*film("happy", 30, epoch=1), *film("sad", 5, epoch=2)])
    news = timeline.drain()
    assert labels(news.segments) == [(stream(1), 1, "happy")]
    assert len(news.frames) == 30


@pytest.mark.parametrize("fps", [0.5, 1, 2])
def test_a_source_that_is_looked_at_seldom_is_not_full_of_gaps(fps: float) -> None:
    settings = LiveSettings.model_validate({"sources": {"door": {"url": "rtsp://camera/1", "fps": fps}}})
    timeline = SourceTimeline(lambda: timeline_settings(settings, "door"))
    for index in range(30):
        time_s = round(index / fps * 15) / 15
        shown = prediction(index, "happy")
        timeline.add([replace(shown, face=replace(shown.face, time_s=time_s)), replace(mark(index), time_s=time_s)])
    timeline.add([EndOfStream(stream(1), 30 / fps, 30, 30)])
    timeline.advance(timeline.watermark(None))
    assert labels(timeline.drain().segments) == [(stream(1), 1, "happy")]


def test_what_belongs_to_an_old_epoch_is_late() -> None:
    timeline = make()
    timeline.add([*film("sad", 5, epoch=2), prediction(3, "happy", epoch=1), mark(3, epoch=1)])
    assert timeline.late == 1
    assert {frame.stream_id for frame in timeline.drain().provisional} == {stream(2)}


def test_the_end_of_the_stream_waits_for_open_crops() -> None:
    timeline = make()
    timeline.add([*film("happy", 30), mark(30), EndOfStream(stream(1), 3.0, 31, 31)])
    timeline.advance(timeline.watermark(crop(30)))
    assert timeline.drain().segments == []
    timeline.add([prediction(30, "happy")])
    timeline.advance(timeline.watermark(None))
    news = timeline.drain()
    assert labels(news.segments) == [(stream(1), 1, "happy")]
    assert timeline.missing == 0


def test_a_frame_waits_only_while_its_crop_is_open() -> None:
    timeline = make()
    told = film("happy", 15)
    del told[20]  # the prediction of frame 10: its crop was dropped
    timeline.add(told)
    timeline.advance(timeline.watermark(crop(9)))
    assert len(timeline.drain().provisional) == 10
    timeline.advance(timeline.watermark(crop(13)))
    assert [frame.index for frame in timeline.drain().provisional] == [10, 11, 12, 13, 14]
    assert timeline.missing == 1


def test_no_frame_waits_longer_than_the_lateness() -> None:
    timeline = make()
    timeline.add([mark(0), *(mark(index, faces=0) for index in range(1, 40))])
    timeline.advance(timeline.watermark(crop(0)))
    assert timeline.missing == 1
    timeline.add([prediction(0, "happy")])
    assert timeline.late == 1


def test_what_was_announced_after_the_horizon_was_asked_for_is_waited_for() -> None:
    timeline = make()
    timeline.add(film("happy", 5))
    horizon = timeline.watermark(None)
    timeline.add([mark(5), EndOfStream(stream(1), 0.5, 6, 6)])
    timeline.advance(horizon)
    timeline.add([prediction(5, "happy")])
    timeline.advance(timeline.watermark(None))
    assert (timeline.missing, timeline.late) == (0, 0)


def test_crops_of_the_epoch_before_hold_the_present_one_up() -> None:
    timeline = make()
    timeline.add([*film("happy", 5, epoch=1), mark(0, epoch=2)])
    timeline.advance(timeline.watermark(crop(4, epoch=1)))
    assert timeline.missing == 0
    timeline.advance(timeline.watermark(None))
    assert timeline.missing == 1


def test_an_outage_is_told() -> None:
    timeline = make()
    outage = Gap(stream(1), 1.0, 4.0, "stalled")
    timeline.add([*film("happy", 10), outage])
    assert timeline.drain().gaps == [outage]


def test_an_outage_that_is_told_twice_is_one() -> None:
    timeline = make()
    outages = [Gap(stream(1), 1.0, 4.0, "stalled"), Gap(stream(1), 5.0, 6.0, "ended")]
    timeline.add([*film("happy", 10), outages[0], outages[0]])
    found = timeline.drain().gaps
    again = make()
    again.restore(timeline.state())
    again.add([outages[0], outages[1]])
    assert [*found, *again.drain().gaps] == outages


@pytest.mark.parametrize(("stream_start_ms", "end_s"), [(5001, 5.0), (2, 0.9)])
def test_an_epoch_that_was_cut_off_ends_in_a_gap(stream_start_ms: int, end_s: float) -> None:
    timeline = make()
    timeline.add([*film("happy", 10), *film("sad", 1, epoch=stream_start_ms)])
    assert timeline.drain().gaps == [Gap(stream(1), 0.9, end_s, "restart")]


@pytest.mark.parametrize("closed", [True, False])
def test_an_epoch_that_ended_leaves_no_gap(closed: bool) -> None:
    timeline = make()
    timeline.add([*film("happy", 10), EndOfStream(stream(1), 0.9, 10, 10)])
    if closed:
        timeline.advance(timeline.watermark(None))
    timeline.add(film("sad", 1, epoch=5001))
    assert timeline.drain().gaps == []
    assert stream_id_of_state(timeline.state()) == stream(5001)


Out = tuple[list[tuple[int, list[tuple[int, str]]]], list[Segment]]


def play(told: list[Message], chunks: int, restart_at: set[int]) -> Out:
    """Feed `told`, with a restart from the saved state after some of the chunks."""
    timeline, frames, segments = make(), list[LabelledFrame](), list[Segment]()
    for number, start in enumerate(range(0, len(told), chunks)):
        timeline.add(told[start : start + chunks])
        news = timeline.drain()
        frames, segments = frames + news.frames, segments + news.segments
        if number in restart_at:
            state = timeline.state()
            timeline = make()
            timeline.restore(state)
    timeline.advance(timeline.watermark(None))
    news = timeline.drain()
    faces = [(f.index, [(face.person_id, face.label) for face in f.faces]) for f in [*frames, *news.frames]]
    return faces, [*segments, *news.segments]


@given(
    moods=st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 12)), min_size=1, max_size=8),
    chunks=st.integers(1, 30),
    restarts=st.sets(st.integers(0, 20), max_size=4),
    rng=st.randoms(use_true_random=False),
)
def test_late_repeated_and_shuffled_results_and_restarts_change_nothing(
    moods: list[tuple[str, int]], chunks: int, restarts: set[int], rng: random.Random
) -> None:
    shown = [emotion for emotion, frames in moods for _ in range(frames)]
    marks = [mark(index) for index in range(len(shown))]
    predictions = [prediction(index, emotion) for index, emotion in enumerate(shown)]
    end = EndOfStream(stream(1), len(shown) / FPS, len(shown), len(shown))
    straight = play([*predictions, *marks, end], 10_000, set())
    # Every result comes up to allowed_lateness_s late, and some come twice.
    late = [
        (p.face.time_s + rng.random() * LATENESS_S * 0.9, p)
        for p in predictions
        for _ in range(rng.choice((1, 1, 2)))
    ]
    on_time: list[tuple[float, Message]] = [(m.time_s, m) for m in marks]
    shuffled = [message for _, message in sorted([*late, *on_time], key=lambda pair: pair[0])]
    assert play([*shuffled, end], chunks, restarts) == straight


def test_a_state_of_another_version_is_refused() -> None:
    timeline = make()
    timeline.add(film("happy", 3))
    state = timeline.state().replace(b'\\"version\\":1', b'\\"version\\":99')
    with pytest.raises(ValueError, match="version"):
        make().restore(state)
