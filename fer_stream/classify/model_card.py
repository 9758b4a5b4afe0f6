"""card.json: what a folder with a model says of itself, and whether it fits this program.

    {
      "model_id": "…",
      "dataset": "FER-2013",          optional
      "licence": "Apache-2.0",        optional
      "labels": ["angry", …],         the seven of `records.LABELS`, in their order
      "input": {"height_px": 48, "width_px": 48, "channels": 1},
      "output": {"kind": "logits", "temperature": 1.3},   optional: by default it gives probabilities
      "metrics": {"name": 0.7, …},    optional
      "files": {"emotion.int8.tflite": "<SHA-256>", …}
    }

Further keys are allowed.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from fer_stream.errors import ModelError, WeightsError
from fer_stream.records import CROP_SIZE_PX, LABELS, ModelSpec

CARD_NAME = "card.json"
KERAS_FILE, LITERT_FILE = "emotion.keras", "emotion.int8.tflite"
ONNX_FILE, ONNX_INT8_FILE = "emotion.onnx", "emotion.int8.onnx"
FER2013_HEAD, FERPLUS_HEAD = "fer2013", "ferplus"
"""The outputs of a Keras file: the seven labels, and the eight emotions of FER+."""
_NOT_STATED = "not stated"
_REPLACE = "Replace the whole folder with one model, its weights and its card together"


def read_card(model_dir: Path, weights_name: str) -> ModelSpec:
    """What the card in `model_dir` says of the file `weights_name` beside it, checked against that file.

    Raises `ModelError` where the card is missing, unreadable or of a model with other labels or another input,
    and `WeightsError` where the weights are missing or not the ones that the card describes.
    """
    path = model_dir / CARD_NAME
    card = _load(path)
    try:
        _check_fit(card, path)
        return ModelSpec(
            model_id=str(card["model_id"]),
            labels=tuple(card["labels"]),
            input_size=CROP_SIZE_PX,
            channels=1,
            sha256=_checked_sha256(model_dir / weights_name, card["files"].get(weights_name), path),
            dataset=str(card.get("dataset", _NOT_STATED)),
            licence=str(card.get("licence", _NOT_STATED)),
            metrics={name: float(value) for name, value in card.get("metrics", {}).items()},
            temperature=_temperature(card.get("output")),
        )
    except KeyError as error:
        raise ModelError(f"{path} lacks the key {error}. {_REPLACE}.") from error
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is no model card: {error}. {_REPLACE}.") from error


def listed_files(model_dir: Path) -> frozenset[str]:
    """The names of the files that the card in `model_dir` lists. Raises `ModelError` as `read_card` does."""
    path = model_dir / CARD_NAME
    files = _load(path).get("files")
    if not isinstance(files, dict):
        raise ModelError(f"{path} is no model card: expected an object of files, received {files!r}. {_REPLACE}.")
    return frozenset(files)


def first_available(model_dir: Path, *names: str) -> str:
    """The first of `names` that the card in `model_dir` lists. Raises `ModelError` where it lists none of them."""
    files = listed_files(model_dir)
    for name in names:
        if name in files:
            return name
    raise ModelError(
        f"{model_dir / CARD_NAME} lists no {' or '.join(names)}. Make the folder again with `fer-stream export`, "
        "which writes them, or let another runtime classify (model.backend, --backend)."
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path.parent} holds no {CARD_NAME}. Name a folder with a model and its card, or leave model.path out "
            "to use the model that comes with fer-stream."
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Make it readable.") from error
    except (RecursionError, ValueError) as error:
        raise ModelError(f"{path} is not JSON: {error}. {_REPLACE}.") from error
    if not isinstance(card, dict):
        raise ModelError(f"{path} is no model card: expected an object, received {type(card).__name__}. {_REPLACE}.")
    return card


def _check_fit(card: dict[str, Any], path: Path) -> None:
    labels = tuple(card["labels"])
    if labels != LABELS:
        raise ModelError(f"{path}: expected the labels {', '.join(LABELS)}, received {', '.join(map(str, labels))}.")
    shape = card["input"]
    received = (shape["height_px"], shape["width_px"], shape["channels"])
    if received != (CROP_SIZE_PX, CROP_SIZE_PX, 1):
        raise ModelError(
            f"{path}: expected a model with input {CROP_SIZE_PX}×{CROP_SIZE_PX}×1, received "
            f"{'×'.join(map(str, received))}."
        )


def _temperature(output: dict[str, Any] | None) -> float | None:
    if output is None or output["kind"] == "probabilities":
        return None
    if output["kind"] != "logits":
        raise ValueError(f"expected output.kind to be logits or probabilities, received {output['kind']}")
    temperature = float(output["temperature"])
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected output.temperature above 0, received {temperature:g}")
    return temperature


def _checked_sha256(weights: Path, expected: str | None, card: Path) -> str:
    if expected is None:
        raise ModelError(f"{card} does not list {weights.name} under files. {_REPLACE}.")
    try:
        with weights.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{weights} cannot be read: {error.strerror}. {_REPLACE}.") from error
    if received != expected:
        raise WeightsError(
            f"{weights} is not the file that {card.name} describes: expected SHA-256 {expected}, received "
            f"{received}. {_REPLACE}."
        )
    return received
