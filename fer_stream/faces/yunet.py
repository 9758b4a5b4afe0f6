"""YuNet in ONNX Runtime: the default face detector.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research, 2023. For the same
image, the boxes are those of `cv2.FaceDetectorYN`, in a third of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fer_stream import model_files
from fer_stream.errors import WeightsError
from fer_stream.faces.crop import CropGeometry
from fer_stream.faces.detector import DetectorSpec, InputSpec, nms
from fer_stream.onnxruntime import LOAD_ERRORS, open_session
from fer_stream.records import F32, U8, Detections

_STRIDES_PX = (8, 16, 32)
"""Distances between the cells of the network's three grids."""

_MULTIPLE_PX = _STRIDES_PX[-1]
"""Height and width of the network's input must be multiples of the coarsest stride."""

_OUTPUTS = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES_PX]

_INPUT_PX = 320
"""Default long side of the input."""

_MAX_INPUT_PX = 1280
"""Long side from which images are examined in tiles: 13 times the time of 320 px, and 100 MB."""

_MAX_IMAGE_PX = 16_384
"""Limit for still images: 1.7 s for 24 megapixels on one core."""

_SMALLEST_FACE_PX = 16.0
"""Side in px of the input from which most faces are found (benchmarks/resolution.py)."""

_MAX_UPSCALING = 4.0
"""Maximum scale factor of small images: at a long side of 48 px, ×4 found 109 of 170 faces, ×6.7 102 and ×1 30."""

_NMS_IOU = 0.3
"""Boxes whose IoU with a more confident box exceeds this are the same face: the default of `cv2.FaceDetectorYN`."""

# Chosen on FER-2013's PublicTest by benchmarks/crop_margin.py; the tables are in docs/evidence/parameters.md.
_CROP_GEOMETRY = CropGeometry(scale=0.95, y_offset=0.04)


class YuNetDetector:
    """Finds faces with YuNet, as published in opencv_zoo or trained with its recipe.

    `weights` is an ONNX file; a file that is missing, damaged or not a YuNet raises `WeightsError`. Images are scaled
    to a long side of `input_size_px`, small ones by at most a factor of four. The cost of an image therefore depends
    only on its aspect ratio, and small faces in small images are found. Detections below `min_confidence`, 0..1, are
    dropped. One call uses `threads` cores.
    """

    def __init__(
        self, weights: Path, *, min_confidence: float, input_size_px: int = _INPUT_PX, threads: int = 1
    ) -> None:
        data = model_files.read_weights(weights)
        name = f"yunet-{model_files.published_name(data).removeprefix('yunet-')}"
        self.spec = DetectorSpec(
            name,
            _CROP_GEOMETRY,
            InputSpec(_INPUT_PX, _MAX_INPUT_PX, _MAX_INPUT_PX, _MAX_IMAGE_PX, _SMALLEST_FACE_PX, any_size=True),
        )
        self._input_size_px = input_size_px
        self._min_confidence = min_confidence
        self._session = _open_session(data, weights, threads)
        self._input: str = self._session.get_inputs()[0].name

    def detect(self, image: U8, input_size_px: int | None = None) -> Detections:
        """Return the faces in `image`, uint8 (H, W, 3) BGR, most confident first; see `FaceNetwork`."""
        height, width = image.shape[:2]
        scaled = _rescale(image, input_size_px or self._input_size_px)
        tensor = _to_tensor(scaled)
        outputs = self._session.run(_OUTPUTS, {self._input: tensor})
        points, confidence = _decode(outputs, tensor.shape[2], tensor.shape[3], self._min_confidence)
        kept = nms(points[:, :2].reshape(-1, 4), confidence, _NMS_IOU)
        points = points[kept] * np.array((width / scaled.shape[1], height / scaled.shape[0]), np.float32)
        return Detections(points[:, :2].reshape(-1, 4), confidence[kept], points[:, 2:])


def _open_session(data: bytes, path: Path, threads: int) -> Any:
    """Return an ONNX Runtime session on the CPU whose input may have any size."""
    try:
        session = open_session(data, threads=threads)
    except LOAD_ERRORS as error:
        raise WeightsError(
            f"{path} is damaged or not an ONNX file. Download the weights with `fer-stream models pull`."
        ) from error
    if not set(_OUTPUTS) <= {output.name for output in session.get_outputs()}:
        raise WeightsError(
            f"{path} is an ONNX model, but not a YuNet: it has no output {_OUTPUTS[0]}. "
            "Download the weights with `fer-stream models pull`."
        )
    fixed_size = isinstance(session.get_inputs()[0].shape[2], int)
    return open_session(_with_free_size(data), threads=threads) if fixed_size else session


def _with_free_size(data: bytes) -> bytes:
    """Return the network with variable height and width: it is convolutional, only its graph declares 640×640."""
    model = _model_message().FromString(data)
    dims = list(model.graph.input[0].type.tensor_type.shape.dim[2:])
    dims += [output.type.tensor_type.shape.dim[1] for output in model.graph.output]
    for dim in dims:
        dim.Clear()
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


_SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph")},
    "Graph": {"input": (11, "Value"), "output": (12, "Value"), "value_info": (13, "Value")},
    "Value": {"type": (2, "Type")},
    "Type": {"tensor_type": (1, "Tensor")},
    "Tensor": {"shape": (2, "Shape")},
    "Shape": {"dim": (1, "Dim")},
    "Dim": {},
}
"""The messages of onnx.proto that lead to the shapes: number and type of each field. protobuf keeps all other fields
as they are, so the package `onnx` is not needed."""

_REPEATED = {"input", "output", "value_info", "dim"}


@cache
def _model_message() -> Any:
    """Return the class of an ONNX model that contains the fields of `_SCHEMA`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="fer_stream/onnx_shapes.proto", package="onnx_shapes", syntax="proto2"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    for message, fields in _SCHEMA.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            descriptor.field.add(
                name=name,
                number=number,
                label=field_type.LABEL_REPEATED if name in _REPEATED else field_type.LABEL_OPTIONAL,
                type=field_type.TYPE_MESSAGE,
                type_name=f".onnx_shapes.{kind}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_shapes.Model"))


def _rescale(image: U8, input_size_px: int) -> U8:
    height, width = image.shape[:2]
    scale = min(input_size_px / max(height, width), _MAX_UPSCALING)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _to_tensor(image: U8) -> F32:
    """Convert uint8 (h, w, 3) to float32 (1, 3, H, W), 0..255, padded with black at the bottom and the right."""
    height, width = image.shape[:2]
    padded = [-(-side // _MULTIPLE_PX) * _MULTIPLE_PX for side in (height, width)]
    tensor = np.zeros((1, 3, *padded), np.float32)
    for channel, plane in enumerate(cv2.split(image)):
        tensor[0, channel, :height, :width] = plane
    return tensor


def _decode(outputs: Sequence[F32], height: int, width: int, min_confidence: float) -> tuple[F32, F32]:
    """Convert outputs to points float32 (n, 7, 2) in px of the network's input, and confidence float32 (n,).

    The points are two corners of the box and five landmarks. `outputs` are in the order of `_OUTPUTS`.
    """
    levels = len(_STRIDES_PX)
    cls, obj, bbox, kps = (
        np.concatenate(outputs[at : at + levels], axis=1)[0] for at in range(0, 4 * levels, levels)
    )
    confidence = np.sqrt(cls * obj)[:, 0]
    found = np.flatnonzero(confidence >= min_confidence)
    cells, strides = _grid(height, width)
    cell, stride = cells[found, None], strides[found, None, None]
    centre = cell + bbox[found, None, :2]
    half = np.exp(bbox[found, None, 2:]) / 2
    landmarks = cell + kps[found].reshape(-1, 5, 2)
    return np.concatenate((centre - half, centre + half, landmarks), axis=1) * stride, confidence[found]


@lru_cache(maxsize=16)
def _grid(height: int, width: int) -> tuple[F32, F32]:
    """Return column and row (n, 2) of every cell in its grid, and the stride (n,) of that grid."""
    cells, strides = [], []
    for stride in _STRIDES_PX:
        rows, columns = np.indices((height // stride, width // stride))
        cells.append(np.stack((columns.ravel(), rows.ravel()), axis=1))
        strides.append(np.full(rows.size, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
