"""History of a source as JSON or CSV, made from the stored documents.

A week can have a million segments, so the store is read an hour at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter

from fer_stream.store.protocol import ResultStore
from fer_stream.store.schemas import StoredGap, StoredSegment
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import Timeline, TimelinePerson, timeline_gap, timeline_segment

MAX_SEGMENTS = 50_000
"""Maximum number of segments in a JSON response: 4.4 MB. A camera with one new segment per second reaches it in 14
hours."""

_HOUR_S = 3600.0
_ROWS_PER_CHUNK = 1000
_COLUMNS = ("kind", "stream_id", "person_id", "label", "start_at", "end_at", "mean_prob")

Row = tuple[float, tuple[object, ...]]


def timeline_document(store: ResultStore, name: str, from_s: float, to_s: float) -> Timeline:
    """Return the segments and gaps that overlap a time range (Unix seconds).

    Raises `Problem` (422) if there are more than `MAX_SEGMENTS` segments.
    """
    people: dict[tuple[str, int], TimelinePerson] = {}
    for number, segment in enumerate(_segments(store, name, from_s, to_s), start=1):
        if number > MAX_SEGMENTS:
            raise Problem(
                422,
                f"The time range {from_s} to {to_s} has more than {MAX_SEGMENTS:,} segments.",
                "Request a shorter range, or a table with format=csv.",
            )
        stream_id, person_id = segment["stream_id"], segment["person_id"]
        new: TimelinePerson = {"person_id": person_id, "stream_id": stream_id, "segments": []}
        people.setdefault((stream_id, person_id), new)["segments"].append(timeline_segment(segment))
    gaps = [timeline_gap(gap) for gap in store.gap_documents(name, from_s, to_s)]
    return {"source": name, "from_at": from_s, "to_at": to_s, "people": list(people.values()), "gaps": gaps}


def timeline_csv(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[str]:
    """Yield the same as CSV in chunks, without a limit: one row per segment or gap, sorted by start."""
    segments, gaps = _segments(store, name, from_s, to_s), store.gap_documents(name, from_s, to_s)
    rows = merge(map(_segment_row, segments), map(_gap_row, gaps), key=itemgetter(0))
    yield _csv([_COLUMNS])
    while chunk := [row for _, row in islice(rows, _ROWS_PER_CHUNK)]:
        yield _csv(chunk)


def _segments(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[StoredSegment]:
    """Yield the segments that overlap a time range, sorted by start, reading about an hour at a time."""
    start_s = from_s
    while start_s < to_s and (end_s := store.next_segment_end(name, start_s)) is not None:
        until_s = min(to_s, end_s + _HOUR_S)
        found = store.segment_documents(name, start_s, until_s)
        yield from (segment for segment in found if start_s == from_s or segment["start_at"] >= start_s)
        start_s = until_s


def _segment_row(segment: StoredSegment) -> Row:
    columns = ("stream_id", "person_id", "label", "start_at", "end_at", "mean_prob")
    return segment["start_at"], ("segment", *itemgetter(*columns)(segment))


def _gap_row(gap: StoredGap) -> Row:
    return gap["start_at"], ("gap", gap["stream_id"], "", gap["reason"], gap["start_at"], gap["end_at"], "")


def _csv(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
