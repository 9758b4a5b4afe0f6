"""Which runtime `backend: auto` is: what was fastest where it was measured (docs/backends.md)."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Literal

from fer_stream.recognize.card import LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE

_BF16 = frozenset({"avx512_bf16", "amx_bf16"})
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})

_CPU_INFO = Path("/proc/cpuinfo")


def choose(files: Set[str], flags: Set[str], installed: Set[str]) -> Literal["litert", "onnx", "openvino"]:
    """The fastest runtime on a CPU with these flags, for a model folder with these files.

    Of the packages in `installed`, `onnxruntime` and `openvino` matter.

    | CPU | OpenVINO | else |
    | --- | --- | --- |
    | bfloat16 (`avx512_bf16`, `amx_bf16`) | float32 ONNX, run in bfloat16 | LiteRT |
    | VNNI (`avx512_vnni`, `avx_vnni`) | LiteRT | LiteRT |
    | AVX2 without either | int8 LiteRT file | ONNX Runtime with int8 ONNX, else LiteRT |
    | any other | LiteRT | LiteRT |
    """
    if has_bf16(flags) and "openvino" in installed and ONNX_FILE in files:
        return "openvino"
    # With VNNI, and on Arm, LiteRT has int8 kernels of full speed; with AVX2 alone it widens to 16 bits.
    if flags & _VNNI or "avx2" not in flags:
        return "litert"
    if "openvino" in installed and LITERT_FILE in files:
        return "openvino"
    if "onnxruntime" in installed and ONNX_INT8_FILE in files:
        return "onnx"
    return "litert"


def has_bf16(flags: Set[str]) -> bool:
    """Does the CPU multiply bfloat16 itself? Where it does not, bfloat16 is slower than float32."""
    return bool(flags & _BF16)


def cpu_flags(path: Path = _CPU_INFO) -> frozenset[str]:
    """What Linux says that an x86 CPU can do, as `avx2`; nothing on Arm, or where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())
