"""Hard cuts and motion in the test clips."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from fer_stream.capture.file import VideoFileSource
from fer_stream.faces.identity import SceneCutDetector
from fer_stream.records import U8

SHOTS = ("one_face_crying", "one_face_smile", "two_faces", "three_faces", "small_faces", "no_face")


def gray_frames(clip: Path, step: int = 1) -> list[U8]:
    source = VideoFileSource(clip, name="clip", stream_start_ms=1)
    grays = [frame.pixels.gray() for frame in source.frames()]
    source.close()
    return grays[::step]


def cuts(frames: list[U8]) -> list[int]:
    detector = SceneCutDetector()
    return [index for index, gray in enumerate(frames) if detector.is_cut(gray)]


@pytest.mark.parametrize("name", SHOTS)
def test_a_single_shot_has_no_cut(clips: Path, name: str) -> None:
    assert cuts(gray_frames(clips / f"{name}.mp4")) == []


def test_walking_people_at_a_low_frame_rate_are_not_a_cut(clips: Path) -> None:
    assert cuts(gray_frames(clips / "long_mostly_no_face.mp4", step=5)) == []


def test_every_transition_between_two_shots_is_a_cut(clips: Path) -> None:
    ends = {name: gray_frames(clips / f"{name}.mp4")[-1] for name in SHOTS}
    starts = {name: gray_frames(clips / f"{name}.mp4")[0] for name in SHOTS}
    for a, b in combinations(SHOTS, 2):
        assert cuts([ends[a], ends[a], starts[b], starts[b]]) == [2], f"{a} | {b}"


def test_a_change_of_brightness_is_not_a_cut(clips: Path) -> None:
    gray = gray_frames(clips / "two_faces.mp4")[0]
    brighter = np.clip(gray.astype(int) + 60, 0, 255).astype(np.uint8)
    assert cuts([gray, gray, brighter, brighter]) == []


def test_a_frame_of_one_pixel_is_accepted() -> None:
    assert cuts([np.zeros((1, 1), np.uint8)] * 3) == []
