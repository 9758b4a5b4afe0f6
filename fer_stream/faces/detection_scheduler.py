"""When the detector looks, and where faces are between two looks.

A detector costs more than all else that happens to a frame, and faces move little from one frame to the next. So it
looks every `every_s`, and at once wherever something happens that following faces cannot tell: a cut, a face that
begins, is missing or was lost on the way. In between `FaceMotion` says where the faces went.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_stream.faces.template_tracker import TemplateTracker
from fer_stream.records import I64, TIMESTAMP_TOLERANCE_S, U8, Detections


@dataclass(frozen=True, slots=True, eq=False)
class PropagatedFaces:
    """The faces of a frame that nobody looked at, and who they are: int64 (n,)."""

    detections: Detections
    track_ids: I64


class DetectionScheduler:
    """Says when a look is due, and follows the faces until then.

    A look is due `every_s` after the last one, at 0 on every frame; and at the next frame after one that showed who
    was not there before or not who was, or where a face was found with a confidence below `sure`.
    """

    def __init__(self, *, interval_s: float, min_confidence: float) -> None:
        self._every_s = interval_s
        self._sure = min_confidence
        self._motion = TemplateTracker()
        self._due_s = -np.inf
        self._track_ids: I64 = np.empty(0, np.int64)

    def propagate(self, gray: U8, time_s: float) -> PropagatedFaces | None:
        """The faces of the next frame, `gray` uint8 (H, W); None where a look is due."""
        if time_s + TIMESTAMP_TOLERANCE_S >= self._due_s:
            return None
        moved = self._motion.update(gray)
        return None if moved is None else PropagatedFaces(moved, self._track_ids)

    def update(self, gray: U8, time_s: float, found: Detections, track_ids: I64) -> None:
        """The detector looked at this frame; `track_ids` int64 (n,) are -1 where a face is nobody yet."""
        known = track_ids >= 0
        sure = bool(known.all() and (found.confidence >= self._sure).all())
        settled = sure and set(track_ids.tolist()) == set(self._track_ids.tolist())
        self._track_ids = track_ids[known]
        self._due_s = time_s + self._every_s if settled else time_s
        landmarks = None if found.landmarks is None else found.landmarks[known]
        self._motion.init(gray, Detections(found.xyxy[known], found.confidence[known], landmarks))

    def reset(self) -> None:
        """Nothing that is known holds for the next frame."""
        self._due_s = -np.inf
        self._track_ids = np.empty(0, np.int64)
