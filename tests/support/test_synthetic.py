"""The made-up camera: what it says of itself is what detectors see."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fer_stream.config import DetectorSettings
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


def test_detectors_see_who_is_there_and_where(heads: Path, detector: FaceDetector) -> None:
    made = scene(heads)
    seen = 0
    for time_s in np.arange(0.0, LENGTH_S, 0.5).tolist():
        there = made.sightings(time_s)
        if any(not 0 <= float(head.xyxy[1]) <= float(head.xyxy[3]) <= made.height for head in there):
            continue  # somebody is walking in or out
        found = detector.detect(made.image(time_s)).xyxy
        assert len(found) == len(there), time_s
        centres = sorted(((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in found.tolist())
        for (x, y), head in zip(centres, sorted(there, key=lambda one: float(one.xyxy[0])), strict=True):
            x1, y1, x2, y2 = head.xyxy.tolist()
            assert x1 < x < x2
            assert y1 < y < y2
        seen += len(there)
    assert seen > 50


def test_each_picture_is_shown_when_the_truth_says_so(heads: Path) -> None:
    made = scene(heads)
    for visit in made.visits:
        assert visit.shown[0].start_s == visit.start_s
        assert visit.shown[-1].end_s == visit.end_s
        assert all(one.end_s == after.start_s for one, after in pairwise(visit.shown))
        assert {one.picture for one in visit.shown} == {"bright", "dark"}
        for shown in visit.shown:
            (head,) = (one for one in made.sightings(shown.start_s) if one.person == visit.person)
            assert head.picture == shown.picture
    first = made.visits[0].shown[0]
    light = {shown.picture: light_of(made, shown.end_s - 0.1) for shown in made.visits[0].shown}
    assert first.picture in light
    assert light["bright"] > light["dark"] + 10


def light_of(made: Scene, time_s: float) -> float:
    x1, y1, x2, y2 = (round(float(edge)) for edge in made.sightings(time_s)[0].xyxy)
    return float(made.image(time_s)[max(0, y1) : y2, x1:x2].mean())


def test_people_leave_and_return_one_at_a_place(heads: Path) -> None:
    made = scene(heads)
    for person in ("left", "right"):
        mine = [visit for visit in made.visits if visit.person == person]
        assert len(mine) >= 2
        assert all(after.start_s - before.end_s >= 6 for before, after in pairwise(mine))
        assert mine[-1].end_s <= LENGTH_S - 6
    both = next(made.sightings(t) for t in np.arange(0, LENGTH_S, 0.1).tolist() if len(made.sightings(t)) == 2)
    one, other = sorted((head.xyxy.tolist() for head in both), key=lambda xyxy: float(xyxy[0]))
    assert one[2] < other[0]


def test_the_seed_decides_everything(heads: Path) -> None:
    one, same, other = scene(heads), scene(heads), scene(heads, seed=4)
    assert one.visits == same.visits != other.visits
    assert np.array_equal(one.image(12.0), same.image(12.0))
    assert not np.array_equal(one.image(0.0), other.image(0.0))


@pytest.mark.parametrize(("width", "height", "fps"), [(640, 360, 15.0), (320, 240, 7.5), (1280, 720, 30.0)])
def test_a_source_of_any_size_and_rate(heads: Path, width: int, height: int, fps: float) -> None:
    made = Scene(heads, seed=1, width=width, height=height, duration_s=3)
    source = SyntheticSource(made, name="made-up", stream_start_ms=5, fps=fps, clock=lambda: 7.0)
    frames = list(source.frames())
    assert [frame.time_s for frame in frames] == [index / fps for index in range(int(3 * fps))]
    assert {(frame.stream_id, frame.captured_at, frame.image.shape) for frame in frames} == {
        ("made-up@5", 7.0, (height, width, 3))
    }
    assert (source.info.fps, source.info.frames, source.info.duration_s) == (fps, len(frames), 3)
    source.close()
    assert list(source.frames()) == []


def test_pictures_that_are_missing_or_none(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="pictures of 0 people, 2 are wanted"):
        Scene(tmp_path, seed=1)
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "happy.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableSource, match=r"happy\.png"):
        Scene(tmp_path, seed=1, people=1)
