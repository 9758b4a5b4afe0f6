"""The whole way on real clips: who is there, what is written, and that all outputs say the same."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from fer_stream import FileSettings, analyze
from fer_stream.api import Analysis
from fer_stream.config.settings import DetectorSettings
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.records import LABELS, UNKNOWN

DETECTORS = ("yunet", "blazeface")

# Per clip: persons, frames, and the bounds on what labels may do: the least share of a person's time that has a
# label other than `unknown`, and the most changes of label a minute.
CLIPS = {
    "one_face_crying": (1, 472, 0.8, 20),
    "one_face_smile": (1, 72, 0.9, 40),
    # One of the two turns from neutral to sad; in between few people would call it either: unclear.
    "two_faces": (2, 56, 0.4, 30),
    "three_faces": (3, 41, 0.9, 40),
    "leave_and_return": (2, 383, 0.9, 40),
    "no_face": (0, 95, 0.0, 0),
}


@pytest.fixture(scope="module", params=DETECTORS)
def engine(request: pytest.FixtureRequest, yunet_weights: Path) -> FileProcessor:
    weights = yunet_weights if request.param == "yunet" else None
    return FileProcessor(FileSettings(detector=DetectorSettings(type=request.param, weights=weights)))


def look(engine: FileProcessor, clip: Path) -> Analysis:
    return analyze(clip, engine.settings)


@pytest.mark.parametrize("name", CLIPS)
def test_the_right_number_of_people_with_labels_that_hold(engine: FileProcessor, clips: Path, name: str) -> None:
    people, frames, least_labelled, most_changes = CLIPS[name]
    analysis = look(engine, clips / f"{name}.mp4")
    assert len(analysis.timelines) == people
    assert [frame.index for frame in analysis.frames] == list(range(frames))
    for person in analysis.summary.people:
        length_s = sum(segment.end_s - segment.start_s for segment in person.segments)
        labelled = 1 - person.shares.get(UNKNOWN, 0.0)
        changes = 60 * (len(person.segments) - 1) / length_s
        print(
            f"{name} person {person.person_id}: labelled {labelled:.0%} of {length_s:.1f} s, {changes:.1f} changes/min"
        )
        assert labelled >= least_labelled
        assert changes <= most_changes


def test_looking_less_often_tells_the_same_of_the_same_people(engine: FileProcessor, clips: Path) -> None:
    """The bound is that of issue 7; boxes jittered by 1 % agree no better (docs/evidence/parameters.md)."""
    thorough = {"detector.interval_s": 0, "model.interval_s": 0}
    same = faces = 0
    for clip in sorted(clips.glob("*.mp4")):
        often = rows(analyze(clip, engine.settings.with_values(thorough)))
        usual = rows(look(engine, clip))
        assert {track for _, track in usual} == {track for _, track in often}, clip.name
        same += sum(usual.get(key) == label for key, label in often.items())
        faces += len(usual.keys() | often.keys())
    assert same >= 0.98 * faces


def rows(analysis: Analysis) -> dict[tuple[int, int], str]:
    """The label of every person in every frame."""
    return {(frame.index, face.person_id): face.label for frame in analysis.frames for face in frame.faces}


def test_one_person_before_the_cut_and_one_after(engine: FileProcessor, clips: Path) -> None:
    before, after = look(engine, clips / "leave_and_return.mp4").timelines
    assert before.time_s[-1] < 2.5
    assert after.time_s[0] > 10


def test_faces_too_small_to_judge_are_people_whose_emotion_is_unknown(engine: FileProcessor, clips: Path) -> None:
    analysis = look(engine, clips / "small_faces.mp4")
    judged = {face.person_id for frame in analysis.frames for face in frame.faces if face.quality.ok}
    assert analysis.timelines
    assert len(judged) <= 1, "BlazeFace finds one of 26 px, which is enough"
    for person in analysis.summary.people:
        assert person.person_id in judged or person.shares == {UNKNOWN: 1.0}


def test_a_clip_of_backs_gives_few_people_and_no_forced_label(engine: FileProcessor, clips: Path) -> None:
    analysis = look(engine, clips / "long_mostly_no_face.mp4")
    assert len(analysis.frames) == 1394
    empty = sum(not frame.faces for frame in analysis.frames)
    assert empty > 0.8 * 1394


def test_faces_in_the_same_place_on_both_sides_of_a_join_are_two_people(
    engine: FileProcessor, clips: Path, tmp_path: Path
) -> None:
    joined = tmp_path / "joined.mp4"
    join(clips / "one_face_crying.mp4", clips / "one_face_smile.mp4", joined)
    first, second = look(engine, joined).timelines
    boxes = {face.person_id: face.xyxy for frame in analyze(joined, engine.settings).frames for face in frame.faces}
    assert first.frame_index[-1] < second.frame_index[0]
    assert set(boxes) == {1, 2}


@pytest.mark.parametrize("fps", [0.5, 1.0, 5.0])
def test_a_lower_rate_tells_the_same_story(engine: FileProcessor, clips: Path, fps: float) -> None:
    analysis = analyze(clips / "one_face_crying.mp4", engine.settings.with_values({"fps": fps}))
    (person,) = analysis.summary.people
    assert len(analysis.frames) == pytest.approx(19.7 * fps, abs=1)
    assert next(iter(person.shares)) == "happy"
    assert sum(segment.end_s - segment.start_s for segment in person.segments) == pytest.approx(19.7, abs=1 / fps)


def join(first: Path, second: Path, target: Path) -> None:
    """The last second of one clip and the first of another, with the second's face moved to where the first's was."""
    a, b = pictures(first)[-24:], pictures(second)[:24]
    shift = 150  # px: the woman's face is to the right of the man's
    b = [np.roll(picture, shift, axis=1) for picture in b]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for picture in [*a, *b]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())


def pictures(clip: Path) -> list[np.ndarray]:
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_table_timeline_and_arrays_say_the_same(engine: FileProcessor, clips: Path, tmp_path: Path) -> None:
    clip = clips / "one_face_crying.mp4"
    process_file(engine, FileTask(clip, "clip", tmp_path))
    table = pd.read_csv(tmp_path / "clip.frames.csv")
    document = json.loads((tmp_path / "clip.timeline.json").read_text())
    analysis = look(engine, clip)
    timeline, (person,) = analysis.timelines[0], document["people"]
    assert table.frame_index.tolist() == timeline.frame_index.tolist()
    np.testing.assert_allclose(table[list(LABELS)], timeline.probs, atol=1e-4)
    for time_s, label in zip(table.time_s.tolist(), table.label.tolist(), strict=True):
        told = [s["label"] for s in person["segments"] if s["start_s"] <= time_s + 1e-6 < s["end_s"]]
        assert told == [label]
    frame = analysis.to_dataframe()
    assert frame.columns.tolist() == table.columns.tolist()
    assert frame.label.tolist() == table.label.tolist()
