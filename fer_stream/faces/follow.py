"""Frame → face crops of known persons, and a mark for every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fer_stream.config import QualitySettings
from fer_stream.faces.crop import CropGeometry, cut
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.quality import grade
from fer_stream.faces.tracker import Confirmed, Identifier
from fer_stream.metrics import Metrics
from fer_stream.records import Detections, FaceCrop, FaceKey, Frame, FrameMark


class FaceFollower:
    """Finds, follows and cuts out the faces of one stream.

    A face whose person is known only one frame later is held back for so long, and with it the mark of its frame,
    since the mark counts the faces. A face that nobody claims by then is dropped and counted in
    `unconfirmed_faces`.
    """

    def __init__(
        self,
        detector: FaceDetector,
        identities: Identifier,
        geometry: CropGeometry,
        quality: QualitySettings,
        metrics: Metrics,
    ) -> None:
        self._detector = detector
        self._identities = identities
        self._geometry = geometry
        self._quality = quality
        self._metrics = metrics
        self._held: _Held | None = None
        self.unconfirmed_faces = 0

    def follow(self, frame: Frame) -> list[FaceCrop | FrameMark]:
        """The crops and marks that `frame` settles, in order of time."""
        with self._metrics.timed("detect"):
            detections = self._detector.detect(frame.image)
        with self._metrics.timed("track"):
            identified = self._identities.update(detections, frame)
        with self._metrics.timed("crop"):
            crops = [
                self._crop(frame, detections, row, track) for row, track in enumerate(identified.track_ids.tolist())
            ]
        known = [crop for crop in crops if crop.key.track_id >= 0]
        settled = [*self._settle(identified.earlier), *known]
        if len(known) == len(crops):
            return [*settled, FrameMark(frame.stream_id, frame.index, frame.time_s, len(known))]
        self._held = _Held(FrameMark(frame.stream_id, frame.index, frame.time_s, len(known)), crops)
        return settled

    def finish(self) -> list[FaceCrop | FrameMark]:
        """What was held back when the stream ended."""
        return self._settle(())

    def _settle(self, confirmed: Sequence[Confirmed]) -> list[FaceCrop | FrameMark]:
        """Let go of the frame before, now that it is known who of its faces is somebody."""
        if self._held is None:
            return []
        mark, crops = self._held.mark, self._held.crops
        self._held = None
        found = [_named(crops[one.row], one.track_id) for one in confirmed]
        self.unconfirmed_faces += sum(crop.key.track_id < 0 for crop in crops) - len(found)
        return [*found, replace(mark, faces=mark.faces + len(found))]

    def _crop(self, frame: Frame, detections: Detections, row: int, track_id: int) -> FaceCrop:
        xyxy = detections.xyxy[row]
        landmarks = None if detections.landmarks is None else detections.landmarks[row]
        pixels = cut(frame.image, xyxy, self._geometry)
        return FaceCrop(
            key=FaceKey(frame.stream_id, track_id, frame.index),
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            xyxy=xyxy,
            confidence=float(detections.confidence[row]),
            quality=grade(frame.image.shape, xyxy, landmarks, pixels, self._quality),
            pixels=pixels,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    mark: FrameMark
    crops: list[FaceCrop]


def _named(crop: FaceCrop, track_id: int) -> FaceCrop:
    return replace(crop, key=replace(crop.key, track_id=track_id))
