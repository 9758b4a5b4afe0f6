"""Formatting of times and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.formatting import (
    format_duration,
    format_label,
    format_labels,
    format_percent,
    format_shares,
    format_time,
    parse_time,
    pluralize,
)
from fer_stream.records import PersonSummary, Segment


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (5.34, "0:05.3"), (59.97, "1:00.0"), (3725.3, "1:02:05.3")]
)
def test_format_time(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.7, "4.7 s"), (59.96, "1 min 0 s"), (139, "2 min 19 s"), (3725, "1 h 2 min")]
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_pluralize() -> None:
    assert pluralize(1, "person", "people") == "1 person"
    assert pluralize(0, "person", "people") == "0 people"
    assert pluralize(1394, "frame") == "1,394 frames"


@pytest.mark.parametrize(("share", "text"), [(0.612, "61 %"), (0.004, "under 1 %"), (0, "0 %"), (1, "100 %")])
def test_format_percent(share: float, text: str) -> None:
    assert format_percent(share) == text


def test_format_label() -> None:
    assert format_label("happy", None) == "happy"
    assert format_label("unknown", "off_frontal") == "unknown: off frontal"


@pytest.mark.parametrize(
    ("unknown_shares", "text"),
    [
        ({"small": 0.08, "undecided": 0.04}, "happy 88 %, unknown 12 % (small 8 %, undecided 4 %)"),
        ({"off_frontal": 0.119, "blurred": 0.001}, "happy 88 %, unknown 12 % (off frontal)"),
        ({}, "happy 88 %, unknown 12 %"),
    ],
)
def test_format_shares(unknown_shares: dict[str, float], text: str) -> None:
    assert format_shares({"unknown": 0.12, "happy": 0.88}, unknown_shares) == text
    assert format_shares({"happy": 0.996, "unknown": 0.004}, {"small": 0.004}) == "happy 100 %, unknown under 1 %"
    assert format_shares({"happy": 1.0, "unknown": 0.0}, {"small": 0.0}) == "happy 100 %"


def person(*segments: Segment, **shares: float) -> PersonSummary:
    unknown = {"small": shares["unknown"]} if "unknown" in shares else {}
    return PersonSummary(1, 0.0, 10.0, 100, segments, shares, unknown)


def test_format_labels_separates_time_and_probability() -> None:
    """The mean is weighted by time: 0.3 for 4 s and 0.6 for 1 s."""
    segments = (
        Segment("s", 1, "sad", 0.0, 4.0, 0.3),
        Segment("s", 1, "neutral", 4.0, 7.0, 0.5),
        Segment("s", 1, "sad", 7.0, 8.0, 0.6),
        Segment("s", 1, "unknown", 8.0, 10.0, 0.0, "small"),
        Segment("s", 1, "happy", 10.0, 10.0, 0.9),
    )
    assert format_labels(person(*segments, neutral=0.3, sad=0.5, unknown=0.2, happy=0.0)) == (
        "sad for 50 % of the time (mean probability 0.36), neutral for 30 % (0.50), unknown for 20 % (small)"
    )
    unknown = Segment("s", 1, "unknown", 0.0, 10.0, 0.0, "small")
    assert format_labels(person(unknown, unknown=1.0)) == "unknown for 100 % of the time (small)"


def test_format_labels_of_a_still_image() -> None:
    assert format_labels(person(Segment("s", 1, "sad", 0.0, 0.0, 0.364), sad=1.0)) == "sad (probability 0.36)"
    unknown = Segment("s", 1, "unknown", 0.0, 0.0, 0.0, "off_frontal")
    assert format_labels(person(unknown, unknown=1.0)) == "unknown: off frontal"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90.5", 90.5), ("1:30", 90), ("100:00", 6000), ("0:00:05", 5), ("01:02:03.25", 3723.25)],
)
def test_time_is_parsed(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-3", "1:75", "1:2", "1:60:00", "1e3", "nan", "1:", "1h", "1:2:3:4"])
def test_invalid_time_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid time\. Use seconds \(90\.5\) or hh:mm:ss"):
        parse_time(text)


@given(st.integers(0, 359_999))
def test_formatted_time_can_be_parsed(tenths: int) -> None:
    assert parse_time(format_time(tenths / 10)) == pytest.approx(tenths / 10)
