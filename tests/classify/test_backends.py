"""Registry of backends, and selection of `auto`: the table in docs/evidence/backends.md."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fer_stream.classify.backends import (
    BACKENDS,
    KERAS_FILE,
    LITERT_FILE,
    ONNX_FILE,
    ONNX_INT8_FILE,
    cpu_flags,
    select_backend,
)
from fer_stream.classify.litert import LiteRTClassifier
from fer_stream.config.settings import ModelSettings
from fer_stream.factory import REPORTED_PACKAGES, backend_for, make_classifier

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


def test_settings_offer_every_backend() -> None:
    assert get_args(ModelSettings.model_fields["backend"].annotation) == ("auto", *BACKENDS)


def test_versions_of_every_backend_are_reported() -> None:
    assert {backend.package for backend in BACKENDS.values()} <= set(REPORTED_PACKAGES)


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
def test_the_fastest_backend_is_selected(
    files: set[str], flags: set[str], installed: set[str], expected: str
) -> None:
    assert select_backend(files, flags, installed) == expected


def test_flags_are_those_of_the_first_core(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2\nbugs\t\t: x\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert cpu_flags(info) == {"fpu", "avx2"}


def test_an_arm_cpu_has_no_x86_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert cpu_flags(info) == set()
    assert cpu_flags(tmp_path / "nothing") == set()


def test_auto_falls_back_to_litert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.factory.versions", dict)
    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: False)
    assert isinstance(make_classifier(ModelSettings(path=MODELS)), LiteRTClassifier)


def test_auto_is_keras_with_a_gpu_if_it_is_installed_and_has_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: True)
    settings = ModelSettings(path=MODELS)
    assert backend_for(settings) == "keras"
    monkeypatch.setattr("fer_stream.factory.listed_files", lambda _: FIRST - {KERAS_FILE})
    assert backend_for(settings) != "keras"
    monkeypatch.undo()
    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: True)
    monkeypatch.setattr("fer_stream.factory.versions", lambda: {"ai-edge-litert": "2"})
    assert backend_for(settings) == "litert"


def test_auto_creates_the_selected_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from fer_stream.classify.openvino import OpenVinoClassifier

    monkeypatch.setattr("fer_stream.factory._has_gpu", lambda: False)
    monkeypatch.setattr("fer_stream.factory.cpu_flags", lambda: frozenset(AVX2))
    assert isinstance(make_classifier(ModelSettings(path=MODELS)), OpenVinoClassifier)
