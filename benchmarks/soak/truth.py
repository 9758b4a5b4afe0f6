"""Comparison of the tables of the service with the scenes of its cameras and with `fer-stream run`."""

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

from benchmarks.scenes import FPS, EncodedScene
from benchmarks.soak.account import Span, in_windows

# A frame is captured at its time in the video or later; tolerance for rounding, in frames.
_ROUNDING = 0.05
# Number of delays to try, in frames, from 0.
_MAX_DELAY = 3
# Maximum time for walking into the frame and being detected.
_WALK_S = 2.0
# Minimum overlap of a detected person with a visit.
_OVERLAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """A frame of a table. `at` is Unix seconds; `faces` are (person_id, centre x in px, label) from left to right."""

    stream_start_ms: int
    index: int
    at: float
    faces: tuple[tuple[int, float, str], ...]


def read_rows(folder: Path) -> tuple[list[Row], list[tuple[str, ...]]]:
    """Return the frames of one source in order, and the keys of all lines: session, frame, person."""
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
    """Return the lines of one kind of all DAY.segments.jsonl of a source."""
    texts = (path.read_text() for path in sorted(folder.glob("*.segments.jsonl")))
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [line for line in lines if line["kind"] == kind]


def compare(
    rows: Sequence[Row],
    film: EncodedScene,
    expected: Sequence[tuple[str, ...]],
    since_s: float,
    windows: Sequence[Span],
) -> dict[str, Any]:
    """Compare the frames outside `windows` with the scene and with the results of `fer-stream run`.

    `people_as_in_scene` is a share of the frames in which nobody enters or leaves, `labels_as_shown` of the faces in
    them, and `labels_as_run_says` of all frames. `frames_without_row` counts frames between others that have a row.
    """
    intervals = [list(some) for _, some in groupby(_undisturbed(rows, windows), key=lambda pair: pair[0])]
    placed = [pair for some in intervals for pair in _align([row for _, row in some], film, expected, since_s)]
    still = people = faces = shown = 0
    for position, row in placed:
        heads = _expected_labels(film, position / FPS)
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
        "labels_as_run_says": sum(_labels(row) == expected[at] for at, row in placed) / max(1, len(placed)),
        "frames_without_row": sum(
            after.index - before.index - 1 for some in intervals for (_, before), (_, after) in pairwise(some)
        ),
    }


def _undisturbed(rows: Sequence[Row], windows: Sequence[Span]) -> Iterator[tuple[tuple[int, int], Row]]:
    """Yield the rows outside windows, each with its session and the index of the interval between windows."""
    begins = [begin for begin, _ in windows]
    for row, hit in zip(rows, in_windows([row.at for row in rows], windows), strict=True):
        if not hit:
            yield (row.stream_start_ms, bisect(begins, row.at)), row


def _align(
    interval: Sequence[Row], film: EncodedScene, expected: Sequence[tuple[str, ...]], since_s: float
) -> list[tuple[int, Row]]:
    """Return the rows of one connection with their position in the loop.

    Frames arrive with a delay that is constant within a connection and may exceed one frame. The delay with the best
    agreement of labels is used.
    """
    first = [int((row.at - since_s) * FPS + _ROUNDING) for row in interval]
    tries = [
        [((number - late) % film.frames, row) for number, row in zip(first, interval, strict=True)]
        for late in range(_MAX_DELAY)
    ]
    return max(tries, key=lambda some: sum(_labels(row) == expected[position] for position, row in some))


def _labels(row: Row) -> tuple[str, ...]:
    return tuple(label for _, _, label in row.faces)


def _expected_labels(film: EncodedScene, time_s: float) -> list[str] | None:
    """Return the labels of the visible people from left to right; None while somebody enters or leaves."""
    for visit in film.scene.visits:
        if any(edge - _WALK_S < time_s < edge + _WALK_S for edge in (visit.start_s, visit.end_s)):
            return None
    heads = sorted(film.scene.heads_at(time_s), key=lambda head: float(head.xyxy[0]))
    return [head.sprite for head in heads]


def visits(rows: Sequence[Row], film: EncodedScene, since_s: float, windows: Sequence[Span]) -> dict[str, Any]:
    """Compare undisturbed visits of the scene: number of person ids per visit, and detection delays."""
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


def _expected(rows: Sequence[Row], film: EncodedScene, since_s: float) -> Iterator[tuple[float, float, float]]:
    """Yield start and end in Unix seconds and the centre x of every visit while the service ran."""
    if not rows:
        return
    first, last, loop_s = rows[0].at, rows[-1].at, film.scene.duration_s
    for loop in range(math.floor((first - since_s) / loop_s), math.ceil((last - since_s) / loop_s)):
        for visit in film.scene.visits:
            begin, end = (since_s + loop * loop_s + edge for edge in (visit.start_s, visit.end_s))
            if first < begin and end < last:
                middle = film.scene.heads_at((visit.start_s + visit.end_s) / 2)
                x1, _, x2, _ = next(one.xyxy for one in middle if one.person == visit.person)
                yield begin, end, float(x1 + x2) / 2


def _tracks(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """Return first and last time in Unix seconds and the median centre x of every person."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for track, x, _ in row.faces:
            found[row.stream_start_ms, track].append((row.at, x))
    return [(one[0][0], one[-1][0], float(np.median([x for _, x in one]))) for one in found.values()]


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}
