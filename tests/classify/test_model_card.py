"""Model cards of the shipped models, and invalid cards."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.classify.model_card import read_card
from fer_stream.errors import ModelError, WeightsError
from fer_stream.records import LABELS, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = Path(__file__).resolve().parents[2] / "models"
WEIGHTS = "emotion.int8.tflite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped model that a test can modify."""
    for name in ("card.json", WEIGHTS):
        shutil.copyfile(MODELS / name, tmp_path / name)
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    edit(card)
    path.write_text(json.dumps(card), encoding="utf-8")


@pytest.mark.parametrize("shipped", [MODELS, MODELS / "small"], ids=["standard", "small"])
@pytest.mark.parametrize("weights", ["emotion.keras", WEIGHTS, "emotion.onnx", "emotion.int8.onnx"])
def test_the_shipped_card_describes_the_shipped_files(shipped: Path, weights: str) -> None:
    spec = read_card(shipped, weights)
    assert spec.labels == LABELS
    assert (spec.input_size, spec.channels) == (48, 1)
    assert (spec.dataset, spec.licence) == ("FER-2013", "Apache-2.0")
    assert spec.sha256 == json.loads((shipped / "card.json").read_text(encoding="utf-8"))["files"][weights]
    assert spec.metrics["fer2013_private_test_single_crop"] > 0.68
    assert spec.metrics["ferplus_majority_private_test"] > 0.73


def test_dataset_licence_and_metrics_are_optional(folder: Path) -> None:
    change(folder, lambda card: [card.pop(key) for key in ("dataset", "licence", "metrics")])
    spec = read_card(folder, WEIGHTS)
    assert (spec.dataset, spec.licence, spec.metrics) == ("not stated", "not stated", {})


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda card: card.update(labels=[*LABELS[1:], LABELS[0]]), "labels must be angry, disgust"),
        (lambda card: card["input"].update(height_px=64), "the input of the model must be 48×48×1, received 64×48×1"),
        (lambda card: card.pop("labels"), "missing key 'labels'"),
        (lambda card: card.pop("model_id"), "missing key 'model_id'"),
        (lambda card: card.update(files=[]), "invalid model card"),
        (lambda card: card.update(metrics={"accuracy": "good"}), "invalid model card"),
        (lambda card: card.update(metrics={"accuracy": 10**400}), "invalid model card"),
        (lambda card: card["files"].pop(WEIGHTS), f"does not list {WEIGHTS}"),
    ],
)
def test_an_incompatible_card_is_rejected(folder: Path, edit: Callable[[dict[str, Any]], object], text: str) -> None:
    change(folder, edit)
    with pytest.raises(ModelError, match=text) as caught:
        read_card(folder, WEIGHTS)
    assert "card.json" in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["model_id", "dataset", "labels", "input", "metrics", "files", "input.channels"]), anything)
def test_any_card_is_read_or_rejected(key: str, value: object) -> None:
    card = json.loads((MODELS / "card.json").read_text(encoding="utf-8"))
    group, _, name = key.rpartition(".")
    (card[group] if group else card)[name] = value
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(MODELS / WEIGHTS, Path(folder) / WEIGHTS)
        (Path(folder) / "card.json").write_text(json.dumps(card))
        with suppress(ModelError):
            assert isinstance(read_card(Path(folder), WEIGHTS), ModelSpec)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"labels": %s}' % ("9" * 5000), "is not valid JSON"),
        ("[]", "expected an object, received list"),
    ],
)  # fmt: skip
def test_an_invalid_card_is_rejected(folder: Path, content: str, text: str) -> None:
    (folder / "card.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=text):
        read_card(folder, WEIGHTS)


def test_a_folder_without_a_card_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"contains no card\.json"):
        read_card(tmp_path, WEIGHTS)


def test_weights_with_another_checksum_are_rejected(folder: Path) -> None:
    sha256 = read_card(folder, WEIGHTS).sha256
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(WeightsError, match=rf"does not match card\.json: expected SHA-256 {sha256}"):
        read_card(folder, WEIGHTS)


def test_missing_weights_are_rejected(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=f"Cannot read .*{WEIGHTS}: No such file"):
        read_card(folder, WEIGHTS)
