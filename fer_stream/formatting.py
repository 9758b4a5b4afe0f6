"""How times and counts are said in pictures and reports."""

from __future__ import annotations


def format_time(time_s: float) -> str:
    """A moment of a recording to a tenth of a second, as in `0:05.3` and `1:02:05.3`."""
    tenths = round(time_s * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def format_duration(seconds: float) -> str:
    """A length of time, as in `4.7 s`, `2 min 19 s` and `1 h 2 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts, as in `1 person`, `0 people` and `1,394 frames`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_percent(share: float) -> str:
    """A part of a whole, 0..1, as in `61%`; what would round to nothing is `under 1%`."""
    return f"{share:.0%}" if share >= 0.005 or share <= 0 else "under 1%"
