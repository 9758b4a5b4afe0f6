"""How commands name a model: which of the shipped ones, and what runs it."""

from __future__ import annotations

from enum import StrEnum

import typer


class ModelSize(StrEnum):
    """Which of the models that come with fer-stream."""

    standard = "standard"
    small = "small"


class Backend(StrEnum):
    """Which runtime classifies."""

    auto = "auto"
    litert = "litert"
    onnx = "onnx"
    openvino = "openvino"
    keras = "keras"


SizeOption = typer.Option(help="Which shipped model; small is for small devices.")
BackendOption = typer.Option(help="Which runtime classifies.")
