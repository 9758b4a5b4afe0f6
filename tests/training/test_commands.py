"""train, export and evaluate as one gives them, from labelled faces to a report."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import yaml

from fer_stream.config.training import TrainSettings
from fer_stream.records import LABELS

if TYPE_CHECKING:
    from pathlib import Path


def fer_stream(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fer_stream.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def model(small: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    config = folder / "train.yaml"
    config.write_text(yaml.safe_dump(small.model_dump(mode="json")), encoding="utf-8")
    fer_stream("train", "--config", config, "--out", folder / "run", "--quiet")
    done = fer_stream("models", "export", folder / "run", "--out", folder / "model", "--licence", "CC0-1.0")
    assert "run, " in done.stdout
    return folder / "model"


def test_command_evaluates_dataset_splits(model: Path, small: TrainSettings, tmp_path: Path) -> None:
    with np.load(small.data.path) as file:
        data = {name: file[name] for name in file.files}
    data["images"][np.flatnonzero(data["usage"] == 2)[:5]] = data["images"][:5]
    np.savez(tmp_path / "rings.npz", **data)
    done = fer_stream(
        "evaluate", "--model", model, "--data", tmp_path / "rings.npz", "--backend", "auto", "--no-robustness",
        "--out", tmp_path / "found",
    )  # fmt: skip
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert found["faces"] == 112
    assert found["duplicates"] == 5
    assert found["accuracy"] > 0.5
    assert found["ferplus_accuracy"] > 0.5
    assert {"litert", "onnx", "openvino", "keras"} == set(found["speed_ms"])
    assert all(ms > 0 for speeds in found["speed_ms"].values() for _, ms in speeds)
    assert found["model"].startswith("run, ")
    assert found["model"].endswith("on test of rings.npz")
    assert "auto" not in found["model"]
    assert f"{found['accuracy']:.2%} of 112 faces" in done.stdout


def test_command_evaluates_a_folder_of_faces(model: Path, small: TrainSettings, tmp_path: Path) -> None:
    with np.load(small.data.path) as file:
        images, labels = file["images"][-112:], file["labels"][-112:]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        if LABELS[label] != "disgust":
            (tmp_path / "mine" / LABELS[label]).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "mine" / LABELS[label] / f"{number}.png"), image)
    fer_stream(
        "evaluate", "--model", model, "--data", tmp_path / "mine", "--no-robustness", "--out", tmp_path / "out"
    )
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["model"] == "run, litert, on mine"
    assert found["faces"] == 96
    assert "disgust" not in found["recall"]
    assert found["ferplus_accuracy"] is None
    assert (found["duplicates"], found["accuracy_without_duplicates"]) == (0, None)
