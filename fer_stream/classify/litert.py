"""int8 model on the CPU in LiteRT: the default classifier. Does not load TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_edge_litert.interpreter import Interpreter

from fer_stream.classify.backends import LITERT_FILE
from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import read_card
from fer_stream.errors import ModelError
from fer_stream.log import suppress_native_stderr

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.records import F32, U8

# Larger batches are not faster on a CPU (docs/evidence/parameters.md) and need more memory (5 MB at 32 faces).
_BATCH_SIZE = 32


class LiteRTClassifier:
    """Runs the int8 model of a model folder on `threads` CPU threads.

    Raises `ModelError` if the folder contains no compatible model.
    """

    def __init__(self, model_dir: Path, *, threads: int = 1) -> None:
        self.spec = read_card(model_dir, LITERT_FILE)
        path = model_dir / LITERT_FILE
        try:
            with suppress_native_stderr():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{path} is not a valid LiteRT model: {error}. Export it again.") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        output = self._interpreter.get_output_details()[0]
        self._output = output["index"]
        self._batch = 1
        validate_outputs(path, int(output["shape"][-1]))

    def predict(self, pixels: U8) -> ClassifierOutput:
        """See `EmotionClassifier.predict`."""
        return run_batches(pixels, self._run, batch_size=_BATCH_SIZE, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """Run one batch, float32 (n, 48, 48, 1) → (n, k).

        A change of size costs 0.1 ms; padding would cost up to 3 ms per row.
        """
        if len(faces) != self._batch:
            self._interpreter.resize_tensor_input(self._input, faces.shape)
            self._interpreter.allocate_tensors()
            self._batch = len(faces)
        self._interpreter.set_tensor(self._input, faces)
        self._interpreter.invoke()
        scores: F32 = self._interpreter.get_tensor(self._output)
        return scores
