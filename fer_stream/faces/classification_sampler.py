"""Selection of the faces that are classified.

Emotions last longer than a frame, and the timeline smooths over neighbouring frames: a few classifications per person
and second give the same labels as all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fer_stream.records import TIMESTAMP_TOLERANCE_S


@dataclass(slots=True)
class _LastClassified:
    """Times of a person's last classification, of any face and of a face with sufficient quality."""

    any_s: float
    ok_s: float


class ClassificationSampler:
    """Selects one face of each person every `interval_s`; 0 selects all.

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
