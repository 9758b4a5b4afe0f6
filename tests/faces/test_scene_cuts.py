"""Hard cuts, dissolves, fades and flashes, and motion and light that are none of these, in the test clips."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_stream.capture.file import VideoFileSource
from fer_stream.faces.scene_cuts import SceneChange, SceneCutDetector
from fer_stream.records import U8

SHOTS = ("one_face_crying", "one_face_smile", "two_faces", "three_faces", "small_faces", "no_face")
FPS = 25.0
Edit = Callable[[U8], U8]


def gray_frames(clip: Path, step: int = 1) -> list[U8]:
    source = VideoFileSource(clip, name="clip", stream_start_ms=1)
    grays = [frame.pixels.gray() for frame in source.frames()]
    source.close()
    return grays[::step]


def changes(frames: Sequence[U8], fps: float = FPS) -> list[SceneChange]:
    detector = SceneCutDetector()
    return [detector.update(gray, index / fps) for index, gray in enumerate(frames)]


def cuts(frames: Sequence[U8], fps: float = FPS) -> list[int]:
    return [index for index, change in enumerate(changes(frames, fps)) if change is SceneChange.CUT]


def blend(a: U8, b: U8, share: float) -> U8:
    """Return the mixture of two frames with this share of `b`."""
    return cv2.addWeighted(a, 1 - share, b, share, 0).astype(np.uint8, copy=False)


def linear(gain: float, offset: float) -> Edit:
    """Return a change of contrast and brightness."""
    return lambda gray: np.clip(gray.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def man(clips: Path) -> list[U8]:
    return gray_frames(clips / "one_face_smile.mp4")


@pytest.fixture(scope="module")
def woman(clips: Path) -> list[U8]:
    return gray_frames(clips / "one_face_crying.mp4")[:72]


# --- cuts ---


@pytest.mark.parametrize("edit", [linear(1, 0), linear(0.25, 0), linear(0.25, 90), linear(0.55, 27)])
def test_every_transition_between_two_shots_is_a_cut_at_any_contrast(clips: Path, edit: Edit) -> None:
    ends = {name: edit(gray_frames(clips / f"{name}.mp4")[-1]) for name in SHOTS}
    starts = {name: edit(gray_frames(clips / f"{name}.mp4")[0]) for name in SHOTS}
    for a, b in combinations(SHOTS, 2):
        assert cuts([ends[a], ends[a], starts[b], starts[b]]) == [2], f"{a} | {b}"


def test_cuts_of_an_evening_scene_are_found(clips: Path, tmp_path: Path) -> None:
    shots, look = [], "fps=25,scale=640:360,setsar=1,eq=contrast=0.55:brightness=-0.12"
    for name in ("one_face_smile", "one_face_crying"):
        shots += ["-t", "2", "-i", str(clips / f"{name}.mp4")]
    graph = f"[0]{look},split[a][c];[1]{look},split[b][d];[a][b][c][d]concat=n=4[out]"
    path = tmp_path / "evening.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", *shots, "-filter_complex", graph, "-map", "[out]", "-an", str(path)], check=True
    )
    assert cuts(gray_frames(path)) == [50, 100, 150]


def test_cuts_in_short_succession_are_found(man: list[U8], woman: list[U8]) -> None:
    shots = [man[:10], woman[:10]] * 3
    assert cuts([gray for shot in shots for gray in shot]) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("frames", [6, 12, 25])
@pytest.mark.parametrize("edit", [linear(1, 0), linear(0.3, 10)])
def test_a_dissolve_is_a_cut_by_half_a_second_after_its_end(
    man: list[U8], woman: list[U8], frames: int, edit: Edit
) -> None:
    mixed = [blend(man[20 + n], woman[n], (n + 1) / (frames + 1)) for n in range(frames)]
    found = cuts([edit(gray) for gray in [*man[:20], *mixed, *woman[frames:72]]])
    assert found
    assert all(20 <= index <= 20 + frames + FPS / 2 for index in found)
    assert len(found) <= 2


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("same", [True, False])
def test_a_fade_is_a_cut_if_another_shot_follows(man: list[U8], woman: list[U8], level: int, same: bool) -> None:
    blank = np.full_like(man[0], level)
    after = man[30:] if same else woman
    out = [blend(man[10 + n], blank, n / 12) for n in range(13)]
    back = [blend(blank, after[n], n / 12) for n in range(13)]
    found = cuts([*man[:10], *out, blank, blank, blank, *back, *after[13:40]])
    assert len(found) == (0 if same else 1)


# --- no cuts ---


@pytest.mark.parametrize("name", SHOTS)
def test_a_single_shot_has_no_cut(clips: Path, name: str) -> None:
    assert cuts(gray_frames(clips / f"{name}.mp4")) == []


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0])
def test_motion_between_frames_far_apart_is_not_a_cut(clips: Path, fps: float) -> None:
    assert cuts(gray_frames(clips / "one_face_crying.mp4", step=round(24 / fps)), fps) == []


@pytest.mark.parametrize("fps", [0.5, 2.0])
def test_cuts_between_frames_far_apart_are_found(man: list[U8], woman: list[U8], fps: float) -> None:
    assert cuts([*man[::24], *woman[::24], *man[::24]], fps) == [3, 6]


def test_walking_people_at_a_low_frame_rate_are_not_a_cut(clips: Path) -> None:
    assert cuts(gray_frames(clips / "long_mostly_no_face.mp4", step=5), fps=2) == []


@pytest.mark.parametrize("edit", [linear(1, 60), linear(0.3, 0), linear(0.3, 150)])
def test_a_change_of_light_is_not_a_cut(man: list[U8], edit: Edit) -> None:
    assert cuts([*man[:20], *map(edit, man[20:40]), *man[40:]]) == []


@pytest.mark.parametrize("frames", [1, 3])
def test_the_scene_continues_after_a_flash(man: list[U8], woman: list[U8], frames: int) -> None:
    # A flash changes the picture as much as a cut does.
    found = changes([*man[:20], *woman[:frames], *man[20:]])
    assert {index: change for index, change in enumerate(found) if change is not SceneChange.NONE} == {
        20: SceneChange.CUT, 20 + frames: SceneChange.FLASH_END,
    }  # fmt: skip


def test_a_short_shot_is_not_a_flash(man: list[U8], woman: list[U8]) -> None:
    assert cuts([*man[:20], *woman[:7], *man[20:]]) == [20, 27]


@pytest.mark.parametrize("speed", [0.2, 0.5])
def test_a_panning_camera_is_not_a_cut(clips: Path, speed: float) -> None:
    wide = cv2.resize(gray_frames(clips / "three_faces.mp4")[0], (1920, 1080))
    lefts = np.minimum(0.5 * speed * 640 / FPS * np.arange(40) ** 2 / 40, 1280).astype(int)
    assert cuts([np.ascontiguousarray(wide[300:660, left : left + 640]).astype(np.uint8) for left in lefts]) == []


def test_a_shaking_camera_is_not_a_cut_in_every_frame(man: list[U8]) -> None:
    random = np.random.default_rng(0)
    moved = [np.roll(gray, random.integers(-60, 60, 2), axis=(0, 1)) for gray in man]
    assert len(cuts(moved)) <= 3


@pytest.mark.parametrize("level", [0, 255])
def test_blank_frames_and_noise_in_them_are_not_cuts(level: int) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, (40, 180, 320))
    assert cuts([np.clip(level + one, 0, 255).astype(np.uint8) for one in noise]) == []


def test_a_frame_of_one_pixel_is_accepted() -> None:
    assert cuts([np.zeros((1, 1), np.uint8)] * 3) == []
