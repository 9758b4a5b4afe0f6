"""Which runtime `backend: auto` is: what was fastest where it was measured (docs/evidence/backends.md)."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Literal

from fer_stream.classify.model_card import KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE

Runtime = Literal["litert", "onnx", "openvino", "keras"]

_NEEDS: dict[Runtime, tuple[str, frozenset[str]]] = {
    "litert": ("ai-edge-litert", frozenset({LITERT_FILE})),
    "onnx": ("onnxruntime", frozenset({ONNX_INT8_FILE, ONNX_FILE})),
    "openvino": ("openvino", frozenset({LITERT_FILE, ONNX_FILE})),
    "keras": ("tensorflow", frozenset({KERAS_FILE})),
}
"""Its package, and the files of which it reads any."""

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})

_CPU_INFO = Path("/proc/cpuinfo")


def available_backends(files: Set[str], installed: Set[str]) -> list[Runtime]:
    """The runtimes that can run a model folder with these files, where these packages are installed."""
    return [runtime for runtime, (package, any_of) in _NEEDS.items() if package in installed and files & any_of]


def select_backend(files: Set[str], flags: Set[str], installed: Set[str]) -> Runtime:
    """The fastest runtime on a CPU with these flags, for a model folder with these files.

    What lacks its package or its file is passed over, at last in the order LiteRT, ONNX Runtime, OpenVINO, Keras.

    | CPU | OpenVINO | else |
    | --- | --- | --- |
    | VNNI (`avx512_vnni`, `avx_vnni`) | LiteRT | LiteRT |
    | AVX2 without it | int8 LiteRT file | ONNX Runtime with int8 ONNX, else LiteRT |
    | any other | LiteRT | LiteRT |
    """
    ready = available_backends(files, installed)
    return next((runtime for runtime in _ranking(files, flags) if runtime in ready), "litert")


def _ranking(files: Set[str], flags: Set[str]) -> Iterator[Runtime]:
    # With VNNI, and on Arm, LiteRT has int8 kernels of full speed; with AVX2 alone it widens to 16 bits.
    if "avx2" in flags and not flags & _VNNI:
        if LITERT_FILE in files:
            yield "openvino"
        if ONNX_INT8_FILE in files:
            yield "onnx"
    yield from _NEEDS


def cpu_flags(path: Path = _CPU_INFO) -> frozenset[str]:
    """What Linux says that an x86 CPU can do, as `avx2`; nothing on Arm, or where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())
