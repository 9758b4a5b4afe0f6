"""Frame → face crops with person ids, and a header for every frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fer_stream.faces.crop import assess, crop_face
from fer_stream.faces.identity import Backfill, IdentityAssigner, TrackAssignment
from fer_stream.faces.scene_cuts import SceneChange, SceneCutDetector
from fer_stream.records import (
    TIMESTAMP_TOLERANCE_S,
    U8,
    Detections,
    Face,
    FaceCrop,
    FaceKey,
    Frame,
    FrameHeader,
)

if TYPE_CHECKING:
    from fer_stream.config.settings import QualitySettings
    from fer_stream.faces.detection_scheduler import DetectionScheduler
    from fer_stream.faces.detector import FaceDetector
    from fer_stream.metrics import Metrics

FaceEvent = FaceCrop | Face | FrameHeader
"""A face to classify, a face not to classify, or the header of a frame."""


@dataclass(slots=True)
class _LastClassified:
    """Times of a person's last classification, of any face and of a face with sufficient quality."""

    any_s: float
    ok_s: float


class ClassificationSampler:
    """Selects the faces to classify: one of each person every `interval_s`; 0 selects all.

    Emotions last longer than a frame, and the timeline smooths over neighbouring frames: a few classifications per
    person and second give the same labels as all of them.

    Low-quality crops do not use up the interval of a good one, so wherever there are good faces, one is classified.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: dict[int, _LastClassified] = {}

    def should_classify(self, person_id: int, time_s: float, *, ok: bool) -> bool:
        """Return whether to classify this face. `ok` is its `Quality.ok`. Times must not decrease."""
        due_s = time_s + TIMESTAMP_TOLERANCE_S - self._interval_s
        last = self._last.get(person_id) or _LastClassified(-math.inf, -math.inf)
        if (last.ok_s if ok else last.any_s) > due_s:
            return False
        if person_id not in self._last:  # bounds the memory: persons who are due again need no entry
            self._last = {other: times for other, times in self._last.items() if times.any_s > due_s}
        self._last[person_id] = _LastClassified(time_s, time_s if ok else last.ok_s)
        return True


class FaceExtractor:
    """Detects, tracks and crops the faces of one stream.

    `scheduler` selects the frames in which the detector runs, `sampler` the faces that are classified. A face whose
    person id is assigned only in the next frame is held until then, and so is the header of its frame, because it
    contains the number of faces. A face without a person id by then is dropped and counted in `unconfirmed_faces`.
    """

    def __init__(
        self,
        detector: FaceDetector,
        identity: IdentityAssigner,
        quality: QualitySettings,
        metrics: Metrics,
        *,
        scheduler: DetectionScheduler,
        sampler: ClassificationSampler,
    ) -> None:
        self._detector = detector
        self._identity = identity
        self._quality = quality
        self._metrics = metrics
        self._scheduler = scheduler
        self._sampler = sampler
        self._scene_cuts = SceneCutDetector()
        self._pending: _PendingFrame | None = None
        self.unconfirmed_faces = 0

    def process(self, frame: Frame) -> list[FaceEvent]:
        """Return the faces and headers that are complete after `frame`, in order of time."""
        gray = frame.pixels.gray()
        detections, assignment = self._detect_or_propagate(frame, gray)
        with self._metrics.timed("crop"):
            crops = [
                self._crop(frame, gray, detections, row, person_id)
                for row, person_id in enumerate(assignment.person_ids.tolist())
            ]
        assigned = [crop for crop in crops if crop.face.key.person_id >= 0]
        events = [*self._release_pending(assignment.backfills), *map(self._skip_or_keep, assigned)]
        header = FrameHeader(frame.stream_id, frame.index, frame.time_s, len(assigned))
        if len(assigned) == len(crops):
            return [*events, header]
        self._pending = _PendingFrame(header, crops)
        return events

    def flush(self) -> list[FaceEvent]:
        """Return what is pending at the end of the stream."""
        return self._release_pending(self._identity.reset())

    def _detect_or_propagate(self, frame: Frame, gray: U8) -> tuple[Detections, TrackAssignment]:
        """Return the faces of the frame and their person ids, from the detector if detection is due."""
        with self._metrics.timed("track"):
            ended = self._apply(self._scene_cuts.update(gray, frame.time_s))
            propagated = self._scheduler.propagate(gray, frame.time_s)
            if propagated is not None:
                self._identity.propagate(propagated.detections, frame)
                return propagated.detections, TrackAssignment(propagated.person_ids, ended)
        with self._metrics.timed("detect"):
            detections = self._detector.detect(frame.image)
        with self._metrics.timed("track"):
            assignment = self._identity.update(detections, frame)
            self._scheduler.update(gray, frame.time_s, detections, assignment.person_ids)
        return detections, replace(assignment, backfills=ended + assignment.backfills)

    def _apply(self, change: SceneChange) -> tuple[Backfill, ...]:
        """End all tracks at a cut, continue them after a flash; detection is due after both. Return late ids."""
        if change is SceneChange.NONE:
            return ()
        self._scheduler.reset()
        if change is SceneChange.CUT:
            return self._identity.reset()
        self._identity.restore()
        return ()

    def _release_pending(self, backfills: Sequence[Backfill]) -> list[FaceEvent]:
        """Return the events of the frame before, whose tentative faces now have a person id or are dropped."""
        if self._pending is None:
            return []
        header, crops = self._pending.header, self._pending.crops
        self._pending = None
        confirmed = [with_person_id(crops[one.row], one.person_id) for one in backfills]
        self.unconfirmed_faces += sum(crop.face.key.person_id < 0 for crop in crops) - len(confirmed)
        return [*map(self._skip_or_keep, confirmed), replace(header, faces=header.faces + len(confirmed))]

    def _skip_or_keep(self, crop: FaceCrop) -> FaceCrop | Face:
        face = crop.face
        selected = self._sampler.should_classify(face.key.person_id, face.time_s, ok=face.quality.ok)
        return crop if selected else face

    def _crop(self, frame: Frame, gray: U8, detections: Detections, row: int, person_id: int) -> FaceCrop:
        xyxy = detections.xyxy[row]
        landmarks = None if detections.landmarks is None else detections.landmarks[row]
        pixels = crop_face(gray, xyxy, self._detector.spec.crop_geometry)
        face = Face(
            key=FaceKey(frame.stream_id, person_id, frame.index),
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            xyxy=xyxy,
            confidence=float(detections.confidence[row]),
            quality=assess(gray.shape, xyxy, landmarks, pixels, self._quality),
        )
        return FaceCrop(face, pixels)


@dataclass(frozen=True, slots=True, eq=False)
class _PendingFrame:
    header: FrameHeader
    crops: list[FaceCrop]


def with_person_id(crop: FaceCrop, person_id: int) -> FaceCrop:
    """Return `crop` with another person id."""
    key = replace(crop.face.key, person_id=person_id)
    return replace(crop, face=replace(crop.face, key=key))
