"""Formatting of times and numbers for the console, images and reports."""

from __future__ import annotations


def format_time(time_s: float) -> str:
    """Format a media time to a tenth of a second: `0:05.3`, `1:02:05.3`."""
    tenths = round(time_s * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def format_duration(seconds: float) -> str:
    """Format a duration: `4.7 s`, `2 min 19 s`, `1 h 2 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {remainder} s"
    return f"{minutes // 60} h {minutes % 60} min"


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: `1 person`, `0 people`, `1,394 frames`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_percent(share: float) -> str:
    """Format a share, 0..1, as `61%`; a positive share that would round to 0 % is `under 1%`."""
    return f"{share:.0%}" if share >= 0.005 or share <= 0 else "under 1%"
