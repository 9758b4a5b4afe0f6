"""Model card, card.json: metadata of a model folder, checked for compatibility with this version.

    {
      "model_id": "…",
      "dataset": "FER-2013",          optional
      "licence": "Apache-2.0",        optional
      "labels": ["angry", …],         the seven of `records.LABELS`, in their order
      "input": {"height_px": 48, "width_px": 48, "channels": 1},
      "output": {"kind": "logits", "temperature": 1.3},   optional; default: probabilities
      "metrics": {"name": 0.7, …},    optional
      "files": {"emotion.int8.tflite": "<SHA-256>", …}
    }

Additional keys are ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from fer_stream.errors import ModelError, WeightsError
from fer_stream.records import CROP_SIZE_PX, LABELS, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CARD_NAME = "card.json"
FER2013_HEAD, FERPLUS_HEAD = "fer2013", "ferplus"
"""Names of the outputs of a Keras file: the seven labels, and the eight emotions of FER+."""
_NOT_STATED = "not stated"
_REEXPORT = "Re-export the model folder with `fer-stream models export`"


def read_card(model_dir: Path, weights_name: str) -> ModelSpec:
    """Read the card in `model_dir` and verify the file `weights_name` in the same folder.

    Raises `ModelError` if the card is missing, unreadable or of a model with other labels or another input, and
    `WeightsError` if the weights are missing or differ from the SHA-256 in the card.
    """
    path = model_dir / CARD_NAME
    card = _load(path)
    try:
        _check_compatible(card, path)
        return ModelSpec(
            model_id=str(card["model_id"]),
            labels=tuple(card["labels"]),
            input_size=CROP_SIZE_PX,
            channels=1,
            sha256=_verify_sha256(model_dir / weights_name, card["files"].get(weights_name), path),
            dataset=str(card.get("dataset", _NOT_STATED)),
            licence=str(card.get("licence", _NOT_STATED)),
            metrics={name: float(value) for name, value in card.get("metrics", {}).items()},
            temperature=_temperature(card.get("output")),
        )
    except KeyError as error:
        raise ModelError(f"{path}: missing key {error}. {_REEXPORT}.") from error
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: invalid model card: {error}. {_REEXPORT}.") from error


def listed_files(model_dir: Path) -> frozenset[str]:
    """Return the names of the files that the card in `model_dir` lists and the folder contains.

    Raises `ModelError` as `read_card` does.
    """
    path = model_dir / CARD_NAME
    files = _load(path).get("files")
    if not isinstance(files, dict):
        raise ModelError(f"{path}: invalid model card: files must be an object, received {files!r}. {_REEXPORT}.")
    return frozenset(name for name in files if (model_dir / name).exists())


def first_available(model_dir: Path, names: Sequence[str]) -> str:
    """Return the first of `names` in `listed_files`. Raises `ModelError` if none is."""
    files = listed_files(model_dir)
    for name in names:
        if name in files:
            return name
    raise ModelError(
        f"{model_dir} contains no {' or '.join(names)} that its {CARD_NAME} lists. {_REEXPORT}, or select another "
        "backend (model.backend, --backend). The wheel of fer-stream contains only the int8 files of its models; the "
        "source distribution and the repository contain all."
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path.parent} contains no {CARD_NAME}. Set model.path to a folder with a model and its card, or remove "
            "it to use a shipped model."
        ) from error
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}. Check the file and its permissions.") from error
    except (RecursionError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}. {_REEXPORT}.") from error
    if not isinstance(card, dict):
        raise ModelError(
            f"{path}: invalid model card: expected an object, received {type(card).__name__}. {_REEXPORT}."
        )
    return card


def _check_compatible(card: dict[str, Any], path: Path) -> None:
    labels = tuple(card["labels"])
    if labels != LABELS:
        raise ModelError(f"{path}: labels must be {', '.join(LABELS)}; received {', '.join(map(str, labels))}.")
    shape = card["input"]
    received = (shape["height_px"], shape["width_px"], shape["channels"])
    if received != (CROP_SIZE_PX, CROP_SIZE_PX, 1):
        raise ModelError(
            f"{path}: the input of the model must be {CROP_SIZE_PX}×{CROP_SIZE_PX}×1, received "
            f"{'×'.join(map(str, received))}."
        )


def _temperature(output: dict[str, Any] | None) -> float | None:
    if output is None or output["kind"] == "probabilities":
        return None
    if output["kind"] != "logits":
        raise ValueError(f"output.kind must be logits or probabilities, received {output['kind']}")
    temperature = float(output["temperature"])
    if not 0 < temperature < math.inf:
        raise ValueError(f"output.temperature must be positive, received {temperature:g}")
    return temperature


def _verify_sha256(weights: Path, expected: str | None, card: Path) -> str:
    if expected is None:
        raise ModelError(f"{card} does not list {weights.name} in files. {_REEXPORT}.")
    try:
        with weights.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"Cannot read {weights}: {error.strerror}. {_REEXPORT}.") from error
    if received != expected:
        raise WeightsError(
            f"{weights} does not match {card.name}: expected SHA-256 {expected}, received {received}. {_REEXPORT}."
        )
    return received
