"""The tables that the service wrote, against the scenes that its cameras showed and against `fer-stream run`."""

from __future__ import annotations

import csv
import json
import math
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scenes import FPS, Film
from benchmarks.soak.account import Span, inside

# A picture is taken at its moment or somewhat later, never before, but for rounding.
_ROUNDING = 0.05
# Of late frames to look for, the first included that is not late at all.
_LATEST = 3
# Walking in and being noticed takes no longer.
_WALK_S = 2.0
# A person who is seen for less of a visit is not the one who came.
_OVERLAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """A frame of a table: `at` is Unix seconds; `faces` are (person_id, centre x in px, label) from left to right."""

    stream_start_ms: int
    index: int
    at: float
    faces: tuple[tuple[int, float, str], ...]


def read_rows(folder: Path) -> tuple[list[Row], list[tuple[str, ...]]]:
    """The frames of one source in order, and the keys of all lines: epoch, frame, person."""
    frames: dict[tuple[int, int], list[tuple[int, float, str]]] = {}
    at: dict[tuple[int, int], float] = {}
    keys: list[tuple[str, ...]] = []
    for path in sorted(folder.glob("*.frames.csv")):
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                key = int(line["stream_start_ms"]), int(line["frame_index"])
                keys.append((line["stream_start_ms"], line["frame_index"], line["person_id"]))
                at[key] = key[0] / 1000 + float(line["time_s"])
                faces = frames.setdefault(key, [])
                if line["person_id"]:
                    centre = (float(line["x1"]) + float(line["x2"])) / 2
                    faces.append((int(line["person_id"]), centre, line["label"]))
    rows = [
        Row(*key, at[key], tuple(sorted(faces, key=lambda face: face[1]))) for key, faces in sorted(frames.items())
    ]
    return rows, keys


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind of all DAY.segments.jsonl of a source."""
    texts = (path.read_text() for path in sorted(folder.glob("*.segments.jsonl")))
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line for line in lines if line["kind"] == kind]


def compare(
    rows: Sequence[Row], film: Film, told: Sequence[tuple[str, ...]], since_s: float, windows: Sequence[Span]
) -> dict[str, Any]:
    """How far the frames outside `windows` agree with the scene and with what `fer-stream run` says of it.

    `people_as_in_scene` is of those frames in which nobody walks in or out, `labels_as_shown` of the faces in them,
    `labels_as_run_says` of all frames. `frames_without_row` counts pictures between others that have a row.
    """
    stretches = [list(some) for _, some in groupby(_calm(rows, windows), key=lambda pair: pair[0])]
    placed = [pair for some in stretches for pair in _placed([row for _, row in some], film, told, since_s)]
    still = people = faces = shown = 0
    for position, row in placed:
        heads = _standing(film, position / FPS)
        if heads is None:
            continue
        still += 1
        people += len(heads) == len(row.faces)
        if len(heads) == len(row.faces):
            faces += len(heads)
            shown += sum(head == label for head, (_, _, label) in zip(heads, row.faces, strict=True))
    return {
        "frames": len(placed),
        "frames_still": still,
        "people_as_in_scene": people / max(1, still),
        "labels_as_shown": shown / max(1, faces),
        "labels_as_run_says": sum(_labels(row) == told[at] for at, row in placed) / max(1, len(placed)),
        "frames_without_row": sum(
            after.index - before.index - 1 for some in stretches for (_, before), (_, after) in pairwise(some)
        ),
    }


def _calm(rows: Sequence[Row], windows: Sequence[Span]) -> Iterator[tuple[tuple[int, int], Row]]:
    """The rows outside windows, each with the epoch and the stretch between windows in which it lies."""
    begins = [begin for begin, _ in windows]
    for row, hit in zip(rows, inside([row.at for row in rows], windows), strict=True):
        if not hit:
            yield (row.stream_start_ms, bisect(begins, row.at)), row


def _placed(
    stretch: Sequence[Row], film: Film, told: Sequence[tuple[str, ...]], since_s: float
) -> list[tuple[int, Row]]:
    """Rows of one connection with their position in the loop.

    A picture arrives later than it was due, by a time that is the same for all of a connection and may be more than
    a frame: by as many as make the labels agree best.
    """
    first = [int((row.at - since_s) * FPS + _ROUNDING) for row in stretch]
    tries = [
        [((number - late) % film.frames, row) for number, row in zip(first, stretch, strict=True)]
        for late in range(_LATEST)
    ]
    return max(tries, key=lambda some: sum(_labels(row) == told[position] for position, row in some))


def _labels(row: Row) -> tuple[str, ...]:
    return tuple(label for _, _, label in row.faces)


def _standing(film: Film, time_s: float) -> list[str] | None:
    """The pictures of those who are there, from left to right; None while somebody walks in or out."""
    for visit in film.scene.visits:
        if any(edge - _WALK_S < time_s < edge + _WALK_S for edge in (visit.start_s, visit.end_s)):
            return None
    heads = sorted(film.scene.sightings(time_s), key=lambda head: float(head.xyxy[0]))
    return [head.picture for head in heads]


def visits(rows: Sequence[Row], film: Film, since_s: float, windows: Sequence[Span]) -> dict[str, Any]:
    """The visits of the scene that no fault disturbed: as how many persons each was told, and how late."""
    seen = _tracks(rows)
    persons: list[int] = []
    start_s: list[float] = []
    end_s: list[float] = []
    for begin, end, centre in _expected(rows, film, since_s):
        if any(first < end and begin < last for first, last in windows):
            continue
        found = [
            (first, last)
            for first, last, x in seen
            if min(last, end) - max(first, begin) > _OVERLAP_S and abs(x - centre) < film.scene.height / 3
        ]
        persons.append(len(found))
        if len(found) == 1:
            start_s.append(found[0][0] - begin)
            end_s.append(end - found[0][1])
    return {
        "visits": len(persons),
        "as_one_person": persons.count(1),
        "as_nobody": persons.count(0),
        "as_several": sum(number > 1 for number in persons),
        "seen_after_s": _spread(start_s),
        "lost_before_end_s": _spread(end_s),
    }


def _expected(rows: Sequence[Row], film: Film, since_s: float) -> Iterator[tuple[float, float, float]]:
    """Begin and end in Unix seconds and the centre x of every visit while the service ran."""
    if not rows:
        return
    first, last, loop_s = rows[0].at, rows[-1].at, film.scene.duration_s
    for loop in range(math.floor((first - since_s) / loop_s), math.ceil((last - since_s) / loop_s)):
        for visit in film.scene.visits:
            begin, end = (since_s + loop * loop_s + edge for edge in (visit.start_s, visit.end_s))
            if first < begin and end < last:
                middle = film.scene.sightings((visit.start_s + visit.end_s) / 2)
                x1, _, x2, _ = next(one.xyxy for one in middle if one.person == visit.person)
                yield begin, end, float(x1 + x2) / 2


def _tracks(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """First and last Unix second and median centre x of every person."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for track, x, _ in row.faces:
            found[row.stream_start_ms, track].append((row.at, x))
    return [(one[0][0], one[-1][0], float(np.median([x for _, x in one]))) for one in found.values()]


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}
