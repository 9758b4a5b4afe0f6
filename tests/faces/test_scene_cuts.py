"""Hard cuts against motion, on real clips."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from fer_stream.capture.file import VideoFileSource
from fer_stream.faces.scene_cuts import SceneCutDetector
from fer_stream.records import U8

SHOTS = ("one_face_crying", "one_face_smile", "two_faces", "three_faces", "small_faces", "no_face")


def pictures(clip: Path, step: int = 1) -> list[U8]:
    source = VideoFileSource(clip, name="clip", stream_start_ms=1)
    grays = [frame.pixels.gray() for frame in source.frames()]
    source.close()
    return grays[::step]


def cuts(images: list[U8]) -> list[int]:
    detector = SceneCutDetector()
    return [index for index, image in enumerate(images) if detector.is_cut(image)]


@pytest.mark.parametrize("name", SHOTS)
def test_one_shot_has_no_cut(clips: Path, name: str) -> None:
    assert cuts(pictures(clips / f"{name}.mp4")) == []


def test_a_slow_look_at_people_walking_sees_no_cut(clips: Path) -> None:
    assert cuts(pictures(clips / "long_mostly_no_face.mp4", step=5)) == []


def test_every_join_of_two_shots_is_a_cut(clips: Path) -> None:
    ends = {name: pictures(clips / f"{name}.mp4")[-1] for name in SHOTS}
    starts = {name: pictures(clips / f"{name}.mp4")[0] for name in SHOTS}
    for a, b in combinations(SHOTS, 2):
        assert cuts([ends[a], ends[a], starts[b], starts[b]]) == [2], f"{a} | {b}"


def test_a_light_switched_on_is_no_cut(clips: Path) -> None:
    image = pictures(clips / "two_faces.mp4")[0]
    brighter = np.clip(image.astype(int) + 60, 0, 255).astype(np.uint8)
    assert cuts([image, image, brighter, brighter]) == []


def test_the_smallest_picture() -> None:
    assert cuts([np.zeros((1, 1), np.uint8)] * 3) == []
