"""Shared by the benchmarks on faces: paths of the material, FER-2013, and accuracy."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_stream.classify.litert import LiteRTClassifier
from fer_stream.records import I64, U8

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("FER_STREAM_TEST_DATA", ROOT.parent / "shared"))
PUBLIC_TEST, PRIVATE_TEST = 1, 2


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every benchmark on faces."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--fer2013", type=Path, default=FOLDER / "data" / "fer2013.npz")
    result.add_argument(
        "--weights", type=Path, default=FOLDER / "detectors" / "face_detection_yunet_2023mar.onnx", help="YuNet, ONNX"
    )
    result.add_argument("--clips", type=Path, default=FOLDER / "clips")
    result.add_argument("--model", type=Path, default=ROOT / "models")
    result.add_argument("--images", type=int, default=1200, help="number of random images")
    return result


def public_test(path: Path, n: int) -> tuple[U8, I64]:
    """Return n images uint8 (n, 48, 48) of FER-2013's PublicTest, always the same, and their labels (n,)."""
    return _sample(path, PUBLIC_TEST, n)


def private_test(path: Path, n: int) -> tuple[U8, I64]:
    """Like `public_test` for PrivateTest, which must not be used to choose parameters."""
    return _sample(path, PRIVATE_TEST, n)


def _sample(path: Path, usage: int, n: int) -> tuple[U8, I64]:
    with np.load(path) as data:
        rows = np.flatnonzero(data["usage"] == usage)
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:n])
        return data["images"][rows], data["labels"][rows].astype(np.int64)


def classifier(model: Path) -> LiteRTClassifier:
    return LiteRTClassifier(model, threads=os.cpu_count() or 1)


def clip_frames(path: Path, every: int) -> Iterator[U8]:
    """Yield every `every`-th frame of a clip, uint8 (H, W, 3) BGR."""
    capture = cv2.VideoCapture(str(path))
    for index in itertools.count():
        read, image = capture.read()
        if not read:
            return
        if index % every == 0:
            yield np.asarray(image, np.uint8)


def percent(hits: NDArray[np.bool_]) -> float:
    return 100 * float(np.mean(hits))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
