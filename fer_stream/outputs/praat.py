"""NAME.TextGrid: a TextGrid of Praat with one interval tier per person.

Format: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_stream.outputs.export import ExportedSegment, ExportedTimeline


def render(timeline: ExportedTimeline) -> str:
    """Return the TextGrid in its long text format. Times without a label are intervals with an empty text."""
    end = _seconds(timeline.duration_ms)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    if not timeline.segments:
        return "\n".join([*lines, "tiers? <absent>", ""])
    lines += ["tiers? <exists>", f"size = {len(timeline.segments)}", "item []:"]
    for tier, (person_id, segments) in enumerate(timeline.segments.items(), start=1):
        intervals = list(_intervals(segments, timeline.duration_ms))
        lines += [
            f"    item [{tier}]:",
            '        class = "IntervalTier"',
            f'        name = "person {person_id}"',
            "        xmin = 0",
            f"        xmax = {end}",
            f"        intervals: size = {len(intervals)}",
        ]
        for number, (start_ms, end_ms, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{number}]:",
                f"            xmin = {_seconds(start_ms)}",
                f"            xmax = {_seconds(end_ms)}",
                f'            text = "{text}"',
            ]
    return "\n".join([*lines, ""])


def _intervals(segments: Sequence[ExportedSegment], duration_ms: int) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and text of intervals that cover the whole duration."""
    covered_ms = 0
    for segment in segments:
        if segment.start_ms > covered_ms:
            yield covered_ms, segment.start_ms, ""
        yield segment.start_ms, segment.end_ms, segment.text
        covered_ms = segment.end_ms
    if duration_ms > covered_ms:
        yield covered_ms, duration_ms, ""


def _seconds(time_ms: int) -> str:
    return f"{time_ms / 1000:g}" if time_ms % 1000 == 0 else f"{time_ms / 1000:.3f}"
