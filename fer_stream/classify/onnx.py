"""The model on the CPU with ONNX Runtime: int8 where the folder has it, else float32. Loads no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import ONNX_FILE, ONNX_INT8_FILE, first_available, read_card
from fer_stream.errors import ModelError
from fer_stream.onnxruntime import LOAD_ERRORS, open_session
from fer_stream.records import F32, U8

# As in LiteRT: a larger batch is no faster on a CPU (docs/evidence/backends.md) and needs more memory.
_CHUNK = 32


class OnnxClassifier:
    """The ONNX graph of a model folder, on `threads` CPU threads.

    Raises `ModelError` where the folder holds no ONNX graph that fits.
    """

    def __init__(self, model_dir: Path, *, threads: int = 1) -> None:
        name = first_available(model_dir, ONNX_INT8_FILE, ONNX_FILE)
        self.spec = read_card(model_dir, name)
        path = model_dir / name
        try:
            self._session = open_session(path, threads=threads)
        except LOAD_ERRORS as error:
            raise ModelError(f"{path} is no ONNX model: {error}. Export it again.") from error
        self._input: str = self._session.get_inputs()[0].name
        output = self._session.get_outputs()[0]
        self._outputs = [output.name]
        validate_outputs(path, output.shape[-1])

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Judge face crops, uint8 (n, 48, 48). n may be 0. Raises `ValueError` for any other shape or dtype."""
        return run_batches(pixels, self._run, batch_size=_CHUNK, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """One batch, float32 (n, 48, 48, 1) → (n, k)."""
        scores: F32 = self._session.run(self._outputs, {self._input: faces})[0]
        return scores
