"""The model on the CPU with OpenVINO, which is optional: `pip install 'fer-stream[openvino]'`. Loads no TensorFlow.

It runs the int8 file of LiteRT and gives the labels that LiteRT gives; a folder without that file in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fer_stream.classify.classifier import ClassifierOutput, run_batches, validate_outputs
from fer_stream.classify.model_card import LITERT_FILE, ONNX_FILE, first_available, read_card
from fer_stream.errors import ConfigError, ModelError
from fer_stream.records import F32, U8

# To import OpenVINO is to tell Google Analytics, and to leave an identifier in the home directory. It does neither
# where this package cannot be imported, which it needs for nothing else.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino as ov
except ImportError as error:
    raise ConfigError(
        "OpenVINO is not installed. Install it with pip install 'fer-stream[openvino]', or let another runtime "
        "classify (model.backend, --backend)."
    ) from error

# As in LiteRT: a larger batch is no faster on a CPU (docs/evidence/backends.md). OpenVINO keeps a program for every number of
# faces that it saw; this bounds them.
_CHUNK = 32


class OpenVinoClassifier:
    """The model of a model folder in OpenVINO, on `threads` CPU threads.

    Raises `ModelError` where the folder holds no model that fits.
    """

    def __init__(self, model_dir: Path, *, threads: int = 1) -> None:
        name = first_available(model_dir, LITERT_FILE, ONNX_FILE)
        self.spec = read_card(model_dir, name)
        path = model_dir / name
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            # It would take bfloat16 where the CPU knows it, in which the float32 graph is slower than the int8 file.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            # Several workers share the machine: each of them would pin itself to the first cores.
            "ENABLE_CPU_PINNING": False,
        }
        core = ov.Core()
        try:
            model = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path} is no model that OpenVINO can read: {error}. Export it again.") from error
        validate_outputs(path, model.output(0).partial_shape[-1].get_length())
        self._request = model.create_infer_request()

    def predict(self, pixels: U8) -> ClassifierOutput:
        """Judge face crops, uint8 (n, 48, 48). n may be 0. Raises `ValueError` for any other shape or dtype."""
        return run_batches(pixels, self._run, batch_size=_CHUNK, temperature=self.spec.temperature)

    def _run(self, faces: F32) -> F32:
        """One batch, float32 (n, 48, 48, 1) → (n, k). The first batch of a size costs 4–10 ms more."""
        scores: F32 = self._request.infer(faces, share_inputs=True)[0]
        return scores
