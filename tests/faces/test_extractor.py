"""Frames → crops and headers, in frames with and without detection."""

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
    source = factory.open_file(clip, name="clip", stream_start_ms=1, fps=settings.fps, threads=1)
    extractor = factory.make_extractor(
        source, detector, settings, Metrics(CollectorRegistry()), classify_interval_s=classify_s
    )
    events = [item for frame in source.frames() for item in extractor.process(frame)]
    source.close()
    return [*events, *extractor.flush()], detector.calls


@pytest.mark.parametrize(("clip", "frames", "faces"), [("one_face_smile", 72, 72), ("three_faces", 41, 123)])
def test_every_frame_has_a_header_with_its_number_of_faces(
    clips: Path, yunet_weights: Path, clip: str, frames: int, faces: int
) -> None:
    events, detections = extract(clips / f"{clip}.mp4", yunet_weights, 0.15, 0.08)
    headers = [item for item in events if isinstance(item, FrameHeader)]
    keys = [item.key for item in events if not isinstance(item, FrameHeader)]
    assert [header.index for header in headers] == list(range(frames))
    assert sum(header.faces for header in headers) == len(keys) == len(set(keys)) == faces
    assert detections < 0.6 * frames


@pytest.mark.parametrize("fps", [None, 7.0])
def test_a_face_keeps_its_id_with_rare_detections(clips: Path, yunet_weights: Path, fps: float | None) -> None:
    no_timeout = TrackerSettings(track_timeout_s=0, reassociate_s=0)
    events, _ = extract(clips / "one_face_smile.mp4", yunet_weights, 0.5, 0.08, tracker=no_timeout, fps=fps)
    assert {item.key.person_id for item in events if not isinstance(item, FrameHeader)} == {1}


def test_faces_between_classifications_are_predictions_without_probabilities(
    clips: Path, yunet_weights: Path
) -> None:
    events, _ = extract(clips / "one_face_smile.mp4", yunet_weights, 0.15, 0.08)
    crops = [item.key.frame_index for item in events if isinstance(item, FaceCrop)]
    others = [item for item in events if isinstance(item, Prediction)]
    assert crops == list(range(0, 72, 3)), "every third frame at 30 fps"
    assert len(others) == 48
    assert all(one.probs is None and one.model_id == "" and one.quality.ok for one in others)


def test_intervals_of_0_detect_in_every_frame_and_classify_every_face(clips: Path, yunet_weights: Path) -> None:
    events, detections = extract(clips / "one_face_smile.mp4", yunet_weights, 0, 0)
    assert detections == 72
    assert sum(isinstance(item, FaceCrop) for item in events) == 72
