"""Scheduling of the detector, and the faces of the frames between two detections.

Detection costs more than all other steps of a frame, and faces move little between frames. The detector therefore
runs at an interval, and additionally after events that tracking cannot handle: a scene cut, and a face that appears,
disappears or is lost. In between, a `TemplateTracker` locates the faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_stream.faces.template_tracker import TemplateTracker
from fer_stream.records import I64, TIMESTAMP_TOLERANCE_S, U8, Detections


@dataclass(frozen=True, slots=True, eq=False)
class PropagatedFaces:
    """Faces of a frame in which the detector did not run, and their person ids, int64 (n,)."""

    detections: Detections
    person_ids: I64


class DetectionScheduler:
    """Decides in which frames the detector runs, and tracks the faces in the others.

    Detection is due `interval_s` after the last one; 0 means every frame. Detection also runs on the frame after a
    face appeared, disappeared or scored below `min_confidence`.
    """

    def __init__(self, *, interval_s: float, min_confidence: float) -> None:
        self._interval_s = interval_s
        self._min_confidence = min_confidence
        self._tracker = TemplateTracker()
        self._due_s = -np.inf
        self._person_ids: I64 = np.empty(0, np.int64)

    def propagate(self, gray: U8, time_s: float) -> PropagatedFaces | None:
        """Return the faces of the next frame, `gray` uint8 (H, W), or None if detection is due."""
        if time_s + TIMESTAMP_TOLERANCE_S >= self._due_s:
            return None
        faces = self._tracker.update(gray)
        return None if faces is None else PropagatedFaces(faces, self._person_ids)

    def update(self, gray: U8, time_s: float, detections: Detections, person_ids: I64) -> None:
        """Continue from the detections of a frame; `person_ids` int64 (n,) is -1 for tentative faces."""
        assigned = person_ids >= 0
        certain = bool(assigned.all() and (detections.confidence >= self._min_confidence).all())
        unchanged = certain and set(person_ids.tolist()) == set(self._person_ids.tolist())
        self._person_ids = person_ids[assigned]
        self._due_s = time_s + self._interval_s if unchanged else time_s
        landmarks = None if detections.landmarks is None else detections.landmarks[assigned]
        self._tracker.init(gray, Detections(detections.xyxy[assigned], detections.confidence[assigned], landmarks))

    def reset(self) -> None:
        """Discard all faces: detection is due in the next frame."""
        self._due_s = -np.inf
        self._person_ids = np.empty(0, np.int64)
