"""int8 on the CPU with LiteRT: the default classifier. Loads no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import LITERT_FILE, read_card
from fer_stream.errors import ModelError
from fer_stream.log import suppress_native_stderr
from fer_stream.records import F32, U8

# Larger batches bring no speed on a CPU (docs/evidence/parameters.md), only memory: 5 MB of activations at 32 faces.
_CHUNK = 32


class LiteRTClassifier:
    """The int8 model of a model folder, on `threads` CPU threads.

    Raises `ModelError` where the folder holds no model that fits.
    """

    def __init__(self, model_dir: Path, *, threads: int = 1) -> None:
        self.spec = read_card(model_dir, LITERT_FILE)
        path = model_dir / LITERT_FILE
        try:
            with suppress_native_stderr():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{path} is no LiteRT model: {error}. Export it again.") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        output = self._interpreter.get_output_details()[0]
        self._output = output["index"]
        self._batch = 1
        validate_outputs(path, int(output["shape"][-1]))

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Judge face crops, uint8 (n, 48, 48). n may be 0. Raises `ValueError` for any other shape or dtype."""
        return run_batches(pixels, self._run, batch_size=_CHUNK, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """One batch, float32 (n, 48, 48, 1) → (n, k). A new size costs 0.1 ms, padding up to 3 ms a row."""
        if len(faces) != self._batch:
            self._interpreter.resize_tensor_input(self._input, faces.shape)
            self._interpreter.allocate_tensors()
            self._batch = len(faces)
        self._interpreter.set_tensor(self._input, faces)
        self._interpreter.invoke()
        scores: F32 = self._interpreter.get_tensor(self._output)
        return scores
