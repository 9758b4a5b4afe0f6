"""Frame → face crops of known persons, and a mark for every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fer_stream.config import QualitySettings
from fer_stream.faces.classification_sampler import ClassificationSampler
from fer_stream.faces.crop import CropGeometry, crop_face
from fer_stream.faces.detection_scheduler import DetectionScheduler
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.identity import Backfill, IdentityAssigner, TrackAssignment
from fer_stream.faces.quality import assess
from fer_stream.faces.scene_cuts import SceneCutDetector
from fer_stream.metrics import Metrics
from fer_stream.records import U8, Detections, FaceCrop, FaceKey, Frame, FrameHeader, Prediction

FaceEvent = FaceCrop | Prediction | FrameHeader
"""A face to be classified, one that need not be (a prediction that says nothing), or the mark of a frame."""


class FaceExtractor:
    """Finds, follows and cuts out the faces of one stream.

    `between` says on which frames the detector looks, `turns` which faces are to be classified. A face whose person
    is known only one frame later is held back for so long, and with it the mark of its frame, since the mark counts
    the faces. A face that nobody claims by then is dropped and counted in `unconfirmed_faces`.
    """

    def __init__(
        self,
        detector: FaceDetector,
        identity: IdentityAssigner,
        geometry: CropGeometry,
        quality: QualitySettings,
        metrics: Metrics,
        *,
        scheduler: DetectionScheduler,
        sampler: ClassificationSampler,
    ) -> None:
        self._detector = detector
        self._identities = identity
        self._geometry = geometry
        self._quality = quality
        self._metrics = metrics
        self._between = scheduler
        self._turns = sampler
        self._cuts = SceneCutDetector()
        self._held: _PendingFrame | None = None
        self.unconfirmed_faces = 0

    def process(self, frame: Frame) -> list[FaceEvent]:
        """The faces and marks that `frame` settles, in order of time."""
        gray = frame.pixels.gray()
        detections, identified = self._faces(frame, gray)
        with self._metrics.timed("crop"):
            crops = [
                self._crop(frame, gray, detections, row, track)
                for row, track in enumerate(identified.track_ids.tolist())
            ]
        known = [crop for crop in crops if crop.key.person_id >= 0]
        settled = [*self._release_pending(identified.backfills), *map(self._skip_or_keep, known)]
        mark = FrameHeader(frame.stream_id, frame.index, frame.time_s, len(known))
        if len(known) == len(crops):
            return [*settled, mark]
        self._held = _PendingFrame(mark, crops)
        return settled

    def flush(self) -> list[FaceEvent]:
        """What was held back when the stream ended."""
        return self._release_pending(())

    def _faces(self, frame: Frame, gray: U8) -> tuple[Detections, TrackAssignment]:
        """The faces of the frame and who they are, from the detector where a look is due."""
        with self._metrics.timed("track"):
            if self._cuts.is_cut(gray):
                self._identities.reset()
                self._between.reset()
            moved = self._between.propagate(gray, frame.time_s)
            if moved is not None:
                self._identities.propagate(moved.detections, frame)
                return moved.detections, TrackAssignment(moved.track_ids, ())
        with self._metrics.timed("detect"):
            detections = self._detector.detect(frame.image)
        with self._metrics.timed("track"):
            identified = self._identities.update(detections, frame)
            self._between.update(gray, frame.time_s, detections, identified.track_ids)
        return detections, identified

    def _release_pending(self, confirmed: Sequence[Backfill]) -> list[FaceEvent]:
        """Let go of the frame before, now that it is known who of its faces is somebody."""
        if self._held is None:
            return []
        mark, crops = self._held.header, self._held.crops
        self._held = None
        found = [with_track_id(crops[one.row], one.track_id) for one in confirmed]
        self.unconfirmed_faces += sum(crop.key.person_id < 0 for crop in crops) - len(found)
        return [*map(self._skip_or_keep, found), replace(mark, faces=mark.faces + len(found))]

    def _skip_or_keep(self, crop: FaceCrop) -> FaceCrop | Prediction:
        if self._turns.should_classify(crop.key.person_id, crop.time_s, ok=crop.quality.ok):
            return crop
        return Prediction(
            crop.key, crop.time_s, crop.captured_at, crop.xyxy, crop.confidence, crop.quality, probs=None, model_id=""
        )

    def _crop(self, frame: Frame, gray: U8, detections: Detections, row: int, track_id: int) -> FaceCrop:
        xyxy = detections.xyxy[row]
        landmarks = None if detections.landmarks is None else detections.landmarks[row]
        pixels = crop_face(gray, xyxy, self._geometry)
        return FaceCrop(
            key=FaceKey(frame.stream_id, track_id, frame.index),
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            xyxy=xyxy,
            confidence=float(detections.confidence[row]),
            quality=assess(gray.shape, xyxy, landmarks, pixels, self._quality),
            pixels=pixels,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _PendingFrame:
    header: FrameHeader
    crops: list[FaceCrop]


def with_track_id(crop: FaceCrop, track_id: int) -> FaceCrop:
    return replace(crop, key=replace(crop.key, person_id=track_id))
