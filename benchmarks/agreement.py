"""Accuracy of a fast run: recall of faces, and agreement of its labels with those of a run that
processes every frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.material import clip_frames
from fer_stream import FileSettings, analyze
from fer_stream.faces.detector import iou_matrix
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, LabelledFace, LabelledFrame

MIN_CONFIDENCE = 0.6
"""Minimum confidence of a face of the full-size pass, as in docs/evidence/parameters.md."""

_MIN_IOU = 0.5
"""Minimum IoU of boxes of the same face, as is usual in detection benchmarks."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Number of faces in a reference, and how many of them were found."""

    found: int
    faces: int

    def __str__(self) -> str:
        share = f"{self.found / self.faces:.1%}" if self.faces else "–"
        return f"recall {share} of {self.faces:,} faces"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Number of faces in a reference run, and how many of them have the same label and identity in another run."""

    labels: int
    identities: int
    faces: int

    def __str__(self) -> str:
        if not self.faces:
            return "no faces to compare"
        return f"labels {self.labels / self.faces:.1%}, identities {self.identities / self.faces:.1%} as every frame"


def full_size(clip: Path, weights: Path) -> list[F32]:
    """Return the boxes that YuNet finds in each frame at its original size, float32 (n, 4) px."""
    detector: YuNetDetector | None = None
    boxes = []
    for image in clip_frames(clip, every=1):
        if detector is None:
            detector = YuNetDetector(weights, input_size_px=max(image.shape), min_confidence=MIN_CONFIDENCE)
        boxes.append(detector.detect(image).xyxy)
    return boxes


def recall(found: Iterable[F32], reference: Iterable[F32]) -> Recall:
    """Count the boxes of `reference` that match boxes in `found`; both float32 (n, 4) px for each frame.

    Frames that only one of the two has are ignored.
    """
    hits = faces = 0
    for mine, theirs in zip(found, reference, strict=False):
        hits += len(matched(mine, theirs))
        faces += len(theirs)
    return Recall(hits, faces)


def agreement(run: Sequence[LabelledFrame], reference: Sequence[LabelledFrame]) -> Agreement:
    """Compare two runs over the same clip. A face of `reference` that is missing in `run` counts as disagreement."""
    labels = identities = faces = 0
    for mine, theirs in zip(run, reference, strict=True):
        faces += len(theirs.faces)
        for one, other in matched(boxes_of(mine.faces), boxes_of(theirs.faces)):
            labels += mine.faces[one].label == theirs.faces[other].label
            identities += mine.faces[one].person_id == theirs.faces[other].person_id
    return Agreement(labels, identities, faces)


def accuracy(clip: Path, settings: FileSettings, truth: Sequence[F32]) -> str:
    """Describe the recall of `settings` on a clip against boxes `truth`, and the agreement with every frame."""
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
    """Return the boxes of faces, float32 (n, 4) px."""
    return np.array([face.xyxy for face in faces], np.float32).reshape(-1, 4)


def matched(mine: F32, theirs: F32) -> list[tuple[int, int]]:
    """Return pairs of boxes of the same face, from float32 (n, 4) and (m, 4) px: highest IoU first, each box once."""
    overlap = iou_matrix(mine, theirs)
    pairs = []
    while overlap.size and overlap.max() >= _MIN_IOU:
        one, other = divmod(int(overlap.argmax()), len(theirs))
        pairs.append((one, other))
        overlap[one], overlap[:, other] = 0, 0
    return pairs
