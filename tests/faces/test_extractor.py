"""Frames → crops and marks: every frame has its faces, whether the detector looked or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fer_stream import FileSettings, factory
from fer_stream.config import DetectorSettings, TrackerSettings
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.extractor import FaceEvent
from fer_stream.metrics import Metrics
from fer_stream.records import U8, Detections, FaceCrop, FrameHeader, Prediction


class Counted:
    """A detector whose looks are counted."""

    def __init__(self, detector: FaceDetector) -> None:
        self.name = detector.name
        self.looks = 0
        self._detector = detector

    def detect(self, image: U8) -> Detections:
        self.looks += 1
        return self._detector.detect(image)


def follow(clip: Path, weights: Path, look_s: float, classify_s: float, **other: Any) -> tuple[list[FaceEvent], int]:
    """What is told of `clip`, and how often the detector looked."""
    looks = DetectorSettings(type="yunet", weights=weights, interval_s=look_s)
    settings = FileSettings(detector=looks, **other)
    detector = Counted(factory.make_detector(settings.detector))
    source = factory.open_file(clip, name="clip", stream_start_ms=1, fps=settings.fps, threads=1)
    follower = factory.make_extractor(
        source, detector, settings, Metrics(CollectorRegistry()), classify_interval_s=classify_s
    )
    told = [item for frame in source.frames() for item in follower.process(frame)]
    source.close()
    return [*told, *follower.flush()], detector.looks


@pytest.mark.parametrize(("clip", "frames", "faces"), [("one_face_smile", 72, 72), ("three_faces", 41, 123)])
def test_every_frame_has_its_mark_and_every_mark_its_faces(
    clips: Path, yunet_weights: Path, clip: str, frames: int, faces: int
) -> None:
    told, looks = follow(clips / f"{clip}.mp4", yunet_weights, 0.15, 0.08)
    marks = [item for item in told if isinstance(item, FrameHeader)]
    keys = [item.key for item in told if not isinstance(item, FrameHeader)]
    assert [mark.index for mark in marks] == list(range(frames))
    assert sum(mark.faces for mark in marks) == len(keys) == len(set(keys)) == faces
    assert looks < 0.6 * frames


@pytest.mark.parametrize("fps", [None, 7.0])
def test_a_face_that_is_looked_for_seldom_stays_one_person(
    clips: Path, yunet_weights: Path, fps: float | None
) -> None:
    impatient = TrackerSettings(track_timeout_s=0, reassociate_s=0)
    told, _ = follow(clips / "one_face_smile.mp4", yunet_weights, 0.5, 0.08, tracker=impatient, fps=fps)
    assert {item.key.person_id for item in told if not isinstance(item, FrameHeader)} == {1}


def test_a_face_is_a_crop_in_its_turn_and_else_a_prediction_that_says_nothing(
    clips: Path, yunet_weights: Path
) -> None:
    told, _ = follow(clips / "one_face_smile.mp4", yunet_weights, 0.15, 0.08)
    crops = [item.key.frame_index for item in told if isinstance(item, FaceCrop)]
    others = [item for item in told if isinstance(item, Prediction)]
    assert crops == list(range(0, 72, 3)), "at 30 fps every third frame"
    assert len(others) == 48
    assert all(one.probs is None and one.model_id == "" and one.quality.ok for one in others)


def test_at_zero_every_frame_is_looked_at_and_every_face_classified(clips: Path, yunet_weights: Path) -> None:
    told, looks = follow(clips / "one_face_smile.mp4", yunet_weights, 0, 0)
    assert looks == 72
    assert sum(isinstance(item, FaceCrop) for item in told) == 72
