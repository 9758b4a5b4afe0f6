"""Rows of the table: reasons why they cannot be measured, test videos, growth of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.goals import NotMeasurable
from benchmarks.material import clip_frames
from benchmarks.rows import Options, available_cores
from benchmarks.rows.catalogue import ROWS, measure_lines
from benchmarks.rows.memory import hourly_growth_mb
from benchmarks.scenes import MAX_FACES, encode_video, face_grid, frame_rate, resized
from benchmarks.watch import Usage

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", ["file", "file-1080p", "classify", "start", "memory"])
def test_row_without_its_test_material_shows_the_reason(name: str, tmp_path: Path) -> None:
    (line,) = measure_lines(ROWS[name], Options(quick=True, material=tmp_path))
    assert "FER_STREAM_TEST_DATA" in line.unmeasured_reason


def test_too_few_cores_are_reported() -> None:
    with pytest.raises(NotMeasurable, match="needs 100000 cores"):
        available_cores(100_000)


def test_growth_is_scaled_to_the_frames_of_an_hour() -> None:
    usage = [Usage(float(second), "capture", 1, 200.0, 80.0 + 0.01 * second, 9) for second in range(61)]
    # 0.6 MB during 5,400 frames: an hour of a camera has ten times as many.
    assert hourly_growth_mb(usage, frames=5_400) == pytest.approx(6.0)


def test_video_has_the_requested_rate_and_size(tmp_path: Path) -> None:
    ramp = [np.full((64, 96, 3), 12 * index, np.uint8) for index in range(20)]
    encode_video(ramp, tmp_path / "ramp.mp4", 30, as_camera=False)
    encode_video(resized(tmp_path / "ramp.mp4", 15, (48, 32)), tmp_path / "again.mp4", 15, as_camera=True)
    images = list(clip_frames(tmp_path / "again.mp4", every=1))
    assert frame_rate(tmp_path / "again.mp4") == 15
    assert len(images) == 10
    assert images[0].shape == (32, 48, 3)
    assert [float(image.mean()) for image in images] == pytest.approx([24 * index for index in range(10)], abs=10)


def test_face_grid_places_tiles_side_by_side() -> None:
    tiles = [
        [np.full((180, 256, 3), number, np.uint8), np.full((180, 256, 3), 200, np.uint8)]
        for number in range(MAX_FACES)
    ]
    assert face_grid(tiles, 0).shape == (720, 1280, 3)
    assert face_grid(tiles, 0)[::180, ::256, 0].ravel().tolist() == list(range(MAX_FACES))
    assert (face_grid(tiles, 3) == 200).all()
    assert len(np.unique(face_grid(tiles[:1], 0))) == 2


@pytest.mark.parametrize("name", ["benchmarks", "benchmarks.growth", "benchmarks.capacity"])
def test_help_contains_the_command(name: str) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"python -m {name}" in completed.stdout
