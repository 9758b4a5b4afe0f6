"""Downloads from a local HTTP server, and the cache."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fer_stream import model_files
from fer_stream.errors import FerStreamError, WeightsError
from fer_stream.faces.yunet import YuNetDetector

CONTENT = np.random.default_rng(3).bytes(300_000)
TOY = model_files.Weights(
    name="toy",
    file_name="toy.onnx",
    url="http://127.0.0.1:9/toy.onnx",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size_bytes=len(CONTENT),
    licence="MIT",
)
HALF = len(CONTENT) // 2


class Mirror(ThreadingHTTPServer):
    """Serves `content`. Each request takes its behaviour from `plan`, and its Range header is recorded."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.plan: list[str] = []
        self.paths: list[str] = []
        self.ranges: list[str | None] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.ranges.append(self.headers["Range"])
        act = self.server.plan.pop(0) if self.server.plan else "serve"
        getattr(self, f"_{act}")()

    def _serve(self) -> None:
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
        body = self.server.content[start:]
        if start and not body:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _ignore_range(self) -> None:
        del self.headers["Range"]
        self._serve()

    def _close(self) -> None:
        """Announce the full length, send half of it and close the connection."""
        self._half()
        self.close_connection = True

    def _stall(self) -> None:
        """Send half and keep the connection open without sending more."""
        self._half()
        self.server.stopping.wait(10)

    def _half(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[:HALF])
        self.wfile.flush()

    def _missing(self) -> None:
        self.send_error(404)

    def _busy(self) -> None:
        self.send_error(503)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a registry with one more entry, and no proxy."""
    monkeypatch.setenv("FER_STREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setitem(model_files.PUBLISHED, "toy", TOY)
    return tmp_path / "cache" / "weights"


class Delays(list[float]):
    """Replaces `time.sleep`: records the delays instead of waiting."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def pull(mirror: Mirror) -> Path:
    return model_files.pull("toy", base_url=mirror.url, sleep=Delays())


def cached_files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


# --- download ---


def test_pull_downloads_once(mirror: Mirror, cache: Path) -> None:
    steps: list[tuple[int, int]] = []

    path = model_files.pull("toy", base_url=mirror.url + "/some/folder/", progress=lambda *step: steps.append(step))

    assert path == cache / "toy.onnx"
    assert path.read_bytes() == CONTENT
    assert cached_files(cache) == ["toy.onnx"]
    assert mirror.paths == ["/some/folder/toy.onnx"]
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)

    assert pull(mirror) == path
    assert len(mirror.paths) == 1, "a cached file is not downloaded again"


def test_downloaded_weights_can_be_loaded(mirror: Mirror, yunet_weights: Path) -> None:
    mirror.content = yunet_weights.read_bytes()
    path = model_files.pull("yunet-2023mar", base_url=mirror.url)
    assert YuNetDetector(path, input_size_px=320, min_confidence=0.6).spec.name == "yunet-2023mar"


@pytest.mark.parametrize("plan", [["close"], ["close", "busy"]])
def test_a_closed_connection_is_resumed(mirror: Mirror, plan: list[str]) -> None:
    mirror.plan = list(plan)
    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges == [None] + [f"bytes={HALF}-"] * len(plan)


def test_a_later_pull_resumes_a_partial_file(mirror: Mirror, cache: Path) -> None:
    mirror.plan = ["close", *["busy"] * 3]
    with pytest.raises(WeightsError, match="503"):
        pull(mirror)
    assert cached_files(cache) == ["toy.onnx.partial"]
    mirror.ranges.clear()

    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges == [f"bytes={HALF}-"]
    assert cached_files(cache) == ["toy.onnx"]


def test_a_stalled_connection_is_resumed(mirror: Mirror) -> None:
    mirror.plan = ["stall"]
    retries = model_files.RetryPolicy(timeout_s=0.2)
    path = model_files.pull("toy", base_url=mirror.url, retries=retries, sleep=Delays())
    assert path.read_bytes() == CONTENT
    assert mirror.ranges == [None, f"bytes={HALF}-"]


def test_a_server_without_range_support_restarts_the_download(mirror: Mirror) -> None:
    mirror.plan = ["close", "ignore_range"]
    assert pull(mirror).read_bytes() == CONTENT


@pytest.mark.parametrize("partial", [b"x" * HALF, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_an_invalid_partial_file_is_downloaded_again(mirror: Mirror, cache: Path, partial: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.onnx.partial").write_bytes(partial)
    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges[-1] is None
    assert cached_files(cache) == ["toy.onnx"]


def test_a_corrupt_file_is_replaced(mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.onnx").write_bytes(CONTENT[:-1] + b"\0")
    assert pull(mirror).read_bytes() == CONTENT


def test_concurrent_pulls_download_once(mirror: Mirror) -> None:
    threads = [threading.Thread(target=pull, args=(mirror,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mirror.paths) == 1
    assert model_files.find_cached("toy") is not None


def test_the_proxy_of_the_environment_is_used(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", mirror.url)
    model_files.pull("toy", base_url="http://weights.invalid/folder")
    assert mirror.paths == ["http://weights.invalid/folder/toy.onnx"]


# --- rejected downloads ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300000\n", "is a Git-LFS pointer"),
        (b"\n <!doctype HTML><html><body>Please sign in</body></html>", "is a web page"),
        (b"<html>" + CONTENT, "is a web page"),
        (CONTENT[::-1], "SHA-256 differs"),
        (CONTENT + b"more", "SHA-256 differs"),
        (b"", "is empty"),
    ],
)
def test_a_different_file_is_rejected_without_retry(
    mirror: Mirror, cache: Path, content: bytes, message: str
) -> None:
    mirror.content = content
    with pytest.raises(WeightsError, match=message):
        pull(mirror)
    assert len(mirror.paths) == 1, "a retry would give the same"
    assert cached_files(cache) == []


def test_a_truncated_file_is_rejected_after_retries(mirror: Mirror, cache: Path) -> None:
    mirror.content = CONTENT[:1000]
    with pytest.raises(WeightsError, match=r"416|connection closed after 1000 of 300000 bytes"):
        pull(mirror)
    assert model_files.find_cached("toy") is None


def test_not_found_is_not_retried_and_explains_the_manual_download(mirror: Mirror, cache: Path) -> None:
    mirror.plan = ["missing"]
    with pytest.raises(WeightsError) as caught:
        pull(mirror)
    text = str(caught.value)
    assert f"{mirror.url}/toy.onnx: HTTP status 404 Not Found" in text
    assert f"save it as {cache / 'toy.onnx'}, or set detector.weights" in text
    assert len(mirror.paths) == 1


def test_a_refused_connection_is_retried_with_growing_delays(cache: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        delays = Delays()
        with pytest.raises(WeightsError, match=rf"{url}/toy\.onnx: .*refused.*Download it manually") as caught:
            model_files.pull("toy", base_url=url, sleep=delays)
    assert str(cache / "toy.onnx") in str(caught.value)
    assert delays == sorted(set(delays))
    assert len(delays) == 3


@pytest.mark.parametrize("url", ["http://reader:canary@127.0.0.1/", "file:///etc", "ftp://127.0.0.1/", "weights"])
def test_the_url_of_a_mirror_must_be_http_without_credentials(url: str) -> None:
    with pytest.raises(WeightsError, match="mirror") as caught:
        model_files.pull("toy", base_url=url)
    assert "canary" not in str(caught.value)


def test_a_cache_that_is_not_writable_is_an_error(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_STREAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"Cannot write to .*file/weights.*FER_STREAM_CACHE"):
        pull(mirror)


def test_an_unknown_name_lists_the_available_ones() -> None:
    with pytest.raises(WeightsError, match=r"'yolo'.*yunet-2023mar, yunet-2026may"):
        model_files.pull("yolo")


# --- the cache ---


def _states() -> dict[str, str]:
    return {status.weights.name: status.state for status in model_files.cache_statuses()}


def test_states_are_present_absent_and_corrupt(mirror: Mirror, cache: Path) -> None:
    assert _states() == {"yunet-2023mar": "absent", "yunet-2026may": "absent", "toy": "absent"}
    pull(mirror)
    (cache / "face_detection_yunet_2026may.onnx").write_bytes(b"\0" * 229_738)
    assert _states() == {"yunet-2023mar": "absent", "yunet-2026may": "corrupt", "toy": "present"}
    with pytest.raises(WeightsError, match=r"2026may\.onnx is corrupt.*models pull yunet-2026may"):
        model_files.verify()
    (cache / "face_detection_yunet_2026may.onnx").unlink()
    assert model_files.verify() == model_files.cache_statuses()


def test_a_cached_file_is_verified(mirror: Mirror) -> None:
    assert model_files.find_cached("toy") is None
    path = pull(mirror)
    assert model_files.find_cached("toy") == path
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="is corrupt"):
        model_files.find_cached("toy")


def test_unreadable_weights_are_an_error(mirror: Mirror) -> None:
    path = pull(mirror)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for use in (model_files.cache_statuses, model_files.verify, lambda: model_files.find_cached("toy")):
            with pytest.raises(WeightsError, match=r"\.onnx: Permission denied\..*FER_STREAM_CACHE"):
                use()
    finally:
        os.seteuid(user)


def test_a_symlink_loop_in_the_cache_is_an_error(mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.onnx").symlink_to("toy.onnx")
    with pytest.raises(WeightsError, match=r"Cannot read the weights .*toy\.onnx: Too many levels"):
        pull(mirror)


def test_the_cache_folder_is_set_by_the_environment(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_files.cache_dir() == cache
    monkeypatch.delenv("FER_STREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert model_files.cache_dir() == tmp_path / "xdg" / "fer-stream" / "weights"


@pytest.mark.parametrize("name", ["yunet-2023mar", "yunet-2026may"])
def test_size_and_checksum_of_the_published_files(name: str, yunet_weights: Path) -> None:
    entry = model_files.PUBLISHED[name]
    path = yunet_weights.with_name(entry.file_name)
    assert path.stat().st_size == entry.size_bytes
    assert model_files.published_name(path.read_bytes()) == name


def test_published_files_are_downloaded_from_opencv_zoo_over_https() -> None:
    for entry in model_files.PUBLISHED.values():
        if entry is not TOY:
            assert re.fullmatch(
                rf"https://media\.githubusercontent\.com/media/opencv/.*/{entry.file_name}", entry.url
            )


# --- shipped folders ---


@pytest.mark.parametrize("size", ["standard", "small"])
def test_shipped_models_are_found(size: str) -> None:
    assert (model_files.shipped_model_dir(size) / "card.json").is_file()


def test_shipped_settings_are_found() -> None:
    assert model_files.packaged_dir("configs").is_dir()


def test_a_missing_folder_is_an_error() -> None:
    with pytest.raises(FerStreamError, match="no-such-folder/ is missing"):
        model_files.packaged_dir("no-such-folder")
