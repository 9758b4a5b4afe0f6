"""Registry of inference backends, and selection of the fastest one (docs/evidence/backends.md).

The command line reads the names from it, so this module imports nothing outside the standard library.

To add a backend, write a module with a class that implements `EmotionClassifier` and takes the model folder and the
settings it needs as keyword arguments; then add an entry to `BACKENDS` and its name to `ModelSettings.backend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

KERAS_FILE, LITERT_FILE = "emotion.keras", "emotion.int8.tflite"
ONNX_FILE, ONNX_INT8_FILE = "emotion.onnx", "emotion.int8.onnx"
"""Files of a model folder."""

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Backend:
    """An inference backend that settings can name."""

    class_path: str
    """`module:Class`, imported when the classifier is created."""
    package: str
    """Distribution that must be installed."""
    files: tuple[str, ...]
    """Files of a model folder that it can run, in order of preference."""
    settings: tuple[str, ...] = ("threads",)
    """Arguments of the class besides the model folder: `threads`, `batch_size`."""


BACKENDS = {
    "litert": Backend("fer_stream.classify.litert:LiteRTClassifier", "ai-edge-litert", (LITERT_FILE,)),
    "onnx": Backend("fer_stream.classify.onnx:OnnxClassifier", "onnxruntime", (ONNX_INT8_FILE, ONNX_FILE)),
    "openvino": Backend("fer_stream.classify.openvino:OpenVinoClassifier", "openvino", (LITERT_FILE, ONNX_FILE)),
    "keras": Backend("fer_stream.classify.keras:KerasClassifier", "tensorflow", (KERAS_FILE,), ("batch_size",)),
}
"""Backends by name."""


def available_backends(files: Set[str], installed: Set[str]) -> list[str]:
    """Return the backends that can run a model folder with `files`, given the `installed` distributions."""
    return [
        name
        for name, backend in BACKENDS.items()
        if backend.package in installed and not files.isdisjoint(backend.files)
    ]


def select_backend(files: Set[str], flags: Set[str], installed: Set[str]) -> str:
    """Return the fastest backend on a CPU with `flags` for a model folder with `files`.

    Backends that are not available are skipped. The fallback order is that of `BACKENDS`.

    | CPU | with OpenVINO | without |
    | --- | --- | --- |
    | VNNI (`avx512_vnni`, `avx_vnni`) | LiteRT | LiteRT |
    | AVX2 without VNNI | int8 LiteRT file in OpenVINO | int8 ONNX in ONNX Runtime, otherwise LiteRT |
    | other | LiteRT | LiteRT |
    """
    available = available_backends(files, installed)
    return next((name for name in _ranking(files, flags) if name in available), "litert")


def _ranking(files: Set[str], flags: Set[str]) -> Iterator[str]:
    # With VNNI, and on Arm, LiteRT has int8 kernels of full speed; with AVX2 alone it widens to 16 bits.
    if "avx2" in flags and not flags & _VNNI:
        if LITERT_FILE in files:
            yield "openvino"
        if ONNX_INT8_FILE in files:
            yield "onnx"
    yield from BACKENDS


def cpu_flags(path: Path = _CPU_INFO) -> frozenset[str]:
    """Return the feature flags of an x86 CPU under Linux, such as `avx2`; empty on Arm or if `path` is missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())
