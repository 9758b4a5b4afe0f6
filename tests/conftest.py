"""What all tests share: where the real material lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _material() -> Path:
    return Path(os.environ.get("FER_STREAM_TEST_DATA", ROOT.parent / "shared"))


def _need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path.name}, which is not redistributable; name its folder in FER_STREAM_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips."""
    return _need(_material() / "clips")


@pytest.fixture(scope="session")
def yunet_weights() -> Path:
    """The YuNet file whose checksum opencv_zoo publishes."""
    return _need(_material() / "detectors" / "face_detection_yunet_2023mar.onnx")


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """FER-2013 as one npz."""
    return _need(_material() / "data" / "fer2013.npz")


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smiling astronaut (NASA, public domain), as a PNG of 512×512."""
    from skimage import data, io

    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    io.imsave(path, data.astronaut())
    return path
