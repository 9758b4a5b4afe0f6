"""A made-up camera whose truth is known: heads that come, look one way after the other, go and come back.

For load tests and for tests of what the service says of time and number of people. The heads are the caller's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.records import F32, U8, DecodeErrors, Frame, SourceInfo, stream_id_of

# A visit is long enough for several emotions; an absence is longer than a face is waited for (TrackerSettings:
# track_timeout_s + reassociate_s = 5 s), so that every visit is one person of its own to whoever follows faces.
_VISIT_S = (8.0, 16.0)
_ABSENCE_S = (6.0, 10.0)
_PICTURE_S = (2.5, 5.0)
_WALK_S = 1.0

# A head fills so much of the height or of its lane; it sways by so much of its side, in so many seconds.
_HEAD = 0.62
_SWAY = 0.08
_SWAY_S = (3.0, 6.0)


@dataclass(frozen=True, slots=True)
class Shown:
    """A person showed one picture from `start_s` to before `end_s`."""

    picture: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Visit:
    """A person was there from `start_s` to before `end_s`, walking in for the first and out for the last second."""

    person: str
    start_s: float
    end_s: float
    shown: tuple[Shown, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """Where a head is: `xyxy` is float32 (4,) in px and frames the whole picture of it, which may be cut off."""

    person: str
    picture: str
    xyxy: F32


@dataclass(frozen=True, slots=True)
class _Lane:
    """The part of the picture that one person moves in: centre and side of the head in px, and how it sways."""

    x: float
    y: float
    side: int
    sway_s: float
    phase: float


class Scene:
    """People who come and go before a still background, each in a lane of their own; all is drawn from `seed`.

    `sprites` is a folder with a folder for each person, which holds their pictures as PNG: a head each, square, with
    alpha where it is to melt into the background. Names of folders and pictures stand in the truth. Of the people
    there, `people` are drawn.

    `visits` is the whole truth, by `start_s`. Nobody is there in the last six seconds, so that a scene can be played
    in a loop. Raises `SourceNotFound` where there are not so many people, and `UnreadableSource` where a
    picture of theirs is none.
    """

    def __init__(
        self,
        sprites: Path,
        *,
        seed: int,
        people: int = 2,
        width: int = 640,
        height: int = 360,
        duration_s: float = 60.0,
    ) -> None:
        self.width, self.height, self.duration_s = width, height, duration_s
        rng = np.random.default_rng(seed)
        names = sorted(folder.name for folder in sprites.glob("*") if any(folder.glob("*.png")))
        if len(names) < people:
            raise SourceNotFound(f"{sprites} has pictures of {len(names)} people, {people} are wanted.")
        chosen = [str(name) for name in rng.permutation(names)[:people]]
        self._background = _background(rng, width, height)
        self._lanes = {name: _lane(rng, index, people, width, height) for index, name in enumerate(chosen)}
        self._pictures = {name: _pictures(sprites / name, self._lanes[name].side) for name in chosen}
        drawn = [_visits(rng, name, list(self._pictures[name]), duration_s) for name in chosen]
        self.visits = tuple(sorted((visit for one in drawn for visit in one), key=lambda visit: visit.start_s))

    def sightings(self, time_s: float) -> list[Sighting]:
        """Who is where at `time_s`, by name."""
        there = sorted(
            (visit for visit in self.visits if visit.start_s <= time_s < visit.end_s), key=lambda visit: visit.person
        )
        return [self._sighting(visit, time_s) for visit in there]

    def image(self, time_s: float) -> U8:
        """The picture at `time_s`, uint8 (height, width, 3) in BGR."""
        image = self._background.copy()
        for sighting in self.sightings(time_s):
            left, top = (round(float(edge)) for edge in sighting.xyxy[:2])
            _paste(image, self._pictures[sighting.person][sighting.picture], left, top)
        return image

    def _sighting(self, visit: Visit, time_s: float) -> Sighting:
        lane = self._lanes[visit.person]
        shown = next(one for one in visit.shown if time_s < one.end_s)
        angle = 2 * math.pi * time_s / lane.sway_s + lane.phase
        # In from below and out again: how much of the way is still to go, or gone already.
        away = max(0.0, 1 - (time_s - visit.start_s) / _WALK_S, 1 - (visit.end_s - time_s) / _WALK_S)
        x = lane.x + _SWAY * lane.side * math.cos(angle)
        y = lane.y + _SWAY * lane.side * math.sin(2 * angle) + away * (self.height - lane.y + lane.side / 2)
        half = lane.side / 2
        xyxy = np.array([x - half, y - half, x + half, y + half], np.float32)
        return Sighting(visit.person, shown.picture, xyxy)


class SyntheticSource:
    """A scene as a `FrameSource`, from its beginning to its end, at `fps` frames a second.

    `clock` gives `captured_at`, Unix time in seconds.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        name: str,
        stream_start_ms: int,
        fps: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._scene, self._fps, self._clock = scene, fps, clock
        self._count = int(scene.duration_s * fps)
        self._closed = False
        self._info = SourceInfo(
            name, "video", scene.width, scene.height, fps, self._count, scene.duration_s, "synthetic", "bgr24"
        )

    @property
    def info(self) -> SourceInfo:
        """All of it is so."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Always none."""
        return DecodeErrors()

    def frames(self) -> Iterator[Frame]:
        """The frames as fast as they are taken; none after `close`."""
        for index in range(self._count):
            if self._closed:
                return
            time_s = index / self._fps
            yield Frame(self.stream_id, index, time_s, self._clock(), ArrayPixels(self._scene.image(time_s)))

    def close(self) -> None:
        """Give no more frames."""
        self._closed = True


def _background(rng: np.random.Generator, width: int, height: int) -> U8:
    """Soft clouds: nothing in them looks like a face, and they cost an encoder little."""
    coarse = (rng.integers(80, 170, (4, 6, 1)) + rng.integers(-12, 13, (4, 6, 3))).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _lane(rng: np.random.Generator, index: int, lanes: int, width: int, height: int) -> _Lane:
    side = int(_HEAD * min(height, width / lanes))
    return _Lane(
        x=(index + 0.5) * width / lanes,
        y=height / 2,
        side=side,
        sway_s=float(rng.uniform(*_SWAY_S)),
        phase=float(rng.uniform(0, 2 * math.pi)),
    )


def _visits(rng: np.random.Generator, person: str, pictures: list[str], duration_s: float) -> Iterator[Visit]:
    start_s = float(rng.uniform(0.5, _ABSENCE_S[0]))
    while (end_s := start_s + float(rng.uniform(*_VISIT_S))) <= duration_s - _ABSENCE_S[0]:
        yield Visit(person, start_s, end_s, tuple(_shown(rng, pictures, start_s, end_s)))
        start_s = end_s + float(rng.uniform(*_ABSENCE_S))


def _shown(rng: np.random.Generator, pictures: list[str], start_s: float, end_s: float) -> Iterator[Shown]:
    """One picture after the other, all of them in turn, from any of them on."""
    edges = [start_s]
    while edges[-1] + _PICTURE_S[1] < end_s:
        edges.append(edges[-1] + float(rng.uniform(*_PICTURE_S)))
    first = int(rng.integers(len(pictures)))
    for number, (begin_s, over_s) in enumerate(pairwise([*edges, end_s])):
        yield Shown(pictures[(first + number) % len(pictures)], begin_s, over_s)


def _pictures(folder: Path, side: int) -> dict[str, U8]:
    """The pictures of one person by name, uint8 (side, side, 4) in BGRA."""
    return {path.stem: _picture(path, side) for path in sorted(folder.glob("*.png"))}


def _picture(path: Path, side: int) -> U8:
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3:
        raise UnreadableSource(f"{path} is no colour picture. Save it anew as PNG, with or without alpha.")
    if found.shape[2] == 3:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2BGRA)
    return cv2.resize(found, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _paste(image: U8, sprite: U8, left: int, top: int) -> None:
    """Lay a BGRA sprite over the image in place; what reaches over the edge is cut off."""
    (height, width), side = image.shape[:2], sprite.shape[0]
    x1, y1, x2, y2 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    if x1 >= x2 or y1 >= y2:
        return
    part = sprite[y1 - top : y2 - top, x1 - left : x2 - left].astype(np.float32)
    alpha = part[..., 3:] / 255
    image[y1:y2, x1:x2] = (alpha * part[..., :3] + (1 - alpha) * image[y1:y2, x1:x2]).round()
