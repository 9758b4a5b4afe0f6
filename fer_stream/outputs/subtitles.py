"""NAME.vtt and NAME.srt: one subtitle per segment, for players and editing programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.formatting import format_percent
from fer_stream.records import UNKNOWN

if TYPE_CHECKING:
    from fer_stream.outputs.export import ExportedSegment, ExportedTimeline


def render_vtt(timeline: ExportedTimeline) -> str:
    """Return the subtitles as WebVTT (https://www.w3.org/TR/webvtt1/)."""
    cues = (
        f"{number}\n{_time(segment.start_ms, '.')} --> {_time(segment.end_ms, '.')}\n{_text(segment)}\n"
        for number, segment in enumerate(timeline.in_order(), start=1)
    )
    return "\n".join(["WEBVTT\n", *cues])


def render_srt(timeline: ExportedTimeline) -> str:
    """Return the subtitles as SubRip."""
    return "\n".join(
        f"{number}\n{_time(segment.start_ms, ',')} --> {_time(segment.end_ms, ',')}\n{_text(segment)}\n"
        for number, segment in enumerate(timeline.in_order(), start=1)
    )


def _text(segment: ExportedSegment) -> str:
    probability = "" if segment.label == UNKNOWN else f" ({format_percent(segment.mean_prob)})"
    return f"Person {segment.person_id}: {segment.text}{probability}"


def _time(time_ms: int, decimal: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal}{milliseconds:03d}"
