"""Crop geometry of each detector for the framing of FER-2013: `python -m benchmarks.crop_margin`

Determines `DetectorSpec.crop_geometry`. Images of FER-2013's PublicTest are enlarged and placed on a larger canvas
whose border continues their edge, blurred. The boxes of each detector are compared with the square of the image. In
real clips, which have no such square, the reference is the square in which eyes and mouth are where they are in the
median FER-2013 image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.material import classifier, clip_frames, parser, percent, public_test, table
from fer_stream.classify.litert import LiteRTClassifier
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.crop import CropGeometry, crop_face
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, I64, U8, Detections

SIDE_PX = 144
BORDER_PX = 144
MIN_CONFIDENCE = 0.6
SCALES = (0.75, 0.85, 0.95, 1.05, 1.15, 1.25, 1.4)
Y_OFFSETS = (-0.04, 0.0, 0.03, 0.06, 0.09, 0.12, 0.16)
SHIFT = 0.1
CLIPS = ("one_face_smile", "one_face_crying", "leave_and_return", "two_faces", "three_faces")
FRAME_STEP = 10


@dataclass(frozen=True)
class Found:
    """The m faces that a detector found: canvases gray uint8 (H, W), boxes float32 (m, 4), labels (m,)."""

    canvases: list[U8]
    boxes: F32
    landmarks: F32
    labels: I64


def canvas(image: U8) -> U8:
    """Convert gray (48, 48) to gray (432, 432): enlarged three times, with a border of its blurred edge."""
    large = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    edge = cv2.copyMakeBorder(large, BORDER_PX, BORDER_PX, BORDER_PX, BORDER_PX, cv2.BORDER_REPLICATE)
    result = cv2.GaussianBlur(edge, (0, 0), 8)
    result[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = large
    return np.asarray(result, np.uint8)


def bgr(gray: U8) -> U8:
    return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), np.uint8)


def find(detector: FaceDetector, images: U8, labels: I64) -> Found:
    canvases, boxes, landmarks, kept = [], [], [], []
    for row, image in enumerate(images):
        canvas_image = canvas(image)
        detections = detector.detect(bgr(canvas_image))
        if len(detections) and detections.landmarks is not None:
            canvases.append(canvas_image)
            boxes.append(detections.xyxy[0])
            landmarks.append(detections.landmarks[0])
            kept.append(row)
    return Found(canvases, np.array(boxes), np.array(landmarks), labels[kept])


def predict(model: LiteRTClassifier, found: Found, boxes: F32, geometry: CropGeometry) -> I64:
    crops = [crop_face(bgr(gray), box, geometry) for gray, box in zip(found.canvases, boxes, strict=True)]
    best: I64 = model.predict(np.stack(crops)).probs.argmax(axis=1)
    return best


def report_squares(found: Found, total: int) -> None:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    centres = (found.boxes[:, 2:] + found.boxes[:, :2]) / 2
    middle = BORDER_PX + SIDE_PX / 2
    quantities = {
        "scale: side of the training square / larger side of the box": SIDE_PX / sides.max(axis=1),
        "y offset: its centre above the box's / box height": (centres[:, 1] - middle) / sides[:, 1],
        "its centre right of the box's / box width": (middle - centres[:, 0]) / sides[:, 0],
    }
    print(f"\nFaces found: {len(found.boxes)} of {total}\n")
    rows = [[name, *(f"{q:.3f}" for q in np.percentile(x, (10, 25, 50, 75, 90)))] for name, x in quantities.items()]
    print(table(["", "10 %", "25 %", "median", "75 %", "90 %"], rows))


def eyes_and_mouth(landmarks: F32) -> tuple[F32, F32]:
    """Return the y coordinates of the centres of eyes and mouth in px, each (n,), of landmarks (n, 5, 2)."""
    return landmarks[:, :2, 1].mean(axis=1), landmarks[:, 3:, 1].mean(axis=1)


def report_clips(detector: FaceDetector, found: Found, folder: Path) -> None:
    eyes, mouth = eyes_and_mouth(found.landmarks)
    span = float(np.median(mouth - eyes)) / SIDE_PX
    middle = (float(np.median(mouth + eyes)) / 2 - BORDER_PX) / SIDE_PX - 0.5
    print(f"\nFER-2013: mouth {span:.3f} sides below the eyes, their middle {middle:+.3f} below the image's centre\n")
    rows = []
    for name in CLIPS:
        frames = [detector.detect(image) for image in clip_frames(folder / f"{name}.mp4", FRAME_STEP)]
        squares = np.concatenate([implied_squares(detections, span, middle) for detections in frames])
        rows.append([name, str(len(squares)), *(f"{value:.2f}" for value in np.median(squares, axis=0))])
    print(table(["clip", "faces", "scale", "y offset"], rows))


def implied_squares(detections: Detections, span: float, middle: float) -> F32:
    """Return scale and y offset (n, 2) of the squares in which eyes and mouth lie as in FER-2013."""
    landmarks = detections.landmarks
    assert landmarks is not None
    eyes, mouth = eyes_and_mouth(landmarks)
    sides = detections.xyxy[:, 2:] - detections.xyxy[:, :2]
    square = (mouth - eyes) / span
    centre = (mouth + eyes) / 2 - middle * square
    box_centre = (detections.xyxy[:, 1] + detections.xyxy[:, 3]) / 2
    return np.stack((square / sides.max(axis=1), (box_centre - centre) / sides[:, 1]), axis=1)


def report_grid(model: LiteRTClassifier, found: Found) -> None:
    print("\nAccuracy in % by scale (down) and y offset (across)\n")
    rows = []
    for scale in SCALES:
        hits = [
            predict(model, found, found.boxes, CropGeometry(scale, offset)) == found.labels for offset in Y_OFFSETS
        ]
        rows.append([f"{scale:.2f}", *(f"{percent(h):.1f}" for h in hits)])
    print(table(["", *(f"{offset:.2f}" for offset in Y_OFFSETS)], rows))


def report_shifts(model: LiteRTClassifier, found: Found, geometry: CropGeometry) -> None:
    print(f"\nSelected {geometry}, boxes shifted by {SHIFT:.0%} of their sides or scaled by as much\n")
    sides = np.tile(found.boxes[:, 2:] - found.boxes[:, :2], 2)
    base = predict(model, found, found.boxes, geometry)
    moves: dict[str, Sequence[float]] = {
        "none": (0, 0, 0, 0),
        "left": (-1, 0, -1, 0),
        "right": (1, 0, 1, 0),
        "up": (0, -1, 0, -1),
        "down": (0, 1, 0, 1),
        "smaller": (0.5, 0.5, -0.5, -0.5),
        "larger": (-0.5, -0.5, 0.5, 0.5),
    }
    rows = []
    for name, move in moves.items():
        moved = found.boxes + (SHIFT * sides * move).astype(np.float32)
        label = predict(model, found, moved, geometry)
        rows.append([name, f"{percent(label == found.labels):.1f}", f"{percent(label == base):.1f}"])
    print(table(["shift", "accuracy in %", "same label as unshifted in %"], rows))


def main() -> None:
    arguments = parser(__doc__).parse_args()
    images, labels = public_test(arguments.fer2013, arguments.images)
    model = classifier(arguments.model)
    unchanged = np.argmax(model.predict(images).probs, axis=1) == labels
    print(f"{len(images)} unchanged images: {percent(unchanged):.1f} %")
    detectors: list[FaceDetector] = [
        YuNetDetector(arguments.weights, input_size_px=320, min_confidence=MIN_CONFIDENCE),
        BlazeFaceDetector(None, min_confidence=MIN_CONFIDENCE),
    ]
    for detector in detectors:
        print(f"\n## {detector.spec.name}")
        found = find(detector, images, labels)
        report_squares(found, len(images))
        report_clips(detector, found, arguments.clips)
        report_grid(model, found)
        report_shifts(model, found, detector.spec.crop_geometry)


if __name__ == "__main__":
    main()
