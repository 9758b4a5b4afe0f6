"""ONNX model on the CPU in ONNX Runtime: int8 if the folder contains it, otherwise float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_stream.classify.backends import BACKENDS
from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import first_available, read_card
from fer_stream.errors import ModelError
from fer_stream.onnxruntime import LOAD_ERRORS, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.records import F32, U8

# As in LiteRT: larger batches are not faster on a CPU (docs/evidence/backends.md) and need more memory.
_BATCH_SIZE = 32


class OnnxClassifier:
    """Runs the ONNX model of a model folder on `threads` CPU threads.

    Raises `ModelError` if the folder contains no compatible model.
    """

    def __init__(self, model_dir: Path, *, threads: int = 1) -> None:
        name = first_available(model_dir, BACKENDS["onnx"].files)
        self.spec = read_card(model_dir, name)
        path = model_dir / name
        try:
            self._session = open_session(path, threads=threads)
        except LOAD_ERRORS as error:
            raise ModelError(f"{path} is not a valid ONNX model: {error}. Export it again.") from error
        self._input: str = self._session.get_inputs()[0].name
        output = self._session.get_outputs()[0]
        self._outputs = [output.name]
        validate_outputs(path, output.shape[-1])

    def predict(self, pixels: U8) -> ClassifierOutput:
        """See `EmotionClassifier.predict`."""
        return run_batches(pixels, self._run, batch_size=_BATCH_SIZE, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """Run one batch, float32 (n, 48, 48, 1) → (n, k)."""
        scores: F32 = self._session.run(self._outputs, {self._input: faces})[0]
        return scores
