"""Model on the CPU in OpenVINO, an optional dependency: `pip install 'fer-stream[openvino]'`.

Runs the int8 file of LiteRT, with the same labels as LiteRT, or the float32 ONNX file if the folder has no int8 file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fer_stream.classify.backends import BACKENDS
from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import first_available, read_card
from fer_stream.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.records import F32, U8

# Importing OpenVINO reports to Google Analytics and stores an identifier in the home directory, unless this package,
# which is used for nothing else, cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402 - after the telemetry is disabled

# As in LiteRT: larger batches are not faster on a CPU (docs/evidence/backends.md). OpenVINO keeps a compiled program
# per batch size, so this also bounds their number.
_BATCH_SIZE = 32


class OpenVinoClassifier:
    """Runs the model of a model folder in OpenVINO on `threads` CPU threads.

    Raises `ModelError` if the folder contains no compatible model.
    """

    def __init__(self, model_dir: Path, *, threads: int = 1) -> None:
        name = first_available(model_dir, BACKENDS["openvino"].files)
        self.spec = read_card(model_dir, name)
        path = model_dir / name
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            # The default is bfloat16 if the CPU supports it, which makes the float32 graph slower than the int8 file.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            # Several workers share the machine, and each of them would pin its threads to the first cores.
            "ENABLE_CPU_PINNING": False,
        }
        core = ov.Core()
        try:
            model = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path} is not a valid model for OpenVINO: {error}. Export it again.") from error
        validate_outputs(path, model.output(0).partial_shape[-1].get_length())
        self._request = model.create_infer_request()

    def predict(self, pixels: U8) -> ClassifierOutput:
        """See `EmotionClassifier.predict`."""
        return run_batches(pixels, self._run, batch_size=_BATCH_SIZE, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """Run one batch, float32 (n, 48, 48, 1) → (n, k). The first batch of each size takes 4–10 ms longer."""
        scores: F32 = self._request.infer(faces, share_inputs=True)[0]
        return scores
