"""Export of a finished run as a model folder: Keras, int8 LiteRT, ONNX in float32 and int8, and the model card.

Importing this module loads TensorFlow, which converts to LiteRT.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnx
import tensorflow as tf
from keras import layers
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from fer_stream.classify.backends import KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE
from fer_stream.classify.classifier import MIN_HIGHLIGHT
from fer_stream.classify.model_card import CARD_NAME, FER2013_HEAD
from fer_stream.errors import ModelError, OutputExists
from fer_stream.records import CROP_SIZE_PX, F32, LABELS, U8
from fer_stream.training.checkpoints import HISTORY, ORIGIN, load_run, sha256_of
from fer_stream.training.dataset import load_splits
from fer_stream.training.evaluate import best_temperature
from fer_stream.training.fit import accuracy, predict
from fer_stream.training.network import heads_in, multiply_adds
from fer_stream.training.progress import best_epoch, read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_stream.config.training import TrainSettings

# Training crops for the ranges of int8; more make no difference.
_CALIBRATION_FACES = 500
_SCORES = "scores"

# The newest version that ONNX Runtime 1.20 and OpenVINO 2025 both support.
_OPSET = 17
_IR_VERSION = 9

_ONNX_INPUT = "faces"
_CALIBRATION_BATCH = 50

# The expensive nodes; the head stays float32, so that logits are not rounded to 256 steps.
_QUANTIZED_NODES = ["Conv", "Relu", "MaxPool", "Add"]


def export(run: Path, out: Path, *, model_id: str, force: bool = False, **stated: str) -> dict[str, Any]:
    """Write the model of `run` to the folder `out` and return its card, including the entries `stated`.

    The temperature is selected on PublicTest. Raises `ModelError` if the run is not finished, `OutputExists` if `out`
    contains a model.
    """
    if (out / CARD_NAME).exists() and not force:
        raise OutputExists(f"{out} contains a model. Choose another folder with --out, or replace it with --force.")
    settings, net = load_run(run)
    parts = load_splits(settings.data.path, settings.data.ferplus)
    out.mkdir(parents=True, exist_ok=True)
    net.save(out / KERAS_FILE)
    some = _calibration(parts["train"].images)
    scores = _scores(net)
    (out / LITERT_FILE).write_bytes(_int8(scores, some))
    write_onnx(scores, [_SCORES], out / ONNX_FILE)
    write_int8_onnx(out / ONNX_FILE, some, out / ONNX_INT8_FILE)
    temperature = best_temperature(predict(net, parts["val"].images)[FER2013_HEAD], parts["val"].labels)
    card = {
        "model_id": model_id,
        **stated,
        **_description(net, temperature, accuracy(net, parts["val"]), out),
        "training": _how(settings, run),
    }
    (out / CARD_NAME).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return card


def _calibration(images: U8) -> U8:
    return images[np.random.default_rng(0).choice(len(images), min(_CALIBRATION_FACES, len(images)), replace=False)]


def _scores(net: keras.Model) -> keras.Model:
    """Merge the heads into one output, float32 (n, k): logits of the labels, then those of FER+ if any."""
    heads = [net.get_layer(head) for head in heads_in(net)]
    merged = keras.layers.Dense(sum(head.units for head in heads), name=_SCORES)
    scores = keras.Model(net.inputs, merged(heads[0].input))
    weights = [head.get_weights() for head in heads]
    merged.set_weights([np.concatenate(parts, axis=-1) for parts in zip(*weights, strict=True)])
    return scores


def _int8(net: keras.Model, images: U8) -> bytes:
    """Convert to LiteRT with int8 kernels and float32 input and output; 256 steps are too few for probabilities."""
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None, ..., None].astype(np.float32)] for image in images)
    with redirect_stdout(io.StringIO()):  # Keras prints the signature
        converted: bytes = converter.convert()
    return converted


def _description(net: keras.Model, temperature: float, public: float, out: Path) -> dict[str, Any]:
    side = CROP_SIZE_PX
    return {
        "labels": list(LABELS),
        "input": {
            "height_px": side,
            "width_px": side,
            "channels": 1,
            "dtype": "float32, values 0..255",
            "dark_faces": f"mean + 2 standard deviations below {MIN_HIGHLIGHT:g}: multiplied until it is that, "
            "at most 255",
        },
        "output": {"kind": "logits", "temperature": round(temperature, 4)},
        "parameters": net.count_params(),
        "macs": multiply_adds(net),
        "metrics": {"public_test_single_crop": round(public, 4)},
        "versions": {name: version(name) for name in ("fer-stream", "keras")},
        "files": {name: sha256_of(out / name) for name in (KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE)},
    }


def _how(settings: TrainSettings, run: Path) -> dict[str, Any]:
    """Return the training settings; initial weights and teachers are identified by SHA-256 instead of by path."""
    asked = settings.model_dump(mode="json", exclude={"data": True, "start_from": True, "teachers": {"runs"}})
    origin = json.loads((run / ORIGIN).read_text(encoding="utf-8"))
    return {**asked, **origin, "kept_epoch": best_epoch(read_history(run / HISTORY)).epoch + 1}


def write_onnx(net: keras.Model, heads: list[str], path: Path) -> None:
    """Write `net` with these heads: `faces` float32 (n, 48, 48, 1), values 0..255 → logits float32 (n, k) of each.

    Raises `ModelError` for other layers than those of `network.py`.
    """
    graph = _OnnxGraph()
    for layer in net.layers:
        graph.add(layer)
    outputs = [
        helper.make_tensor_value_info(head, onnx.TensorProto.FLOAT, ["n", net.get_layer(head).units])
        for head in heads
    ]
    faces = helper.make_tensor_value_info("faces", onnx.TensorProto.FLOAT, ["n", CROP_SIZE_PX, CROP_SIZE_PX, 1])
    made = helper.make_graph(graph.nodes, net.name, [faces], outputs, graph.weights)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="fer-stream"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class _OnnxGraph:
    """ONNX nodes in the order of the layers. Tensors are named after their layer; feature maps are NCHW."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._kinds: dict[type[keras.Layer], Callable[[Any], None]] = {
            layers.InputLayer: lambda _: None,
            layers.Rescaling: self._scale,
            layers.Conv2D: self._conv,
            layers.BatchNormalization: self._norm,
            layers.ReLU: lambda layer: self._node("Relu", layer),
            layers.MaxPooling2D: self._max_pool,
            layers.GlobalAveragePooling2D: self._mean,
            layers.Dropout: lambda layer: self._node("Identity", layer),
            layers.Flatten: self._flatten,
            layers.Add: lambda layer: self._node("Add", layer),
            layers.Dense: self._dense,
        }

    def add(self, layer: keras.Layer) -> None:
        """Add the nodes of `layer`."""
        if type(layer) not in self._kinds:
            raise ModelError(f"{layer.name} is a {type(layer).__name__}, which the ONNX export does not support.")
        self._kinds[type(layer)](layer)

    def _node(self, kind: str, layer: keras.Layer, *weights: F32, to: str = "", of: str = "", **options: Any) -> None:
        names = [f"{layer.name}/{kind}/{number}" for number in range(len(weights))]
        for name, weight in zip(names, weights, strict=True):
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(weight), name))
        inputs = [of] if of else _input_names(layer)
        self.nodes.append(helper.make_node(kind, [*inputs, *names], [to or layer.name], **options))

    def _scale(self, layer: layers.Rescaling) -> None:
        scaled, moved = f"{layer.name}/scaled", f"{layer.name}/moved"
        self._node("Mul", layer, np.array(layer.scale, np.float32), to=scaled)
        self._node("Add", layer, np.array(layer.offset, np.float32), of=scaled, to=moved)
        self._node("Transpose", layer, of=moved, perm=[0, 3, 1, 2])

    def _conv(self, layer: layers.Conv2D) -> None:
        kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        self._node("Conv", layer, kernel, strides=list(layer.strides), auto_pad="SAME_UPPER")

    def _norm(self, layer: layers.BatchNormalization) -> None:
        values = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
        self._node("BatchNormalization", layer, *(np.asarray(value) for value in values), epsilon=layer.epsilon)

    def _max_pool(self, layer: layers.MaxPooling2D) -> None:
        self._node("MaxPool", layer, kernel_shape=list(layer.pool_size), strides=list(layer.strides))

    def _mean(self, layer: layers.GlobalAveragePooling2D) -> None:
        self._node("GlobalAveragePool", layer, to=f"{layer.name}/mean")
        self._node("Flatten", layer, of=f"{layer.name}/mean")

    def _flatten(self, layer: layers.Flatten) -> None:
        self._node("Transpose", layer, to=f"{layer.name}/nhwc", perm=[0, 2, 3, 1])
        self._node("Flatten", layer, of=f"{layer.name}/nhwc")

    def _dense(self, layer: layers.Dense) -> None:
        kernel, bias = np.asarray(layer.kernel), np.zeros(layer.units, np.float32)
        self._node("Gemm", layer, kernel, np.asarray(layer.bias) if layer.use_bias else bias)


def _input_names(layer: keras.Layer) -> list[str]:
    """Return the names of the input layers of `layer`."""
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]


def write_int8_onnx(graph: Path, images: U8, path: Path) -> None:
    """Write the float32 `graph` with int8 kernels to `path`; ranges are taken from `images`, uint8 (n, 48, 48).

    Weights have 7 bits: without VNNI the CPU adds two products in 16 bits, which 8 bits overflow (70.8 % instead of
    73.0 % of 1,500 faces of PrivateTest).
    """
    with TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(graph, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            path,
            _CalibrationFaces(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED_NODES,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )


class _CalibrationFaces(CalibrationDataReader):  # type: ignore[misc]
    """Faces in batches for the calibration."""

    def __init__(self, images: U8) -> None:
        self._batches = self._split(images)

    def get_next(self) -> dict[str, F32] | None:
        """Return the next batch, or None after the last."""
        return next(self._batches, None)

    def _split(self, images: U8) -> Iterator[dict[str, F32]]:
        for start in range(0, len(images), _CALIBRATION_BATCH):
            yield {_ONNX_INPUT: images[start : start + _CALIBRATION_BATCH, ..., np.newaxis].astype(np.float32)}
