"""Frames → crops and headers, in frames with and without detection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fer_stream import FileSettings, factory
from fer_stream.capture.source import ReadOptions
from fer_stream.config.settings import DetectorSettings, TrackerSettings
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.extractor import ClassificationSampler, FaceEvent
from fer_stream.metrics import Metrics
from fer_stream.records import U8, Detections, Face, FaceCrop, FrameHeader


class CountingDetector:
    """Counts the calls of a detector."""

    def __init__(self, detector: FaceDetector) -> None:
        self.spec = detector.spec
        self.calls = 0
        self._detector = detector

    def detect(self, image: U8) -> Detections:
        self.calls += 1
        return self._detector.detect(image)


def extract(
    clip: Path, weights: Path, detect_s: float, classify_s: float, **other: Any
) -> tuple[list[FaceEvent], int]:
    """Return the events of `clip`, and the number of detections, at these intervals."""
    detection = DetectorSettings(type="yunet", weights=weights, interval_s=detect_s)
    settings = FileSettings(detector=detection, **other)
    detector = CountingDetector(factory.make_detector(settings.detector))
    source = factory.open_file(clip, name="clip", stream_start_ms=1, options=ReadOptions(settings.fps), threads=1)
    extractor = factory.make_extractor(
        source, detector, settings, Metrics(CollectorRegistry()), classify_interval_s=classify_s
    )
    events = [item for frame in source.frames() for item in extractor.process(frame)]
    source.close()
    return [*events, *extractor.flush()], detector.calls


def faces_of(events: list[FaceEvent]) -> list[Face]:
    """Return all faces of `events`, classified or not."""
    return [item.face if isinstance(item, FaceCrop) else item for item in events if not isinstance(item, FrameHeader)]


@pytest.mark.parametrize(("clip", "frames", "faces"), [("one_face_smile", 72, 72), ("three_faces", 41, 123)])
def test_every_frame_has_a_header_with_its_number_of_faces(
    clips: Path, yunet_weights: Path, clip: str, frames: int, faces: int
) -> None:
    events, detections = extract(clips / f"{clip}.mp4", yunet_weights, 0.15, 0.08)
    headers = [item for item in events if isinstance(item, FrameHeader)]
    keys = [face.key for face in faces_of(events)]
    assert [header.index for header in headers] == list(range(frames))
    assert sum(header.faces for header in headers) == len(keys) == len(set(keys)) == faces
    assert detections < 0.6 * frames


@pytest.mark.parametrize("fps", [None, 7.0])
def test_a_face_keeps_its_id_with_rare_detections(clips: Path, yunet_weights: Path, fps: float | None) -> None:
    no_timeout = TrackerSettings(track_timeout_s=0, reassociate_s=0)
    events, _ = extract(clips / "one_face_smile.mp4", yunet_weights, 0.5, 0.08, tracker=no_timeout, fps=fps)
    assert {face.key.person_id for face in faces_of(events)} == {1}


def test_faces_between_classifications_have_no_crop(clips: Path, yunet_weights: Path) -> None:
    events, _ = extract(clips / "one_face_smile.mp4", yunet_weights, 0.15, 0.08)
    crops = [item.face.key.frame_index for item in events if isinstance(item, FaceCrop)]
    others = [item for item in events if isinstance(item, Face)]
    assert crops == list(range(0, 72, 3)), "every third frame at 30 fps"
    assert len(others) == 48
    assert all(face.quality.ok for face in others)


def test_intervals_of_0_detect_in_every_frame_and_classify_every_face(clips: Path, yunet_weights: Path) -> None:
    events, detections = extract(clips / "one_face_smile.mp4", yunet_weights, 0, 0)
    assert detections == 72
    assert sum(isinstance(item, FaceCrop) for item in events) == 72


# --- selection of the faces that are classified ---

visible_faces = st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=8)


def test_each_person_is_classified_at_the_interval() -> None:
    sampler = ClassificationSampler(0.1)
    selected = [
        (index, person)
        for index in range(8)
        for person in (1, 2)
        if sampler.should_classify(person, index / 24, ok=True)
    ]
    assert selected == [(0, 1), (0, 2), (3, 1), (3, 2), (6, 1), (6, 2)]


def test_an_interval_of_0_classifies_every_face() -> None:
    sampler = ClassificationSampler(0)
    assert all(sampler.should_classify(1, 1.0, ok=True) for _ in range(3))


def test_a_low_quality_face_does_not_use_up_the_interval_of_a_good_one() -> None:
    sampler = ClassificationSampler(0.5)
    assert [sampler.should_classify(1, n / 10, ok=ok) for n, ok in enumerate((False, False, True, True))] == [
        True, False, True, False,
    ]  # fmt: skip


@given(frames=st.lists(visible_faces, max_size=40), interval_s=st.sampled_from([0.0, 0.05, 0.1, 0.4]))
def test_no_person_waits_longer_than_the_interval(frames: list[list[tuple[int, bool]]], interval_s: float) -> None:
    sampler, last = ClassificationSampler(interval_s), dict[tuple[int, bool], float]()
    for index, visible in enumerate(frames):
        time_s = index / 25
        for person, ok in dict(visible).items():
            if sampler.should_classify(person, time_s, ok=ok):
                last[person, False] = time_s
                if ok:
                    last[person, True] = time_s
            assert time_s - last[person, ok] < interval_s + 0.002


def test_every_picture_of_a_slide_show_is_like_a_still_image(
    clips: Path, yunet_weights: Path, tmp_path: Path
) -> None:
    slides = tmp_path / "slides.mkv"
    with av.open(str(slides), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=640, height=360, pix_fmt="yuv420p")
        for name in ("one_face_smile", "no_face", "two_faces"):
            with av.open(str(clips / f"{name}.mp4")) as clip:
                image = next(clip.decode(video=0)).reformat(640, 360, "yuv420p").to_ndarray()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
        container.mux(stream.encode())
    events, _ = extract(slides, yunet_weights, 0.15, 0.08)
    assert [face.key.frame_index for face in faces_of(events)] == [0, 2, 2]
    assert [face.key.person_id for face in faces_of(events)] == [1, 2, 3]


def test_a_single_sampled_frame_has_its_faces(clips: Path, yunet_weights: Path) -> None:
    events, _ = extract(clips / "two_faces.mp4", yunet_weights, 0.15, 0.08, fps=0.05)
    assert [(face.key.frame_index, face.key.person_id) for face in faces_of(events)] == [(0, 1), (0, 2)]
