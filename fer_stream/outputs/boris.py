"""NAME.boris.tsv: events as in the table that BORIS 8 exports ("Export events"), tab-separated."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_stream.outputs.export import ExportedTimeline

COLUMNS = (
    "Observation id", "Observation date", "Description", "Observation duration", "Observation type", "Source",
    "Time offset (s)", "Media duration (s)", "FPS", "Subject", "Behavior", "Behavioral category", "Behavior type",
    "Time", "Media file name", "Image index", "Image file path", "Comment",
)  # fmt: skip
"""Columns of BORIS 8 for an observation of one medium without variables and modifiers."""


def render(timeline: ExportedTimeline) -> str:
    """Return the table: a START and a STOP event per segment, in the order of time.

    The subject is the person, the behaviour the label, the comment the mean probability.
    """
    duration = f"{timeline.duration_ms / 1000:.3f}"
    medium = timeline.media_path or timeline.name
    observation = {
        "Observation id": timeline.name,
        "Observation date": (timeline.analysed_at or "").removesuffix("Z").replace("T", " "),
        "Description": "fer-stream",
        "Observation duration": duration,
        "Observation type": "Media file",
        "Source": f"player #1:{medium}",
        "Time offset (s)": "0.000",
        "Media duration (s)": duration,
        "FPS": "" if timeline.fps is None else f"{timeline.fps:.3f}",
        "Behavioral category": "emotion",
        "Media file name": medium,
    }
    events = sorted(
        (time_ms, order, segment.person_id, kind, segment)
        for segment in timeline.in_order()
        for order, kind, time_ms in ((0, "STOP", segment.end_ms), (1, "START", segment.start_ms))
    )
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, delimiter="\t", restval="", lineterminator="\n")
    table.writeheader()
    for time_ms, _, person_id, kind, segment in events:
        table.writerow(
            observation
            | {
                "Subject": f"person {person_id}",
                "Behavior": segment.text,
                "Behavior type": kind,
                "Time": f"{time_ms / 1000:.3f}",
                "Comment": f"mean probability {segment.mean_prob:.4f}" if segment.mean_prob else "",
            }
        )
    return text.getvalue()
