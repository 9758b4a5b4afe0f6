"""The Keras model on TensorFlow: for GPUs, and the reference that the int8 model is held against.

Importing this module loads TensorFlow (seconds) and makes it the backend of Keras.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

# Both are read while the libraries load. TensorFlow calls a machine without a GPU an error (level 2); a real
# fault reaches us as a Python exception whatever the level.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD, KERAS_FILE, read_card
from fer_stream.errors import ModelError
from fer_stream.records import F32, U8


class KerasClassifier:
    """The Keras model of a model folder, on a GPU where TensorFlow sees one.

    At most `max_batch` faces run at once. Batches are padded to a power of two (or to `max_batch`), so that
    TensorFlow traces a handful of graphs and not one for every number of faces. Raises `ModelError` where the
    folder holds no model that fits.
    """

    def __init__(self, model_dir: Path, *, batch_size: int) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ModelError(
                f"Keras runs on {keras.backend.backend()}, because it was imported before fer-stream. "
                "Set KERAS_BACKEND=tensorflow."
            )
        self.spec = read_card(model_dir, KERAS_FILE)
        _share_gpus()
        self._max_batch = batch_size
        head = _head(model_dir / KERAS_FILE)
        self._infer = tf.function(lambda faces: head(faces, training=False))

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Judge face crops, uint8 (n, 48, 48). n may be 0. Raises `ValueError` for any other shape or dtype."""
        return run_batches(pixels, self._run, batch_size=self._max_batch, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """One batch, float32 (n, 48, 48, 1) → (n, k), n ≤ max_batch."""
        missing = padded_size(len(faces), self._max_batch) - len(faces)
        padded = np.pad(faces, ((0, missing), (0, 0), (0, 0), (0, 0)))
        scores: F32 = self._infer(tf.constant(padded)).numpy()
        return scores[: len(faces)]


def padded_size(n: int, batch_size: int) -> int:
    """The batch size that n faces are padded to: the next power of two, or `max_batch` where that is less."""
    return int(min(1 << (n - 1).bit_length(), batch_size))


def _head(path: Path) -> keras.Model:
    """The graph from the input to the scores of the seven labels, and of FER+ where it has them."""
    try:
        model = keras.models.load_model(path, compile=False)
        outputs = [model.get_layer(FER2013_HEAD).output]
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{path} is no Keras model with an output {FER2013_HEAD!r}: {error}. Save it again."
        ) from error
    outputs += [layer.output for layer in model.layers if layer.name == FERPLUS_HEAD]
    validate_outputs(path, sum(output.shape[-1] for output in outputs))
    return keras.Model(model.inputs, keras.ops.concatenate(outputs, axis=1))


def _share_gpus() -> None:
    """Let TensorFlow take GPU memory as it needs it, and not all at once: several workers share one GPU."""
    for gpu in tf.config.list_physical_devices("GPU"):
        # Too late where this process used the GPU before: then it already has its memory, and that is its choice.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
