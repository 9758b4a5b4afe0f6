"""Hysteresis, minimum segment duration, and `unknown`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config.settings import TimelineSettings
from fer_stream.records import LABELS, UNKNOWN, Segment, UnknownReason
from fer_stream.timeline.labelling import Labeller, LabellerState, Segmenter, SegmenterState
from fer_stream.timeline.smoothing import Sample

SETTINGS = TimelineSettings(min_segment_s=0.5, hysteresis=0.1, min_prob=0.35)
FPS = 20.0
LOW_QUALITY: dict[str, UnknownReason] = {"small": "small", "blurred": "blurred", "unclear": "unclear"}


def sample(time_s: float, low_quality: UnknownReason | None = None, /, **probs: float) -> Sample:
    rest = (1 - sum(probs.values())) / (len(LABELS) - len(probs))
    values = np.array([probs.get(label, rest) for label in LABELS], np.float32)
    evidence = 0.2 if low_quality else 1.0
    return Sample(time_s, values, "ok", smoothed=values, evidence=evidence, low_quality=low_quality)


def run(samples: list[Sample]) -> tuple[list[str], list[Segment]]:
    labeller, segmenter = Labeller(SETTINGS, LabellerState()), Segmenter("test@1", 1, SegmenterState())
    segments = []
    for one in samples:
        segments += segmenter.push(labeller.push(one))
    segments += segmenter.push(labeller.flush()) + segmenter.flush()
    return [one.label or "" for one in samples], segments


def stretch(*parts: tuple[str, float]) -> list[Sample]:
    """Return samples in which the labels, one after the other, have probability 0.8."""
    samples: list[Sample] = []
    for label, seconds in parts:
        for _ in range(round(seconds * FPS)):
            samples.append(sample(len(samples) / FPS, **{label: 0.8}))
    return samples


def samples_of(steps: list[tuple[str, float]]) -> tuple[list[float], list[Sample]]:
    """Return times and samples of labels, or reasons of low quality, and the intervals before them."""
    times: list[float] = np.cumsum([gap for _, gap in steps]).tolist()
    samples = [
        sample(time_s, **{kind: 0.7}) if kind in LABELS else sample(time_s, LOW_QUALITY.get(kind))
        for time_s, (kind, _) in zip(times, steps, strict=True)
    ]
    return times, samples


def test_new_label_applies_from_its_first_sample() -> None:
    labels, segments = run(stretch(("neutral", 2), ("happy", 2)))
    assert labels == ["neutral"] * 40 + ["happy"] * 40
    assert [(s.label, s.start_s, s.end_s) for s in segments] == [("neutral", 0, 2), ("happy", 2, pytest.approx(4))]
    assert segments[1].mean_prob == pytest.approx(0.8)


def test_short_label_is_merged() -> None:
    labels, _ = run(stretch(("neutral", 2), ("surprise", 0.3), ("neutral", 2)))
    assert set(labels) == {"neutral"}


def test_lead_within_the_hysteresis_keeps_the_label() -> None:
    samples = stretch(("neutral", 1)) + [
        sample(1 + i / FPS, neutral=0.44, happy=0.44 + 0.04 * (-1) ** i) for i in range(40)
    ]
    assert set(run(samples)[0]) == {"neutral"}


def test_rapidly_alternating_labels_are_unknown() -> None:
    samples = stretch(("neutral", 2), *[("happy", 0.2), ("angry", 0.2)] * 10, ("neutral", 2))
    labels, segments = run(samples)
    assert labels[60:100] == [UNKNOWN] * 40
    assert labels[-1] == "neutral"
    assert {one.unknown_reason for one in samples[60:100]} == {"undecided"}
    assert [one.unknown_reason for one in segments if one.label == UNKNOWN] == ["undecided"]


def test_segment_has_the_reason_with_the_longest_time_and_is_not_split() -> None:
    # The most samples are small, the longest time is blurred.
    times_s = [*np.arange(0, 1, 0.1).tolist(), *np.arange(1, 5, 0.5).tolist(), 5.0]
    labels, (segment,) = run([sample(time_s, "small" if time_s < 1 else "blurred") for time_s in times_s])
    assert set(labels) == {UNKNOWN}
    assert (segment.start_s, segment.end_s, segment.unknown_reason) == (0, 5.5, "blurred")


def test_reason_does_not_carry_over_to_the_next_segment() -> None:
    samples = [sample(i / FPS, "small") for i in range(100)]
    samples += [sample(5 + i / FPS, happy=0.9) for i in range(40)]
    samples += [sample(7 + i / FPS, "blurred") for i in range(20)]
    _, segments = run(samples)
    assert [(one.label, one.unknown_reason) for one in segments] == [
        (UNKNOWN, "small"), ("happy", None), (UNKNOWN, "blurred"),
    ]  # fmt: skip


def test_still_image_of_low_quality_has_a_reason() -> None:
    _, (segment,) = run([sample(0.0, "off_frontal", happy=0.9)])
    assert (segment.label, segment.start_s, segment.end_s) == (UNKNOWN, 0.0, 0.0)
    assert segment.unknown_reason == "off_frontal"


def test_low_probability_is_unknown() -> None:
    labels, (segment,) = run([sample(i / FPS, happy=0.25, sad=0.2) for i in range(40)])
    assert set(labels) == {UNKNOWN}
    assert segment.unknown_reason == "undecided"


def test_low_evidence_is_unknown() -> None:
    labels, (segment,) = run([sample(i / FPS, "small", happy=0.9) for i in range(40)])
    assert set(labels) == {UNKNOWN}
    assert segment.unknown_reason == "small"


def test_still_image_has_a_label() -> None:
    labels, segments = run([sample(0.0, happy=0.9)])
    assert labels == ["happy"]
    assert [(s.label, s.start_s, s.end_s) for s in segments] == [("happy", 0.0, 0.0)]
    assert segments[0].mean_prob == pytest.approx(0.9)


steps_of_a_visit = st.lists(
    st.tuples(st.sampled_from([*LABELS, "weak", *LOW_QUALITY]), st.floats(0.02, 0.4)), min_size=1, max_size=80
)


@given(steps_of_a_visit)
def test_only_unknown_has_a_reason_and_a_segment_that_of_the_longest_time(steps: list[tuple[str, float]]) -> None:
    times, samples = samples_of(steps)
    _, segments = run(samples)
    for one in samples:
        assert (one.unknown_reason is not None) == (one.label == UNKNOWN)
    intervals = np.diff(times)
    ends = [*times[1:], times[-1] + (intervals[-1] if len(intervals) else 0)]
    for segment in segments:
        lasts_s: dict[str | None, float] = {}
        for one, end_s in zip(samples, ends, strict=True):
            if segment.start_s <= one.time_s < segment.end_s or len(samples) == 1:
                lasts_s[one.unknown_reason] = lasts_s.get(one.unknown_reason, 0) + end_s - one.time_s
        assert segment.unknown_reason in lasts_s
        assert lasts_s[segment.unknown_reason] == pytest.approx(max(lasts_s.values()))


@given(steps_of_a_visit)
def test_segments_are_adjacent_and_agree_with_the_labels(steps: list[tuple[str, float]]) -> None:
    times, samples = samples_of(steps)
    labels, segments = run(samples)
    assert segments[0].start_s == times[0]
    assert all(a.end_s == b.start_s and a.label != b.label for a, b in pairwise(segments))
    for time_s, label in zip(times, labels, strict=True):
        assert any(s.label == label and s.start_s <= time_s <= s.end_s for s in segments)
    longest_gap = max(gap for _, gap in steps)
    for inner in segments[1:-1]:
        if inner.label != UNKNOWN:
            assert inner.end_s - inner.start_s >= SETTINGS.min_segment_s - longest_gap
