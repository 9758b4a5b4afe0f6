"""Registry of detectors: every entry can be created, and settings and command line offer exactly its names."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fer_stream import model_files
from fer_stream.config.settings import DetectorSettings
from fer_stream.errors import WeightsError
from fer_stream.faces.registry import DETECTORS
from fer_stream.factory import make_detector


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FER_STREAM_CACHE", str(tmp_path))
    return model_files.cache_dir()


@pytest.fixture
def filled_cache(empty_cache: Path, yunet_weights: Path) -> None:
    empty_cache.mkdir()
    for name in DETECTORS["yunet"].weights:
        file_name = model_files.PUBLISHED[name].file_name
        (empty_cache / file_name).symlink_to(yunet_weights.with_name(file_name))


def test_settings_offer_every_detector() -> None:
    assert get_args(DetectorSettings.model_fields["type"].annotation) == ("auto", *DETECTORS)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.usefixtures("filled_cache")
def test_every_detector_can_be_created_by_name(name: str) -> None:
    detector = make_detector(DetectorSettings.model_validate({"type": name}))
    assert detector.spec.name.startswith(f"{name}-")
    assert 0.5 < detector.spec.crop_geometry.scale < 2


@pytest.mark.parametrize("name", DETECTORS)
def test_weights_of_every_detector_are_published(name: str) -> None:
    assert set(DETECTORS[name].weights) <= model_files.PUBLISHED.keys()


@pytest.mark.usefixtures("filled_cache")
def test_auto_prefers_the_first_detector_and_its_first_weights() -> None:
    assert make_detector(DetectorSettings()).spec.name == "yunet-2023mar"


@pytest.mark.usefixtures("empty_cache")
def test_auto_without_downloaded_weights_uses_blazeface() -> None:
    assert make_detector(DetectorSettings()).spec.name == "blazeface-full-range"


def test_weights_in_settings_replace_the_cache(empty_cache: Path, yunet_weights: Path) -> None:
    settings = DetectorSettings(weights=yunet_weights.with_name("face_detection_yunet_2026may.onnx"))
    assert make_detector(settings).spec.name == "yunet-2026may"


@pytest.mark.usefixtures("empty_cache")
def test_a_detector_without_weights_is_an_error_that_names_the_download() -> None:
    with pytest.raises(WeightsError, match=r"No weights for the detector yunet\. .*models pull.*detector\.weights"):
        make_detector(DetectorSettings(type="yunet"))


def test_a_corrupt_cached_file_is_an_error_and_not_another_detector(empty_cache: Path) -> None:
    empty_cache.mkdir()
    (empty_cache / model_files.PUBLISHED["yunet-2023mar"].file_name).write_bytes(b"")
    with pytest.raises(WeightsError, match="size or SHA-256"):
        make_detector(DetectorSettings())
