"""Analysis of real clips: number of people, stability of labels, and agreement of all outputs."""

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

# Per clip: people, frames, minimum share of a person's time with a label other than `unknown`, and maximum number of
# label changes per minute.
CLIPS = {
    "one_face_crying": (1, 472, 0.8, 20),
    "one_face_smile": (1, 72, 0.9, 40),
    # One of the two changes from neutral to sad; raters would disagree on the frames in between: unclear.
    "two_faces": (2, 56, 0.4, 30),
    "three_faces": (3, 41, 0.9, 40),
    "leave_and_return": (2, 383, 0.9, 40),
    "no_face": (0, 95, 0.0, 0),
}


@pytest.fixture(scope="module", params=DETECTORS)
def processor(request: pytest.FixtureRequest, yunet_weights: Path) -> FileProcessor:
    weights = yunet_weights if request.param == "yunet" else None
    return FileProcessor(FileSettings(detector=DetectorSettings(type=request.param, weights=weights)))


@pytest.mark.parametrize("name", CLIPS)
def test_number_of_people_is_right_and_labels_are_stable(processor: FileProcessor, clips: Path, name: str) -> None:
    people, frames, min_labelled, max_changes = CLIPS[name]
    analysis = analyze(clips / f"{name}.mp4", processor.settings)
    assert len(analysis.timelines) == people
    assert [frame.index for frame in analysis.frames] == list(range(frames))
    for person in analysis.summary.people:
        duration_s = sum(segment.end_s - segment.start_s for segment in person.segments)
        labelled = 1 - person.shares.get(UNKNOWN, 0.0)
        changes = 60 * (len(person.segments) - 1) / duration_s
        print(f"person {person.person_id}: labelled {labelled:.0%} of {duration_s:.1f} s, {changes:.1f} changes/min")
        assert labelled >= min_labelled
        assert changes <= max_changes


def test_default_intervals_give_the_labels_of_every_frame(processor: FileProcessor, clips: Path) -> None:
    """95.7 % were measured with YuNet and `vgg-s-agreed-1` (docs/evidence/parameters.md)."""
    every_frame = {"detector.interval_s": 0, "model.interval_s": 0}
    same = faces = 0
    for clip in sorted(clips.glob("*.mp4")):
        expected = labels(analyze(clip, processor.settings.with_values(every_frame)))
        actual = labels(analyze(clip, processor.settings))
        assert {person_id for _, person_id in actual} == {person_id for _, person_id in expected}, clip.name
        same += sum(actual.get(key) == label for key, label in expected.items())
        faces += len(actual.keys() | expected.keys())
    assert same >= 0.95 * faces


def labels(analysis: Analysis) -> dict[tuple[int, int], str]:
    """Return labels by frame index and person_id."""
    return {(frame.index, face.person_id): face.label for frame in analysis.frames for face in frame.faces}


def test_people_before_and_after_a_scene_cut_are_different(processor: FileProcessor, clips: Path) -> None:
    before, after = analyze(clips / "leave_and_return.mp4", processor.settings).timelines
    assert before.time_s[-1] < 2.5
    assert after.time_s[0] > 10


def test_small_faces_are_people_with_unknown_emotion(processor: FileProcessor, clips: Path) -> None:
    analysis = analyze(clips / "small_faces.mp4", processor.settings)
    classified = {face.person_id for frame in analysis.frames for face in frame.faces if face.quality.ok}
    assert analysis.timelines
    assert len(classified) <= 1, "BlazeFace finds one of 26 px, which is large enough"
    for person in analysis.summary.people:
        assert person.person_id in classified or person.shares == {UNKNOWN: 1.0}


def test_clip_without_visible_faces_has_mostly_empty_frames(processor: FileProcessor, clips: Path) -> None:
    analysis = analyze(clips / "long_mostly_no_face.mp4", processor.settings)
    assert len(analysis.frames) == 1394
    empty = sum(not frame.faces for frame in analysis.frames)
    assert empty > 0.8 * 1394


def test_faces_in_the_same_place_before_and_after_a_cut_are_two_people(
    processor: FileProcessor, clips: Path, tmp_path: Path
) -> None:
    joined = tmp_path / "joined.mp4"
    join(clips / "one_face_crying.mp4", clips / "one_face_smile.mp4", joined)
    first, second = analyze(joined, processor.settings).timelines
    assert first.frame_index[-1] < second.frame_index[0]
    assert {first.person_id, second.person_id} == {1, 2}


@pytest.mark.parametrize("fps", [0.5, 1.0, 5.0])
def test_lower_frame_rate_gives_the_same_dominant_emotion(processor: FileProcessor, clips: Path, fps: float) -> None:
    analysis = analyze(clips / "one_face_crying.mp4", processor.settings.with_values({"fps": fps}))
    (person,) = analysis.summary.people
    assert len(analysis.frames) == pytest.approx(19.7 * fps, abs=1)
    assert next(iter(person.shares)) == "happy"
    assert sum(segment.end_s - segment.start_s for segment in person.segments) == pytest.approx(19.7, abs=1 / fps)


def join(first: Path, second: Path, target: Path) -> None:
    """Write the last second of `first` and the first of `second`, whose face is moved to the place of the other."""
    before, after = read_frames(first)[-24:], read_frames(second)[:24]
    offset_px = 150  # the woman's face is to the right of the man's
    after = [np.roll(frame, offset_px, axis=1) for frame in after]
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for frame in [*before, *after]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


def read_frames(clip: Path) -> list[np.ndarray]:
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_table_timeline_and_arrays_agree(processor: FileProcessor, clips: Path, tmp_path: Path) -> None:
    clip = clips / "one_face_crying.mp4"
    process_file(processor, FileTask(clip, "clip", tmp_path))
    table = pd.read_csv(tmp_path / "clip.frames.csv")
    document = json.loads((tmp_path / "clip.timeline.json").read_text())
    analysis = analyze(clip, processor.settings)
    timeline, (person,) = analysis.timelines[0], document["people"]
    assert table.frame_index.tolist() == timeline.frame_index.tolist()
    np.testing.assert_allclose(table[list(LABELS)], timeline.probs, atol=1e-4)
    for time_s, label in zip(table.time_s.tolist(), table.label.tolist(), strict=True):
        segments = [s["label"] for s in person["segments"] if s["start_s"] <= time_s + 1e-6 < s["end_s"]]
        assert segments == [label]
    frame = analysis.to_dataframe()
    assert frame.columns.tolist() == table.columns.tolist()
    assert frame.label.tolist() == table.label.tolist()
