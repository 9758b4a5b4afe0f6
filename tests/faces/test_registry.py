"""Registry of detectors: every entry can be created, and settings and command line offer exactly its names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import pytest

from fer_stream import model_files
from fer_stream.config.live import LiveSettings
from fer_stream.config.settings import DetectorSettings
from fer_stream.errors import WeightsError
from fer_stream.faces.registry import DETECTORS
from fer_stream.factory import make_detector, select_detector


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


@pytest.fixture
def mirror(yunet_weights: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A mirror of the published weights in $FER_STREAM_MODELS_URL; the paths that were requested from it."""
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *args: object) -> None:
            requests.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(yunet_weights.parent)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("FER_STREAM_MODELS_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FER_STREAM_OFFLINE")
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_preferred_detector_is_downloaded_on_first_use_with_one_line(mirror: list[str]) -> None:
    lines: list[str] = []
    for _ in range(2):
        assert select_detector(DetectorSettings(), notify=lines.append).type == "yunet"
    assert lines == ["Downloading the face detector yunet-2023mar (233 kB, MIT)."]
    assert mirror == ["/face_detection_yunet_2023mar.onnx"]


def test_a_failed_download_selects_a_detector_whose_weights_are_installed(
    mirror: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_STREAM_MODELS_URL", "http://127.0.0.1:9")
    lines: list[str] = []
    assert select_detector(DetectorSettings(), notify=lines.append).type == "blazeface"
    assert lines[1].startswith("Cannot download yunet-2023mar from http://127.0.0.1:9/")
    assert "Download it manually" in lines[1]
    assert lines[2] == "Using the detector blazeface instead of yunet."


@pytest.mark.parametrize("variable", [False, True])
def test_offline_requests_nothing(mirror: list[str], monkeypatch: pytest.MonkeyPatch, variable: bool) -> None:
    if variable:
        monkeypatch.setenv("FER_STREAM_OFFLINE", "1")
    lines: list[str] = []
    assert select_detector(DetectorSettings(), offline=not variable, notify=lines.append).type == "blazeface"
    assert "fer-stream models pull" in lines[0]
    assert mirror == []


def test_a_selected_detector_without_weights_is_kept_and_the_reason_is_printed(
    mirror: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_STREAM_MODELS_URL", "http://127.0.0.1:9")
    lines: list[str] = []
    assert select_detector(DetectorSettings(type="yunet"), notify=lines.append).type == "yunet"
    assert lines[1].startswith("Cannot download yunet-2023mar")


def test_local_weights_are_not_downloaded(mirror: list[str], yunet_weights: Path) -> None:
    assert select_detector(DetectorSettings(weights=yunet_weights)).type == "yunet"
    assert mirror == []


def test_a_service_keeps_the_detector_that_it_selected_at_its_start(empty_cache: Path, yunet_weights: Path) -> None:
    select = cache(partial(select_detector, notify=lambda line: None))
    started = LiveSettings.model_validate({"sources": {"door": {"url": "rtsp://cam/1"}}}).with_detectors(select)
    empty_cache.mkdir()
    name = model_files.PUBLISHED["yunet-2023mar"].file_name
    (empty_cache / name).symlink_to(yunet_weights.with_name(name))
    more = {"door": {"url": "rtsp://cam/1"}, "hall": {"url": "rtsp://cam/2"}}
    reloaded = LiveSettings.model_validate({"sources": more}).with_detectors(select)
    for settings in (started, reloaded):
        detectors = [settings.detector, *(source.detector for source in settings.sources.values())]
        assert {detector.type for detector in detectors} == {"blazeface"}
