"""Ground truth of synthetic scenes agrees with face detectors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fer_stream.config.settings import DetectorSettings
from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.faces.detector import FaceDetector
from fer_stream.factory import make_detector
from tests.support.synthetic import Scene, SyntheticSource

LENGTH_S = 60.0


@pytest.fixture(scope="module", params=["yunet", "blazeface"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param == "yunet":
        weights = request.getfixturevalue("yunet_weights")
        return make_detector(DetectorSettings(type="yunet", weights=weights))
    return make_detector(DetectorSettings(type="blazeface"))


def scene(heads: Path, **options: int) -> Scene:
    return Scene(heads, **{"seed": 3, **options})


def test_detectors_find_the_heads_of_the_ground_truth(heads: Path, detector: FaceDetector) -> None:
    made = scene(heads)
    seen = 0
    for time_s in np.arange(0.0, LENGTH_S, 0.5).tolist():
        expected = made.heads_at(time_s)
        if any(not 0 <= float(head.xyxy[1]) <= float(head.xyxy[3]) <= made.height for head in expected):
            continue  # a head enters or leaves
        found = detector.detect(made.image(time_s)).xyxy
        assert len(found) == len(expected), time_s
        centres = sorted(((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in found.tolist())
        for (x, y), head in zip(centres, sorted(expected, key=lambda one: float(one.xyxy[0])), strict=True):
            x1, y1, x2, y2 = head.xyxy.tolist()
            assert x1 < x < x2
            assert y1 < y < y2
        seen += len(expected)
    assert seen > 50


def test_sprites_are_drawn_in_their_intervals(heads: Path) -> None:
    made = scene(heads)
    for visit in made.visits:
        assert visit.intervals[0].start_s == visit.start_s
        assert visit.intervals[-1].end_s == visit.end_s
        assert all(one.end_s == after.start_s for one, after in pairwise(visit.intervals))
        assert {one.sprite for one in visit.intervals} == {"bright", "dark"}
        for interval in visit.intervals:
            (head,) = (one for one in made.heads_at(interval.start_s) if one.person == visit.person)
            assert head.sprite == interval.sprite
    first = made.visits[0].intervals[0]
    brightness = {
        interval.sprite: mean_brightness(made, interval.end_s - 0.1) for interval in made.visits[0].intervals
    }
    assert first.sprite in brightness
    assert brightness["bright"] > brightness["dark"] + 10


def mean_brightness(made: Scene, time_s: float) -> float:
    x1, y1, x2, y2 = (round(float(edge)) for edge in made.heads_at(time_s)[0].xyxy)
    return float(made.image(time_s)[max(0, y1) : y2, x1:x2].mean())


def test_people_leave_and_return_in_separate_lanes(heads: Path) -> None:
    made = scene(heads)
    for person in ("left", "right"):
        visits = [visit for visit in made.visits if visit.person == person]
        assert len(visits) >= 2
        assert all(after.start_s - before.end_s >= 6 for before, after in pairwise(visits))
        assert visits[-1].end_s <= LENGTH_S - 6
    both = next(made.heads_at(t) for t in np.arange(0, LENGTH_S, 0.1).tolist() if len(made.heads_at(t)) == 2)
    one, other = sorted((head.xyxy.tolist() for head in both), key=lambda xyxy: float(xyxy[0]))
    assert one[2] < other[0]


def test_scene_is_determined_by_its_seed(heads: Path) -> None:
    one, same, other = scene(heads), scene(heads), scene(heads, seed=4)
    assert one.visits == same.visits != other.visits
    assert np.array_equal(one.image(12.0), same.image(12.0))
    assert not np.array_equal(one.image(0.0), other.image(0.0))


@pytest.mark.parametrize(("width", "height", "fps"), [(640, 360, 15.0), (320, 240, 7.5), (1280, 720, 30.0)])
def test_source_of_any_size_and_rate(heads: Path, width: int, height: int, fps: float) -> None:
    made = Scene(heads, seed=1, width=width, height=height, duration_s=3)
    source = SyntheticSource(made, name="synthetic", stream_start_ms=5, fps=fps, clock=lambda: 7.0)
    frames = list(source.frames())
    assert [frame.time_s for frame in frames] == [index / fps for index in range(int(3 * fps))]
    assert {(frame.stream_id, frame.captured_at, frame.image.shape) for frame in frames} == {
        ("synthetic@5", 7.0, (height, width, 3))
    }
    assert (source.info.fps, source.info.frames, source.info.duration_s) == (fps, len(frames), 3)
    source.close()
    assert list(source.frames()) == []


def test_missing_or_invalid_sprites_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="sprites of 0 people, but 2 are required"):
        Scene(tmp_path, seed=1)
    (tmp_path / "person").mkdir()
    (tmp_path / "person" / "happy.png").write_bytes(b"text")
    with pytest.raises(UnreadableSource, match=r"happy\.png"):
        Scene(tmp_path, seed=1, people=1)
