"""History of a source as JSON or CSV.

A week can have a million segments, so the store is read an hour at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter

from fer_stream.records import Gap, Segment, unix_time
from fer_stream.store.protocol import ResultStore
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import PersonModel, TimelineModel, gap_model, segment_model

MAX_SEGMENTS = 50_000
"""Maximum number of segments in a JSON response: 4.4 MB, which took 2.3 s of a core and 42 MB of memory to produce. A
camera with one new segment per second reaches it in 14 hours."""

_HOUR_S = 3600.0
_ROWS_PER_CHUNK = 1000
_COLUMNS = ("kind", "stream_id", "person_id", "label", "start_at", "end_at", "mean_prob")

Row = tuple[float, tuple[object, ...]]


def timeline_json(store: ResultStore, name: str, from_s: float, to_s: float) -> TimelineModel:
    """Return the segments and gaps that overlap a time range (Unix seconds).

    Raises `Problem` (422) if there are more than `MAX_SEGMENTS` segments.
    """
    people: dict[tuple[str, int], PersonModel] = {}
    for number, segment in enumerate(_segments(store, name, from_s, to_s), start=1):
        if number > MAX_SEGMENTS:
            raise Problem(
                422,
                f"The time range {from_s} to {to_s} has more than {MAX_SEGMENTS:,} segments.",
                "Request a shorter range, or a table with format=csv.",
            )
        stream_id, person_id = segment.stream_id, segment.person_id
        new = PersonModel(person_id=person_id, stream_id=stream_id, segments=[])
        people.setdefault((stream_id, person_id), new).segments.append(segment_model(segment))
    gaps = [gap_model(gap) for gap in store.gaps(name, from_s, to_s)]
    return TimelineModel(source=name, from_at=from_s, to_at=to_s, people=list(people.values()), gaps=gaps)


def timeline_csv(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[str]:
    """Yield the same as CSV in chunks, without a limit: one row per segment or gap, sorted by start."""
    segments, gaps = _segments(store, name, from_s, to_s), store.gaps(name, from_s, to_s)
    rows = merge(map(_segment_row, segments), map(_gap_row, gaps), key=itemgetter(0))
    yield _csv([_COLUMNS])
    while chunk := [row for _, row in islice(rows, _ROWS_PER_CHUNK)]:
        yield _csv(chunk)


def _segments(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[Segment]:
    """Yield the segments that overlap a time range, sorted by start, reading about an hour at a time."""
    start_s = from_s
    while start_s < to_s and (end_s := store.next_end(name, start_s)) is not None:
        until_s = min(to_s, end_s + _HOUR_S)
        found = store.segments(name, start_s, until_s)
        yield from (segment for segment in found if start_s == from_s or _start_at(segment) >= start_s)
        start_s = until_s


def _start_at(segment: Segment) -> float:
    return round(unix_time(segment.stream_id, segment.start_s), 6)  # rounded like in the store


def _segment_row(segment: Segment) -> Row:
    one = segment_model(segment)
    row = ("segment", segment.stream_id, segment.person_id, one.label, one.start_at, one.end_at, one.mean_prob)
    return one.start_at, row


def _gap_row(gap: Gap) -> Row:
    one = gap_model(gap)
    return one.start_at, ("gap", one.stream_id, "", one.reason, one.start_at, one.end_at, "")


def _csv(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
