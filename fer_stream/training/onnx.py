"""A Keras net as an ONNX graph. The layers of `network.py` are known, no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import helper, numpy_helper

from fer_stream.errors import ModelError
from fer_stream.records import CROP_SIZE_PX, F32

# The newest that ONNX Runtime 1.20 and OpenVINO 2025 both read.
_OPSET = 17
_IR_VERSION = 9


def write(net: keras.Model, heads: list[str], path: Path) -> None:
    """Write `net` with these heads: `faces` float32 (n, 48, 48, 1), values 0..255 → logits float32 (n, k) of each.

    Raises `ModelError` where the net holds a layer of another kind.
    """
    graph = _Graph()
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


class _Graph:
    """Nodes in the order of the layers. A tensor has the name of the layer that it comes from; pictures are NCHW."""

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
        """Add what `layer` computes."""
        if type(layer) not in self._kinds:
            raise ModelError(f"{layer.name} is a {type(layer).__name__}, which cannot be written as ONNX yet.")
        self._kinds[type(layer)](layer)

    def _node(self, kind: str, layer: keras.Layer, *weights: F32, to: str = "", of: str = "", **options: Any) -> None:
        names = [f"{layer.name}/{kind}/{number}" for number in range(len(weights))]
        for name, weight in zip(names, weights, strict=True):
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(weight), name))
        inputs = [of] if of else _inputs(layer)
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


def _inputs(layer: keras.Layer) -> list[str]:
    """The names of the layers that this one takes its input from."""
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]
