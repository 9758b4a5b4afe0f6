"""Hysteresis, minimum segment duration, and `unknown`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.config.settings import TimelineSettings
from fer_stream.records import LABELS, UNKNOWN, Segment
from fer_stream.timeline.labelling import Labeller, LabellerState, Segmenter, SegmenterState
from fer_stream.timeline.smoothing import Sample

SETTINGS = TimelineSettings(min_segment_s=0.5, hysteresis=0.1, min_prob=0.35)
FPS = 20.0


def sample(time_s: float, evidence: float = 1.0, **probs: float) -> Sample:
    rest = (1 - sum(probs.values())) / (len(LABELS) - len(probs))
    values = np.array([probs.get(label, rest) for label in LABELS], np.float32)
    return Sample(time_s, values, True, smoothed=values, evidence=evidence)


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
    labels, _ = run(samples)
    assert labels[60:100] == [UNKNOWN] * 40
    assert labels[-1] == "neutral"


def test_low_probability_is_unknown() -> None:
    assert set(run([sample(i / FPS, happy=0.25, sad=0.2) for i in range(40)])[0]) == {UNKNOWN}


def test_low_evidence_is_unknown() -> None:
    assert set(run([sample(i / FPS, evidence=0.2, happy=0.9) for i in range(40)])[0]) == {UNKNOWN}


def test_still_image_has_a_label() -> None:
    labels, segments = run([sample(0.0, happy=0.9)])
    assert labels == ["happy"]
    assert [(s.label, s.start_s, s.end_s) for s in segments] == [("happy", 0.0, 0.0)]
    assert segments[0].mean_prob == pytest.approx(0.9)


@given(st.lists(st.tuples(st.sampled_from([*LABELS, "weak"]), st.floats(0.02, 0.4)), min_size=1, max_size=80))
def test_segments_are_adjacent_and_agree_with_the_labels(steps: list[tuple[str, float]]) -> None:
    times = np.cumsum([gap for _, gap in steps]).tolist()
    samples = [
        sample(time_s) if label == "weak" else sample(time_s, **{label: 0.7})
        for time_s, (label, _) in zip(times, steps, strict=True)
    ]
    labels, segments = run(samples)
    assert segments[0].start_s == times[0]
    assert all(a.end_s == b.start_s and a.label != b.label for a, b in pairwise(segments))
    for time_s, label in zip(times, labels, strict=True):
        assert any(s.label == label and s.start_s <= time_s <= s.end_s for s in segments)
    longest_gap = max(gap for _, gap in steps)
    for inner in segments[1:-1]:
        if inner.label != UNKNOWN:
            assert inner.end_s - inner.start_s >= SETTINGS.min_segment_s - longest_gap
