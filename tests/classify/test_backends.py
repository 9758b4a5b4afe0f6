"""Which runtime `auto` is: the table of docs/evidence/backends.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_stream.classify.backends import cpu_flags, select_backend
from fer_stream.classify.litert import LiteRTClassifier
from fer_stream.classify.model_card import KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE
from fer_stream.config import ModelSettings
from fer_stream.factory import backend_for, make_classifier

MODELS = Path(__file__).resolve().parents[2] / "models"

FIRST = {KERAS_FILE, LITERT_FILE}
ALL = {KERAS_FILE, LITERT_FILE, ONNX_FILE, ONNX_INT8_FILE}

ARM = set[str]()
AVX2 = {"avx2", "fma"}
VNNI = {"avx2", "avx512f", "avx512_vnni"}
BF16 = VNNI | {"avx512_bf16", "amx_bf16"}

LITERT = {"ai-edge-litert"}
ORT = LITERT | {"onnxruntime"}
BOTH = ORT | {"openvino"}


@pytest.mark.parametrize(
    ("files", "flags", "installed", "expected"),
    [
        (ALL, BF16, BOTH, "litert"),
        (ALL, BF16, ORT, "litert"),
        (FIRST, BF16, BOTH, "litert"),
        (ALL, VNNI, BOTH, "litert"),
        (ALL, {"avx2", "avx_vnni"}, BOTH, "litert"),
        (ALL, AVX2, BOTH, "openvino"),
        (FIRST, AVX2, BOTH, "openvino"),
        (ALL, AVX2, ORT, "onnx"),
        (FIRST, AVX2, ORT, "litert"),
        (ALL - {ONNX_INT8_FILE}, AVX2, ORT, "litert"),
        (ALL, AVX2, LITERT, "litert"),
        ({ONNX_FILE}, VNNI, BOTH, "onnx"),
        ({ONNX_FILE}, AVX2, {"openvino"}, "openvino"),
        ({KERAS_FILE}, AVX2, BOTH | {"tensorflow"}, "keras"),
        ({KERAS_FILE}, AVX2, BOTH, "litert"),
        (ALL, {"sse4_2"}, BOTH, "litert"),
        (ALL, ARM, BOTH, "litert"),
    ],
)
def test_what_was_fastest_is_chosen(files: set[str], flags: set[str], installed: set[str], expected: str) -> None:
    assert select_backend(files, flags, installed) == expected


def test_flags_are_read_of_the_first_core(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2\nbugs\t\t: x\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert cpu_flags(info) == {"fpu", "avx2"}


def test_an_arm_cpu_has_no_flags_of_x86(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert cpu_flags(info) == set()
    assert cpu_flags(tmp_path / "nothing") == set()


def test_auto_without_a_library_or_a_file_for_it_is_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.factory.versions", dict)
    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: False)
    assert isinstance(make_classifier(ModelSettings(path=MODELS)), LiteRTClassifier)


def test_a_gpu_is_for_keras_where_that_is_installed_and_has_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: True)
    settings = ModelSettings(path=MODELS)
    assert backend_for(settings) == "keras"
    monkeypatch.setattr("fer_stream.factory.listed", lambda _: FIRST - {KERAS_FILE})
    assert backend_for(settings) != "keras"
    monkeypatch.undo()
    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: True)
    monkeypatch.setattr("fer_stream.factory.versions", lambda: {"ai-edge-litert": "2"})
    assert backend_for(settings) == "litert"


def test_auto_is_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from fer_stream.classify.openvino import OpenVinoClassifier

    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: False)
    monkeypatch.setattr("fer_stream.factory.cpu_flags", lambda: frozenset(AVX2))
    assert isinstance(make_classifier(ModelSettings(path=MODELS)), OpenVinoClassifier)
