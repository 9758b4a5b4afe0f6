"""A finished run as a model folder: Keras, int8 LiteRT, ONNX in float32 and int8, and the card that describes them.

Importing this module loads TensorFlow, whose converter makes the LiteRT file.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from fer_stream.classify.backends import KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE
from fer_stream.classify.classifier import MIN_HIGHLIGHT
from fer_stream.classify.model_card import CARD_NAME, FER2013_HEAD
from fer_stream.config.training import TrainSettings
from fer_stream.errors import OutputExists
from fer_stream.records import CROP_SIZE_PX, LABELS, U8
from fer_stream.training import onnx
from fer_stream.training import quantize_onnx as onnx_int8
from fer_stream.training.checkpoints import HISTORY, ORIGIN, load_run, sha256_of
from fer_stream.training.dataset import load_parts
from fer_stream.training.evaluate import best_temperature
from fer_stream.training.fit import accuracy, predict
from fer_stream.training.network import heads_in, multiply_adds
from fer_stream.training.progress import best, read_history

# int8 ranges are taken from so many training crops; more change nothing.
_CALIBRATION_FACES = 500
_SCORES = "scores"


def export(run: Path, out: Path, *, model_id: str, force: bool = False, **stated: str) -> dict[str, Any]:
    """Write the model of `run` into the folder `out`, and return its card, which says what is `stated`, too.

    The temperature that calibrates the probabilities is chosen on PublicTest. Raises `ModelError` where the run is
    not finished, `OutputExists` where `out` holds a model.
    """
    if (out / CARD_NAME).exists() and not force:
        raise OutputExists(f"{out} holds a model. Name another folder with --out, or replace it with --force.")
    settings, net = load_run(run)
    parts = load_parts(settings.data.path, settings.data.ferplus)
    out.mkdir(parents=True, exist_ok=True)
    net.save(out / KERAS_FILE)
    some = _calibration(parts["train"].images)
    scores = _scores(net)
    (out / LITERT_FILE).write_bytes(_int8(scores, some))
    onnx.write(scores, [_SCORES], out / ONNX_FILE)
    onnx_int8.write(out / ONNX_FILE, some, out / ONNX_INT8_FILE)
    temperature = best_temperature(predict(net, parts["public"].images)[FER2013_HEAD], parts["public"].labels)
    card = {
        "model_id": model_id,
        **stated,
        **_description(net, temperature, accuracy(net, parts["public"]), out),
        "training": _how(settings, run),
    }
    (out / CARD_NAME).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return card


def _calibration(images: U8) -> U8:
    return images[np.random.default_rng(0).choice(len(images), min(_CALIBRATION_FACES, len(images)), replace=False)]


def _scores(net: keras.Model) -> keras.Model:
    """The net with its heads as one output, float32 (n, k): the logits of the labels, then those of FER+ if any."""
    heads = [net.get_layer(head) for head in heads_in(net)]
    merged = keras.layers.Dense(sum(head.units for head in heads), name=_SCORES)
    scores = keras.Model(net.inputs, merged(heads[0].input))
    weights = [head.get_weights() for head in heads]
    merged.set_weights([np.concatenate(parts, axis=-1) for parts in zip(*weights, strict=True)])
    return scores


def _int8(net: keras.Model, images: U8) -> bytes:
    """int8 inside, float32 at both ends: 256 steps are too few for a probability."""
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None, ..., None].astype(np.float32)] for image in images)
    with redirect_stdout(io.StringIO()):  # Keras prints the signature of what it hands over
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
    """How it was trained; first weights and teachers are told by what was in them, and not by where they lay."""
    asked = settings.model_dump(mode="json", exclude={"data": True, "start_from": True, "teachers": {"runs"}})
    origin = json.loads((run / ORIGIN).read_text(encoding="utf-8"))
    return {**asked, **origin, "kept_epoch": best(read_history(run / HISTORY)).epoch + 1}
