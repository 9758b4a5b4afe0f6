"""What a camera showed, as JSON or as a table. A week may be a million segments: they are read an hour at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter

from fer_stream.records import ClosedGap, ClosedSegment, unix_time
from fer_stream.store.protocol import ResultStore
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import PersonModel, TimelineModel, gap_model, segment_model

MOST = 50_000
"""So many segments are told as JSON, which are 4.4 MB: making them took 2.3 s of a core and 42 MB of memory. A camera
that sees one begin every second has as many in 14 hours."""

_HOUR_S = 3600.0
_ROWS_AT_ONCE = 1000
_COLUMNS = ("kind", "stream_id", "person", "label", "start_at", "end_at", "mean_prob")

Row = tuple[float, tuple[object, ...]]


def timeline(store: ResultStore, name: str, from_s: float, to_s: float) -> TimelineModel:
    """What is known of a stretch of wall time. Raises `Problem` where that is more than `MOST` segments."""
    people: dict[tuple[str, int], PersonModel] = {}
    for told, closed in enumerate(_segments(store, name, from_s, to_s), start=1):
        if told > MOST:
            raise Problem(
                422,
                f"From {from_s} to {to_s} there are more than {MOST:,} segments.",
                "Ask for less time, or for a table with format=csv.",
            )
        stream_id, person_id = closed.stream_id, closed.person_id
        new = PersonModel(person=person_id, stream_id=stream_id, segments=[])
        people.setdefault((stream_id, person_id), new).segments.append(segment_model(closed))
    gaps = [gap_model(gap) for gap in store.gaps(name, from_s, to_s)]
    return TimelineModel(source=name, from_at=from_s, to_at=to_s, people=list(people.values()), gaps=gaps)


def table(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[str]:
    """The same as CSV of any length, in pieces: one row per segment and per gap, by their beginning."""
    segments, gaps = _segments(store, name, from_s, to_s), store.gaps(name, from_s, to_s)
    rows = merge(map(_segment_row, segments), map(_gap_row, gaps), key=itemgetter(0))
    yield _lines([_COLUMNS])
    while piece := [row for _, row in islice(rows, _ROWS_AT_ONCE)]:
        yield _lines(piece)


def _segments(store: ResultStore, name: str, from_s: float, to_s: float) -> Iterator[ClosedSegment]:
    """Those that reach into a stretch of wall time, by their beginning, read about an hour at a time."""
    begin_s = from_s
    while begin_s < to_s and (end_s := store.next_end(name, begin_s)) is not None:
        until_s = min(to_s, end_s + _HOUR_S)
        found = store.segments(name, begin_s, until_s)
        yield from (closed for closed in found if begin_s == from_s or _start_at(closed) >= begin_s)
        begin_s = until_s


def _start_at(closed: ClosedSegment) -> float:
    return round(unix_time(closed.stream_id, closed.segment.start_s), 6)  # as the store has it


def _segment_row(closed: ClosedSegment) -> Row:
    one = segment_model(closed)
    row = ("segment", closed.stream_id, closed.person_id, one.label, one.start_at, one.end_at, one.mean_prob)
    return one.start_at, row


def _gap_row(closed: ClosedGap) -> Row:
    gap = gap_model(closed)
    return gap.start_at, ("gap", gap.stream_id, "", gap.reason, gap.start_at, gap.end_at, "")


def _lines(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
