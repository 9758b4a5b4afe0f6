from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer_stream.errors import CodecError
from fer_stream.records import (
    LABELS,
    UNKNOWN,
    Gap,
    LabelledFace,
    LabelledFrame,
    Quality,
    QualityReason,
    Segment,
    UnknownReason,
    stream_id_of,
)
from fer_stream.store.preview_channel import preview_from_bytes
from fer_stream.store.schemas import (
    frame_document,
    frame_of,
    gap_of,
    parse_frame,
    parse_gap,
    parse_segment,
    segment_of,
    stored_gap,
    stored_segment,
    to_json,
)

T = TypeVar("T")

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
stream_ids = st.builds(stream_id_of, names, st.integers(1, 2_000_000_000_000))
fractions = st.floats(0, 1, width=32)
seconds = st.floats(0, 1e7)
labels = st.sampled_from([*LABELS, UNKNOWN])
unknown_reasons = st.none() | st.sampled_from(get_args(UnknownReason))
seven = hnp.arrays(np.float32, 7, elements=fractions)
boxes = hnp.arrays(np.float32, 4, elements=st.floats(-1e4, 1e4, width=32))
faces = st.builds(
    LabelledFace, st.integers(0, 2**53), boxes, fractions,
    st.builds(Quality, fractions, st.sampled_from(get_args(QualityReason))), seven, seven, labels,
    unknown_reasons,
)  # fmt: skip
frames = st.builds(LabelledFrame, stream_ids, st.integers(0, 2**53), seconds, st.lists(faces, max_size=3).map(tuple))
segments = st.builds(Segment, stream_ids, st.integers(0, 2**53), labels, seconds, seconds, fractions, unknown_reasons)
gaps = st.builds(Gap, stream_ids, seconds, seconds, st.text(max_size=20))


def frame_to_json(frame: LabelledFrame) -> str:
    return to_json(frame_document(frame))


def frame_from_json(text: str | bytes) -> LabelledFrame:
    return frame_of(parse_frame(text))


def segment_to_json(segment: Segment) -> str:
    return to_json(stored_segment(segment))


def segment_from_json(text: str | bytes) -> Segment:
    return segment_of(parse_segment(text))


def gap_to_json(gap: Gap) -> str:
    return to_json(stored_gap(gap))


def gap_from_json(text: str | bytes) -> Gap:
    return gap_of(parse_gap(text))


@given(frames)
def test_frame_document_is_equal_except_for_rounding(frame: LabelledFrame) -> None:
    back = frame_from_json(frame_to_json(frame))
    assert (back.stream_id, back.index) == (frame.stream_id, frame.index)
    assert back.time_s == pytest.approx(frame.time_s, abs=1e-6)
    assert len(back.faces) == len(frame.faces)
    for one, other in zip(back.faces, frame.faces, strict=True):
        assert (one.person_id, one.label, one.unknown_reason) == (other.person_id, other.label, other.unknown_reason)
        assert one.quality.reason == other.quality.reason
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert one.quality.score == pytest.approx(other.quality.score, abs=1e-4)
        # A float32 of 10,000 px is 0.0005 px from the next one.
        np.testing.assert_allclose(one.xyxy, other.xyxy, rtol=0, atol=0.006)
        np.testing.assert_allclose(one.probs, other.probs, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.smoothed, other.smoothed, rtol=0, atol=1e-4)
        assert one.xyxy.dtype == one.probs.dtype == one.smoothed.dtype == np.float32


@given(frames)
def test_rounding_twice_changes_nothing(frame: LabelledFrame) -> None:
    once = frame_to_json(frame)
    assert frame_to_json(frame_from_json(once)) == once


@given(segments)
def test_segment_document_is_equal_except_for_rounding(segment: Segment) -> None:
    text = segment_to_json(segment)
    back = segment_from_json(text)
    assert (back.stream_id, back.person_id, back.label) == (segment.stream_id, segment.person_id, segment.label)
    assert back.unknown_reason == segment.unknown_reason
    assert back.start_s == pytest.approx(segment.start_s, abs=1e-6)
    assert back.end_s == pytest.approx(segment.end_s, abs=1e-6)
    assert segment_to_json(back) == text


@given(gaps)
def test_gap_document_is_equal_except_for_rounding(gap: Gap) -> None:
    text = gap_to_json(gap)
    back = gap_from_json(text)
    assert (back.stream_id, back.reason) == (gap.stream_id, gap.reason)
    assert gap_to_json(back) == text


READERS: tuple[Callable[[str | bytes], object], ...] = (frame_from_json, segment_from_json, gap_from_json)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_random_bytes_raise_only_codec_errors(data: bytes) -> None:
    for read in READERS:
        with pytest.raises(CodecError):
            read(data)
    with pytest.raises(CodecError):
        preview_from_bytes(data)


@given(frames, st.data())
def test_missing_names_raise_only_codec_errors(frame: LabelledFrame, data: st.DataObject) -> None:
    document = json.loads(frame_to_json(frame))
    target = data.draw(st.sampled_from([document, *document["faces"]]))
    del target[data.draw(st.sampled_from(sorted(target)))]
    with suppress(CodecError):
        frame_from_json(json.dumps(document))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def with_replaced_value(document: Any, data: st.DataObject) -> Any:
    """Return `document` with one value, at any depth, replaced by any other value."""
    if not isinstance(document, dict | list) or not document or data.draw(st.integers(0, 5)) == 0:
        return data.draw(anything)
    keys = sorted(document) if isinstance(document, dict) else range(len(document))
    key = data.draw(st.sampled_from(keys))
    document[key] = with_replaced_value(document[key], data)
    return document


@given(frames, segments, gaps, st.data())
def test_parsed_documents_can_be_written_again(
    frame: LabelledFrame, segment: Segment, gap: Gap, data: st.DataObject
) -> None:
    """Parsed documents are not validated again, so they must be valid for writing."""

    def check(text: str, read: Callable[[str], T], write: Callable[[T], str]) -> None:
        changed = json.dumps(with_replaced_value(json.loads(text), data))
        with suppress(CodecError):
            once = write(read(changed))
            assert write(read(once)) == once

    check(frame_to_json(frame), frame_from_json, frame_to_json)
    check(segment_to_json(segment), segment_from_json, segment_to_json)
    check(gap_to_json(gap), gap_from_json, gap_to_json)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"v":1,"stream_id":"door@x","index":1,"time_s":1,"faces":[]}',
        '{"v":1,"stream_id":3,"reason":"stalled","start_s":1,"end_s":2,"start_at":1e999}',
        '{"v":1,"stream_id":"door@1","person_id":"1","label":"happy","mean_prob":1,"start_s":1,"end_s":2,"start_at":""}',
        '{"v":1,"stream_id":"door@1","index":1,"time_s":HUGE,"faces":[],"start_at":HUGE}'.replace("HUGE", "9" * 400),
    ],
    ids=["deep", "no session start", "not a text", "not a number", "too large"],
)
def test_invalid_documents_found_by_fuzzing_are_rejected(text: str) -> None:
    for read in READERS:
        with pytest.raises(CodecError):
            read(text)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_number_that_is_not_finite_is_rejected(number: float) -> None:
    frame = LabelledFrame("door@1", 3, 0.6, ())
    with pytest.raises(CodecError, match="Cannot store a result of door@1: a number is not finite"):
        frame_to_json(replace(frame, time_s=number))


def test_other_versions_are_rejected() -> None:
    with pytest.raises(CodecError, match="expected version 1: v: Input should be 1"):
        frame_from_json('{"v":2}')


def test_documents_of_version_1_do_not_change() -> None:
    """Other programs and stores written by older releases depend on it."""
    probs = np.array([0.01, 0.01, 0.01, 0.9, 0.03, 0.02, 0.02], np.float32)
    face = LabelledFace(
        7, np.array([10.5, 20, 60.25, 80], np.float32), 0.93, Quality(0.8, "ok"), probs, probs, "happy"
    )
    frame = LabelledFrame("door@1767225600000", 12, 2.4, (face,))
    assert json.loads(frame_to_json(frame)) == {
        "v": 1, "stream_id": "door@1767225600000", "index": 12, "time_s": 2.4, "at": 1767225602.4,
        "faces": [{
            "person_id": 7, "xyxy": [10.5, 20.0, 60.25, 80.0], "confidence": 0.93, "quality": 0.8,
            "quality_reason": "ok", "probs": [0.01, 0.01, 0.01, 0.9, 0.03, 0.02, 0.02],
            "smoothed": [0.01, 0.01, 0.01, 0.9, 0.03, 0.02, 0.02], "label": "happy",
            "unknown_reason": None,
        }],
    }  # fmt: skip
    segment = Segment("door@1767225600000", 7, "happy", 1.2, 3.4, 0.81)
    assert json.loads(segment_to_json(segment)) == {
        "v": 1, "stream_id": "door@1767225600000", "person_id": 7, "label": "happy", "mean_prob": 0.81,
        "start_s": 1.2, "end_s": 3.4, "start_at": 1767225601.2, "end_at": 1767225603.4,
        "unknown_reason": None,
    }  # fmt: skip
    unknown = Segment("door@1767225600000", 7, UNKNOWN, 1.2, 3.4, 0.0, "small")
    assert json.loads(segment_to_json(unknown))["unknown_reason"] == "small"
    gap = Gap("door@1767225600000", 5.0, 9.5, "stalled")
    assert json.loads(gap_to_json(gap)) == {
        "v": 1, "stream_id": "door@1767225600000", "reason": "stalled",
        "start_s": 5.0, "end_s": 9.5, "start_at": 1767225605.0, "end_at": 1767225609.5,
    }  # fmt: skip


@given(frames, segments)
def test_documents_of_older_releases_have_no_unknown_reason(frame: LabelledFrame, segment: Segment) -> None:
    document, stored = json.loads(frame_to_json(frame)), json.loads(segment_to_json(segment))
    for one in (*document["faces"], stored):
        del one["unknown_reason"]
    assert all(face.unknown_reason is None for face in frame_from_json(json.dumps(document)).faces)
    assert segment_from_json(json.dumps(stored)).unknown_reason is None
