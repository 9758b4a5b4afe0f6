"""Keras model on TensorFlow: for GPUs, and as the reference for the int8 model.

Importing this module loads TensorFlow, which takes seconds, and makes it the backend of Keras.
"""

from __future__ import annotations

import contextlib
import os

import numpy as np

# Both are read while the libraries load. TensorFlow logs a missing GPU as an error (level 2); actual errors raise
# Python exceptions at any level.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from fer_stream.classify.backends import KERAS_FILE
from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD, read_card
from fer_stream.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.records import F32, U8


class KerasClassifier:
    """Runs the Keras model of a model folder, on a GPU if TensorFlow sees one.

    Batches of at most `batch_size` faces are padded to a power of two or to `batch_size`, so that TensorFlow traces
    a few graphs instead of one per number of faces. Raises `ModelError` if the folder contains no compatible model.
    """

    def __init__(self, model_dir: Path, *, batch_size: int) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ModelError(
                f"Keras uses the backend {keras.backend.backend()}, because it was imported before fer-stream. "
                "Set the environment variable KERAS_BACKEND=tensorflow."
            )
        self.spec = read_card(model_dir, KERAS_FILE)
        _share_gpus()
        self._batch_size = batch_size
        head = _head(model_dir / KERAS_FILE)
        self._infer = tf.function(lambda faces: head(faces, training=False))

    def predict(self, pixels: U8) -> ClassifierOutput:
        """See `EmotionClassifier.predict`."""
        return run_batches(pixels, self._run, batch_size=self._batch_size, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """Run one batch, float32 (n, 48, 48, 1) → (n, k), n ≤ batch_size."""
        missing = padded_size(len(faces), self._batch_size) - len(faces)
        padded = np.pad(faces, ((0, missing), (0, 0), (0, 0), (0, 0)))
        scores: F32 = self._infer(tf.constant(padded)).numpy()
        return scores[: len(faces)]


def padded_size(n: int, batch_size: int) -> int:
    """Return the size that a batch of n faces is padded to: the next power of two, at most `batch_size`."""
    return int(min(1 << (n - 1).bit_length(), batch_size))


def _head(path: Path) -> keras.Model:
    """Return the graph from the input to the scores of the seven labels and, if present, of FER+."""
    try:
        model = keras.models.load_model(path, compile=False)
        outputs = [model.get_layer(FER2013_HEAD).output]
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{path} is not a valid Keras model with an output {FER2013_HEAD!r}: {error}. Save it again."
        ) from error
    outputs += [layer.output for layer in model.layers if layer.name == FERPLUS_HEAD]
    validate_outputs(path, sum(output.shape[-1] for output in outputs))
    return keras.Model(model.inputs, keras.ops.concatenate(outputs, axis=1))


def _share_gpus() -> None:
    """Let TensorFlow allocate GPU memory on demand instead of all at once: several workers share one GPU."""
    for gpu in tf.config.list_physical_devices("GPU"):
        # Fails if this process has used the GPU before; then its memory is already allocated.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
