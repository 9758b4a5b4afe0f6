"""Whose turn it is to be classified.

Emotions last longer than frames, and the timeline smooths over neighbouring ones anyway: a few faces of a person each
second say what all of them say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fer_stream.records import TIMESTAMP_TOLERANCE_S


@dataclass(slots=True)
class _Last:
    """When a person was classified last, and when with a face that was good enough."""

    any_s: float
    ok_s: float


class ClassificationSampler:
    """Gives every person of a stream a turn every `every_s`, at 0 on every frame.

    A turn that fell on a bad face does not count for a good one, so that wherever there are good faces, one of them
    is classified.
    """

    def __init__(self, interval_s: float) -> None:
        self._every_s = interval_s
        self._last: dict[int, _Last] = {}

    def should_classify(self, track_id: int, time_s: float, *, ok: bool) -> bool:
        """Is it the turn of this person? `ok` says whether the face is good enough to judge. Times never go back."""
        due_s = time_s + TIMESTAMP_TOLERANCE_S - self._every_s
        last = self._last.get(track_id) or _Last(-math.inf, -math.inf)
        if (last.ok_s if ok else last.any_s) > due_s:
            return False
        if track_id not in self._last:  # whose turn it is anyway need not be remembered
            self._last = {other: seen for other, seen in self._last.items() if seen.any_s > due_s}
        self._last[track_id] = _Last(time_s, time_s if ok else last.ok_s)
        return True
