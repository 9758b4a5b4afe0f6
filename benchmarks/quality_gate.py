"""Accuracy against the quality of faces: `python -m benchmarks.quality_gate --images 3589`

Determines the defaults of `fer_stream.config.QualitySettings`: accuracy of the int8 model on FER-2013's PublicTest by
size, blur, visible fraction and head rotation of the face; then the quality reasons in the test clips.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from benchmarks.crop_margin import find, predict
from benchmarks.material import classifier, clip_frames, parser, percent, public_test, table
from fer_stream.classify.litert import LiteRTClassifier
from fer_stream.config.settings import QualitySettings
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.crop import assess, crop_face, head_rotation, min_side_px, sharpness
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import CROP_SIZE_PX, F64, I64, U8

SIDES_PX = (12, 16, 20, 22, 24, 26, 28, 32, 40, 48)
SIGMAS_PX = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 3.0)
SHARPNESS_EDGES = (0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.2, 0.4, 100)
ROTATION_EDGES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.01)
VISIBLE = (1.0, 0.9, 0.85, 0.825, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5)
FRAME_STEP = 5


def shrunk(image: U8, side_px: int) -> U8:
    small = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (CROP_SIZE_PX, CROP_SIZE_PX), interpolation=cv2.INTER_LINEAR), np.uint8)


def blurred(image: U8, sigma_px: float) -> U8:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8) if sigma_px else image


def truncated(images: U8, fraction: float, quarter_turns: int) -> U8:
    """Return images (n, 48, 48) of which only `fraction` is inside the frame; the rest repeats the edge.

    `quarter_turns` selects the edge: bottom, right, top, left.
    """
    rows = np.minimum(np.arange(CROP_SIZE_PX), round(fraction * CROP_SIZE_PX) - 1)
    upright = np.rot90(images, quarter_turns, axes=(1, 2))[:, rows]
    return np.ascontiguousarray(np.rot90(upright, -quarter_turns, axes=(1, 2)))


def report_truncated(model: LiteRTClassifier, images: U8, labels: I64) -> None:
    rows = []
    for fraction in VISIBLE:
        hits = [model.predict(truncated(images, fraction, n)).probs.argmax(axis=1) == labels for n in range(4)]
        rows.append([f"{fraction:g}", *(f"{percent(hit):.1f}" for hit in hits)])
    print("\n" + table(["visible fraction", "truncated at the bottom, accuracy in %", "right", "top", "left"], rows))


def report_degraded(model: LiteRTClassifier, name: str, versions: dict[str, U8], labels: I64) -> tuple[F64, F64]:
    """Print accuracy and sharpness of every version of the images; return both for each image."""
    rows, values, hits = [], [], []
    for key, images in versions.items():
        hit = model.predict(images).probs.argmax(axis=1) == labels
        sharp = np.array([sharpness(image) for image in images])
        rows.append([key, f"{percent(hit):.1f}", *(f"{q:.3f}" for q in np.percentile(sharp, (5, 50, 95)))])
        values.append(sharp)
        hits.append(hit)
    print("\n" + table([name, "accuracy in %", "sharpness, 5 %", "median", "95 %"], rows))
    return np.concatenate(values), np.concatenate(hits)


def report_bins(name: str, values: F64, hits: F64, edges: tuple[float, ...]) -> None:
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = (values >= low) & (values < high)
        accuracy = f"{100 * hits[inside].mean():.1f}" if inside.any() else ""
        rows.append([f"{low:g} – {high:g}", str(inside.sum()), accuracy])
    print("\n" + table([name, "faces", "accuracy in %"], rows))


def report_rotation(model: LiteRTClassifier, detector: FaceDetector, images: U8, labels: I64) -> None:
    found = find(detector, images, labels)
    hits = predict(model, found, found.boxes, detector.spec.crop_geometry) == found.labels
    rotations = np.array([head_rotation(landmarks) for landmarks in found.landmarks])
    report_bins(f"head rotation, {detector.spec.name}", rotations, hits.astype(np.float64), ROTATION_EDGES)


def report_clips(detector: FaceDetector, folder: Path) -> None:
    rows = [clip_row(detector, path) for path in sorted(folder.glob("*.mp4"))]
    head = ["clip", "faces", "shorter side, px", "sharpness", "head rotation", "reasons"]
    print(f"\n{detector.spec.name}; 5 %, median and 95 %\n\n" + table(head, rows))


def clip_row(detector: FaceDetector, path: Path) -> list[str]:
    settings, geometry = QualitySettings(), detector.spec.crop_geometry
    measures, reasons = [], Counter[str]()
    for image in clip_frames(path, FRAME_STEP):
        found = detector.detect(image)
        assert found.landmarks is not None
        for box, landmarks in zip(found.xyxy, found.landmarks, strict=True):
            crop = crop_face(image, box, geometry)
            measures.append((min_side_px(box), sharpness(crop), head_rotation(landmarks)))
            reasons[assess(image.shape, box, landmarks, crop, settings).reason] += 1
    if not measures:
        return [path.stem, "0", "", "", "", ""]
    size, sharp, rotation = (np.percentile(column, (5, 50, 95)) for column in np.transpose(measures))
    return [
        path.stem,
        str(len(measures)),
        " / ".join(f"{q:.0f}" for q in size),
        " / ".join(f"{q:.2f}" for q in sharp),
        " / ".join(f"{q:.2f}" for q in rotation),
        ", ".join(f"{reason} {100 * n / len(measures):.0f} %" for reason, n in reasons.most_common()),
    ]


def main() -> None:
    arguments = parser(__doc__).parse_args()
    images, labels = public_test(arguments.fer2013, arguments.images)
    model = classifier(arguments.model)
    sizes = {str(side): np.stack([shrunk(image, side) for image in images]) for side in SIDES_PX}
    report_degraded(model, "side of the square, px", sizes, labels)
    blurs = {f"{sigma:g}": np.stack([blurred(image, sigma) for image in images]) for sigma in SIGMAS_PX}
    values, hits = report_degraded(model, "blur σ, px of 48", blurs, labels)
    report_bins("sharpness, all σ together", values, hits, SHARPNESS_EDGES)
    report_truncated(model, images, labels)
    detectors: list[FaceDetector] = [
        YuNetDetector(arguments.weights, input_size_px=320, min_confidence=0.6),
        BlazeFaceDetector(None, min_confidence=0.6),
    ]
    for detector in detectors:
        report_rotation(model, detector, images, labels)
        report_clips(detector, arguments.clips)


if __name__ == "__main__":
    main()
