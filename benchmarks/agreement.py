"""How right a fast run is: of the faces that are there, how many it finds; of its labels, how many are those of a run
that looks at every frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.material import clip_frames
from fer_stream import FileSettings, analyze
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, LabelledFace, LabelledFrame

MIN_CONFIDENCE = 0.6
"""Of a face of the full-size pass, as in docs/evidence/parameters.md."""

_MIN_IOU = 0.5
"""Boxes that overlap by less are not of the same face: the usual bound of detection benchmarks."""


@dataclass(frozen=True, slots=True)
class Recall:
    """So many of so many faces were found."""

    found: int
    faces: int

    def __str__(self) -> str:
        share = f"{self.found / self.faces:.1%}" if self.faces else "–"
        return f"recall {share} of {self.faces:,} faces"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of so many faces in a reference run, how many have the same label in another one, and the same identity."""

    labels: int
    identities: int
    faces: int

    def __str__(self) -> str:
        if not self.faces:
            return "no faces to compare"
        return f"labels {self.labels / self.faces:.1%}, identities {self.identities / self.faces:.1%} as every frame"


def full_size(clip: Path, weights: Path) -> list[F32]:
    """The faces that YuNet finds in each frame at its own size, float32 (n, 4) px."""
    detector: YuNetDetector | None = None
    boxes = []
    for image in clip_frames(clip, every=1):
        if detector is None:
            detector = YuNetDetector(weights, input_size_px=max(image.shape), min_confidence=MIN_CONFIDENCE)
        boxes.append(detector.detect(image).xyxy)
    return boxes


def recall(found: Iterable[F32], reference: Iterable[F32]) -> Recall:
    """How many faces of `reference` are among the `found`; both float32 (n, 4) px for each frame, from the first on.

    Frames that only one of the two has are left out.
    """
    hits = faces = 0
    for mine, theirs in zip(found, reference, strict=False):
        hits += len(matched(mine, theirs))
        faces += len(theirs)
    return Recall(hits, faces)


def agreement(run: Sequence[LabelledFrame], reference: Sequence[LabelledFrame]) -> Agreement:
    """What two runs over the same clip say of each face of `reference`; one that `run` lacks agrees in nothing."""
    labels = identities = faces = 0
    for mine, theirs in zip(run, reference, strict=True):
        faces += len(theirs.faces)
        for one, other in matched(boxes_of(mine.faces), boxes_of(theirs.faces)):
            labels += mine.faces[one].label == theirs.faces[other].label
            identities += mine.faces[one].person_id == theirs.faces[other].person_id
    return Agreement(labels, identities, faces)


def accuracy(clip: Path, settings: FileSettings, truth: Sequence[F32]) -> str:
    """What `settings` give for a clip, in words: against a full-size pass, and against every face of every frame."""
    every_frame = settings.model_copy(
        update={
            "detector": settings.detector.model_copy(update={"interval_s": 0.0}),
            "model": settings.model.model_copy(update={"interval_s": 0.0}),
        }
    )
    run = analyze(clip, settings).frames
    found = recall([boxes_of(frame.faces) for frame in run], truth)
    return f"{found}; {agreement(run, analyze(clip, every_frame).frames)}"


def boxes_of(faces: Sequence[LabelledFace]) -> F32:
    """Their boxes, float32 (n, 4) px."""
    return np.array([face.xyxy for face in faces], np.float32).reshape(-1, 4)


def matched(mine: F32, theirs: F32) -> list[tuple[int, int]]:
    """Pairs of the same face in two sets of boxes, float32 (n, 4) and (m, 4) px: best overlap first, a box once."""
    overlap = iou(mine, theirs)
    pairs = []
    while overlap.size and overlap.max() >= _MIN_IOU:
        one, other = divmod(int(overlap.argmax()), len(theirs))
        pairs.append((one, other))
        overlap[one], overlap[:, other] = 0, 0
    return pairs


def iou(mine: F32, theirs: F32) -> NDArray[np.float64]:
    """Intersection over union of boxes, float32 (n, 4) and (m, 4) px → (n, m)."""
    a, b = mine[:, None].astype(np.float64), theirs[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b)]
    return np.asarray(common / (areas[0] + areas[1] - common), np.float64)
