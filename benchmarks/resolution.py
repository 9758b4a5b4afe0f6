"""Recall, false detections and speed of the detectors from 360p to 4K and in still images, by size of the face.

    python -m benchmarks.resolution

Scenes are composed of heads from real clips at the given size, on frames without people. A face counts as found if a
detection from 0.7 has an IoU of at least 0.35 with it. Times are the CPU time of one detection on one core, with
`input_size_px: auto` and with 320 px (YuNet) for comparison. Docs: docs/evidence/parameters.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from benchmarks.material import FOLDER, clip_frames, parser, table
from fer_stream.config.settings import QualitySettings
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.detector import FaceNetwork, iou_matrix
from fer_stream.faces.multiscale import MultiScaleDetector, ScaleSettings, input_sizes, smallest_face_px
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, F64, U8, Detections

_VIDEO = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "1440p": (2560, 1440), "4K": (3840, 2160)}
_STILL = {"2 MP": (1920, 1080), "24 MP": (6000, 4000)}
_FACES_PX = (20, 28, 40, 56, 80, 160, 320)
_FACE_SHARE = 0.42
"""Width of a face relative to the head cut out with it."""
_MIN_SOURCE_PX = 110
_MAX_FACES = 24
_SEEDS = 2
_MIN_CONFIDENCE, _TRACK_CONFIDENCE = 0.5, 0.7
_MIN_IOU, _MAX_FALSE_IOU = 0.35, 0.2


@dataclass(frozen=True, slots=True)
class Head:
    """Square around a head, uint8 (side, side, 3), and the box of its face as fractions of the side."""

    pixels: U8
    box: F64

    def at(self, face_px: float) -> tuple[U8, F64]:
        """Return the head with a face of this size, and the box of the face in px."""
        side = round(face_px / float((self.box[2:] - self.box[:2]).max()))
        kernel = cv2.INTER_AREA if side < len(self.pixels) else cv2.INTER_CUBIC
        return cv2.resize(self.pixels, (side, side), interpolation=kernel).astype(np.uint8), self.box * side


def heads(folder: Path, weights: Path) -> Iterator[Head]:
    """Yield the largest face of the 20th frame of each clip in which it is large enough."""
    detector = YuNetDetector(weights, min_confidence=0.8)
    for clip in sorted([*(folder / "clips").glob("[ol]*.mp4"), *(folder / "labelled_clips").glob("*.mp4")]):
        image = next(islice(clip_frames(clip, every=1), 20, None))
        boxes = detector.detect(image).xyxy
        sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        if sizes.max(initial=0) < _MIN_SOURCE_PX:
            continue
        box = boxes[sizes.argmax()].astype(np.float64)
        side, centre = round(float(sizes.max()) / _FACE_SHARE), (box[:2] + box[2:]) / 2
        square = cv2.getRectSubPix(image, (side, side), (float(centre[0]), float(centre[1])))
        yield Head(square.astype(np.uint8), ((box.reshape(2, 2) - centre).ravel() + (side - 1) / 2) / side)


def scene(
    people: list[Head], backgrounds: list[U8], size: tuple[int, int], face_px: int, seed: int
) -> tuple[U8, F32]:
    """Return an image with up to `_MAX_FACES` faces, and their boxes, float32 (n, 4)."""
    width, height = size
    random, image, truth = np.random.default_rng(seed), np.zeros((height, width, 3), np.uint8), []
    for top in range(0, height, 540):
        for left in range(0, width, 960):
            part = backgrounds[random.integers(len(backgrounds))][: height - top, : width - left]
            image[top : top + len(part), left : left + part.shape[1]] = part
    cell = round(face_px / _FACE_SHARE) + 1
    places = [(row, column) for row in range(height // cell) for column in range(width // cell)]
    for row, column in random.permutation(places)[:_MAX_FACES] * cell:
        head, box = people[random.integers(len(people))].at(face_px)
        part = head[: height - row, : width - column]
        image[row : row + len(part), column : column + part.shape[1]] = part
        truth.append(box + np.array([column, row, column, row]))
    return image, np.array(truth, np.float32).reshape(-1, 4)


_Material = tuple[list[Head], list[U8]]


@dataclass(slots=True)
class Count:
    """Faces found, of all; detections without a face, and those of them that would start a track."""

    found: int = 0
    total: int = 0
    false: int = 0
    false_tracks: int = 0

    def add(self, detections: Detections, truth: F32) -> None:
        """Count the detections of one scene."""
        iou, strong = iou_matrix(truth, detections.xyxy), detections.confidence >= _TRACK_CONFIDENCE
        wrong = iou.max(axis=0, initial=0) < _MAX_FALSE_IOU
        self.found += int((iou[:, strong].max(axis=1, initial=0) >= _MIN_IOU).sum())
        self.total += len(truth)
        self.false += int(wrong.sum())
        self.false_tracks += int((wrong & strong).sum())


def _row(
    name: str, network: FaceNetwork, settings: ScaleSettings, size: tuple[int, int], material: _Material
) -> list[str]:
    detector, recall, everything, times = MultiScaleDetector(network, settings), [], Count(), []
    for face_px in _FACES_PX:
        count = Count()
        for seed in range(_SEEDS if face_px / _FACE_SHARE < size[1] else 0):
            image, truth = scene(*material, size, face_px, seed)
            start = time.process_time()
            found = detector.detect(image)
            times.append(time.process_time() - start)
            count.add(found, truth)
            everything.add(found, truth)
        recall.append(f"{count.found / count.total:.0%}" if count.total else "–")
    passes = " + ".join(map(str, input_sizes(max(size), network.spec.inputs, settings)))
    smallest = smallest_face_px(max(size), network.spec.inputs, settings)
    false = f"{everything.false} ({everything.false_tracks})"
    return [name, passes, f"{smallest:.0f}", *recall, false, f"{1000 * median(times):.0f}"]


def main() -> None:
    arguments = parser(__doc__).parse_args()
    cv2.setNumThreads(1)
    backgrounds = list(clip_frames(arguments.clips / "no_face.mp4", every=8))
    material = list(heads(FOLDER, arguments.weights)), backgrounds
    print(f"{len(material[0])} heads\n")
    yunet = YuNetDetector(arguments.weights, min_confidence=_MIN_CONFIDENCE)
    blazeface = BlazeFaceDetector(min_confidence=_MIN_CONFIDENCE)
    min_face_px = QualitySettings().min_face_px
    rows = []
    for network, label in ((yunet, "YuNet"), (blazeface, "BlazeFace")):
        for still, sizes in ((False, _VIDEO), (True, _STILL)):
            for name, size in sizes.items():
                settings = ScaleSettings(None, min_face_px, still=still)
                rows.append(_row(f"{label}, {name}", network, settings, size, material))
                if network is yunet and size[0] > 960:
                    fixed = ScaleSettings(yunet.spec.inputs.default_px, min_face_px, still=still)
                    rows.append(_row(f"… {name}, 320 px", network, fixed, size, material))
    head = ["", "input, px", "smallest face, px", *(f"{px} px" for px in _FACES_PX), "false (from 0.7)", "ms"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
