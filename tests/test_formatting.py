"""Formatting of times and numbers."""

from __future__ import annotations

import pytest

from fer_stream.formatting import format_duration, format_percent, format_time, pluralize


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


@pytest.mark.parametrize(("share", "text"), [(0.612, "61%"), (0.004, "under 1%"), (0, "0%"), (1, "100%")])
def test_format_percent(share: float, text: str) -> None:
    assert format_percent(share) == text
