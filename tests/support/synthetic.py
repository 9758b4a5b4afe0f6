"""Synthetic scenes with ground truth: heads that appear, change expression, disappear and return.

Used by load tests and by tests of times and numbers of people. The caller supplies the images of the heads.
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

# A visit is long enough for several expressions; an absence is longer than TrackerSettings.track_timeout_s +
# reassociate_s = 5 s, so that the tracker assigns a new identity to every visit.
_VISIT_S = (8.0, 16.0)
_ABSENCE_S = (6.0, 10.0)
_SPRITE_S = (2.5, 5.0)
_WALK_S = 1.0

# Size of a head as a fraction of the height or of its lane; amplitude as a fraction of its size, and period of its
# movement.
_HEAD = 0.62
_SWAY = 0.08
_SWAY_S = (3.0, 6.0)


@dataclass(frozen=True, slots=True)
class SpriteInterval:
    """Interval [`start_s`, `end_s`) in which a person is drawn with one sprite."""

    sprite: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Visit:
    """Interval [`start_s`, `end_s`) in which a person is visible, entering in the first and leaving in the last
    second."""

    person: str
    start_s: float
    end_s: float
    intervals: tuple[SpriteInterval, ...]


@dataclass(frozen=True, slots=True, eq=False)
class HeadPosition:
    """Position of a head: `xyxy` is float32 (4,) in px and contains the whole sprite, which may exceed the frame."""

    person: str
    sprite: str
    xyxy: F32


@dataclass(frozen=True, slots=True)
class _Lane:
    """Region in which one person moves: centre and side of the head in px, period and phase of the movement."""

    x: float
    y: float
    side: int
    sway_s: float
    phase: float


class Scene:
    """People who appear and disappear in front of a static background, each in a lane; determined by `seed`.

    `sprites` contains a folder per person with their sprites as PNG: square images of the head, optionally with
    alpha. The names of folders and sprites are the names in the ground truth. `people` of the persons are selected at
    random.

    `visits` is the ground truth, sorted by `start_s`. The last six seconds are empty, so that a scene can be played
    in a loop. Raises `SourceNotFound` if there are fewer than `people` persons, and `UnreadableSource` if a sprite is
    not a colour image.
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
            raise SourceNotFound(f"{sprites} contains sprites of {len(names)} people, but {people} are required.")
        chosen = [str(name) for name in rng.permutation(names)[:people]]
        self._background = _background(rng, width, height)
        self._lanes = {name: _lane(rng, index, people, width, height) for index, name in enumerate(chosen)}
        self._sprites = {name: _load_sprites(sprites / name, self._lanes[name].side) for name in chosen}
        drawn = [_visits(rng, name, list(self._sprites[name]), duration_s) for name in chosen]
        self.visits = tuple(sorted((visit for one in drawn for visit in one), key=lambda visit: visit.start_s))

    def heads_at(self, time_s: float) -> list[HeadPosition]:
        """Return the heads that are visible at `time_s`, sorted by person."""
        present = sorted(
            (visit for visit in self.visits if visit.start_s <= time_s < visit.end_s), key=lambda visit: visit.person
        )
        return [self._position(visit, time_s) for visit in present]

    def image(self, time_s: float) -> U8:
        """Draw the frame at `time_s`, uint8 (height, width, 3) BGR."""
        image = self._background.copy()
        for head in self.heads_at(time_s):
            left, top = (round(float(edge)) for edge in head.xyxy[:2])
            _paste(image, self._sprites[head.person][head.sprite], left, top)
        return image

    def _position(self, visit: Visit, time_s: float) -> HeadPosition:
        lane = self._lanes[visit.person]
        interval = next(one for one in visit.intervals if time_s < one.end_s)
        angle = 2 * math.pi * time_s / lane.sway_s + lane.phase
        # Fraction of the distance to the bottom edge, through which the head enters and leaves.
        offset = max(0.0, 1 - (time_s - visit.start_s) / _WALK_S, 1 - (visit.end_s - time_s) / _WALK_S)
        x = lane.x + _SWAY * lane.side * math.cos(angle)
        y = lane.y + _SWAY * lane.side * math.sin(2 * angle) + offset * (self.height - lane.y + lane.side / 2)
        half = lane.side / 2
        xyxy = np.array([x - half, y - half, x + half, y + half], np.float32)
        return HeadPosition(visit.person, interval.sprite, xyxy)


class SyntheticSource:
    """Scene as a `FrameSource` with `fps` frames per second.

    `clock` returns `captured_at`, Unix time in seconds.
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
        """Exact properties of the scene."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Always empty."""
        return DecodeErrors()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames on demand; none after `close`."""
        for index in range(self._count):
            if self._closed:
                return
            time_s = index / self._fps
            yield Frame(self.stream_id, index, time_s, self._clock(), ArrayPixels(self._scene.image(time_s)))

    def close(self) -> None:
        """Yield no more frames."""
        self._closed = True


def _background(rng: np.random.Generator, width: int, height: int) -> U8:
    """Draw a smooth random background without face-like structures, which compresses well."""
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


def _visits(rng: np.random.Generator, person: str, sprites: list[str], duration_s: float) -> Iterator[Visit]:
    start_s = float(rng.uniform(0.5, _ABSENCE_S[0]))
    while (end_s := start_s + float(rng.uniform(*_VISIT_S))) <= duration_s - _ABSENCE_S[0]:
        yield Visit(person, start_s, end_s, tuple(_intervals(rng, sprites, start_s, end_s)))
        start_s = end_s + float(rng.uniform(*_ABSENCE_S))


def _intervals(
    rng: np.random.Generator, sprites: list[str], start_s: float, end_s: float
) -> Iterator[SpriteInterval]:
    """Divide a visit into intervals that cycle through all sprites, starting with a random one."""
    edges = [start_s]
    while edges[-1] + _SPRITE_S[1] < end_s:
        edges.append(edges[-1] + float(rng.uniform(*_SPRITE_S)))
    first = int(rng.integers(len(sprites)))
    for number, (interval_start_s, interval_end_s) in enumerate(pairwise([*edges, end_s])):
        yield SpriteInterval(sprites[(first + number) % len(sprites)], interval_start_s, interval_end_s)


def _load_sprites(folder: Path, side: int) -> dict[str, U8]:
    """Load the sprites of one person by name, uint8 (side, side, 4) BGRA."""
    return {path.stem: _load_sprite(path, side) for path in sorted(folder.glob("*.png"))}


def _load_sprite(path: Path, side: int) -> U8:
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3:
        raise UnreadableSource(f"{path} is not a colour image. Save it again as PNG, with or without alpha.")
    if found.shape[2] == 3:
        found = cv2.cvtColor(found, cv2.COLOR_BGR2BGRA)
    return cv2.resize(found, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _paste(image: U8, sprite: U8, left: int, top: int) -> None:
    """Blend a BGRA sprite into the image in place, clipped at the edges."""
    (height, width), side = image.shape[:2], sprite.shape[0]
    x1, y1, x2, y2 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    if x1 >= x2 or y1 >= y2:
        return
    part = sprite[y1 - top : y2 - top, x1 - left : x2 - left].astype(np.float32)
    alpha = part[..., 3:] / 255
    image[y1:y2, x1:x2] = (alpha * part[..., :3] + (1 - alpha) * image[y1:y2, x1:x2]).round()
