"""Downloads against a real server on this machine, and the cache that they fill."""

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
    """Serves `content`; each request takes the next of `plan`, which says how to misbehave, and leaves its Range."""

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

    def _cut(self) -> None:
        """Promise everything, give half of it and close the connection."""
        self._half()
        self.close_connection = True

    def _stall(self) -> None:
        """Give half and then nothing, with the connection open."""
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


class Pauses(list[float]):
    """Takes the place of `time.sleep`: remembers the pauses instead of making them."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def pull(mirror: Mirror) -> Path:
    return model_files.pull("toy", base_url=mirror.url, pause=Pauses())


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


# --- fetching ---


def test_pull_fills_the_cache_once(mirror: Mirror, cache: Path) -> None:
    seen: list[tuple[int, int]] = []

    path = model_files.pull("toy", base_url=mirror.url + "/some/folder/", progress=lambda *step: seen.append(step))

    assert path == cache / "toy.onnx"
    assert path.read_bytes() == CONTENT
    assert leftovers(cache) == ["toy.onnx"]
    assert mirror.paths == ["/some/folder/toy.onnx"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)

    assert pull(mirror) == path
    assert len(mirror.paths) == 1, "what is there is not fetched again"


def test_what_was_pulled_loads(mirror: Mirror, yunet_weights: Path) -> None:
    mirror.content = yunet_weights.read_bytes()
    path = model_files.pull("yunet-2023mar", base_url=mirror.url)
    assert YuNetDetector(path, input_size_px=320, min_confidence=0.6).name == "yunet-2023mar"


@pytest.mark.parametrize("plan", [["cut"], ["cut", "busy"]])
def test_a_cut_connection_is_resumed(mirror: Mirror, plan: list[str]) -> None:
    mirror.plan = list(plan)
    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges == [None] + [f"bytes={HALF}-"] * len(plan)


def test_a_later_pull_resumes_what_an_earlier_one_left(mirror: Mirror, cache: Path) -> None:
    mirror.plan = ["cut", *["busy"] * 3]
    with pytest.raises(WeightsError, match="503"):
        pull(mirror)
    assert leftovers(cache) == ["toy.onnx.partial"]
    mirror.ranges.clear()

    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges == [f"bytes={HALF}-"]
    assert leftovers(cache) == ["toy.onnx"]


def test_a_stalled_connection_is_resumed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_TIMEOUT_S", 0.2)
    mirror.plan = ["stall"]
    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges == [None, f"bytes={HALF}-"]


def test_a_server_that_ignores_the_range_starts_anew(mirror: Mirror) -> None:
    mirror.plan = ["cut", "ignore_range"]
    assert pull(mirror).read_bytes() == CONTENT


@pytest.mark.parametrize("partial", [b"x" * HALF, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_bad_partial_file_is_fetched_anew(mirror: Mirror, cache: Path, partial: bytes) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.onnx.partial").write_bytes(partial)
    assert pull(mirror).read_bytes() == CONTENT
    assert mirror.ranges[-1] is None
    assert leftovers(cache) == ["toy.onnx"]


def test_a_corrupt_file_is_replaced(mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.onnx").write_bytes(CONTENT[:-1] + b"\0")
    assert pull(mirror).read_bytes() == CONTENT


def test_many_pulls_at_once_fetch_once(mirror: Mirror) -> None:
    threads = [threading.Thread(target=pull, args=(mirror,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mirror.paths) == 1
    assert model_files.find("toy") is not None


def test_the_proxy_of_the_environment_is_used(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", mirror.url)
    model_files.pull("toy", base_url="http://weights.invalid/folder")
    assert mirror.paths == ["http://weights.invalid/folder/toy.onnx"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300000\n", "is a Git-LFS pointer"),
        (b"\n <!doctype HTML><html><body>Please sign in</body></html>", "is a web page"),
        (b"<html>" + CONTENT, "is a web page"),
        (CONTENT[::-1], "SHA-256 differs"),
        (CONTENT + b"more", "SHA-256 differs"),
        (b"", "is empty"),
    ],
)
def test_another_file_is_refused_at_once(mirror: Mirror, cache: Path, content: bytes, says: str) -> None:
    mirror.content = content
    with pytest.raises(WeightsError, match=says):
        pull(mirror)
    assert len(mirror.paths) == 1, "asking again would give the same"
    assert leftovers(cache) == []


def test_a_file_that_ends_early_is_refused_in_the_end(mirror: Mirror, cache: Path) -> None:
    mirror.content = CONTENT[:1000]
    with pytest.raises(WeightsError, match=r"416|broke off after 1000 of 300000 bytes"):
        pull(mirror)
    assert model_files.find("toy") is None


def test_not_found_is_final_and_says_what_to_do(mirror: Mirror, cache: Path) -> None:
    mirror.plan = ["missing"]
    with pytest.raises(WeightsError) as caught:
        pull(mirror)
    text = str(caught.value)
    assert f"{mirror.url}/toy.onnx: the server answered 404 Not Found" in text
    assert f"put it at {cache / 'toy.onnx'}, or name it with detector.weights" in text
    assert len(mirror.paths) == 1


def test_offline_is_tried_again_with_growing_pauses_and_says_what_to_do(cache: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        pauses = Pauses()
        with pytest.raises(WeightsError, match=rf"{url}/toy\.onnx: .*refused.*Download it by hand") as caught:
            model_files.pull("toy", base_url=url, pause=pauses)
    assert str(cache / "toy.onnx") in str(caught.value)
    assert pauses == sorted(set(pauses))
    assert len(pauses) == 3


@pytest.mark.parametrize("url", ["http://reader:canary@127.0.0.1/", "file:///etc", "ftp://127.0.0.1/", "weights"])
def test_a_mirror_is_a_plain_web_address(url: str) -> None:
    with pytest.raises(WeightsError, match="mirror") as caught:
        model_files.pull("toy", base_url=url)
    assert "canary" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_STREAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"Cannot write to .*file/weights.*FER_STREAM_CACHE"):
        pull(mirror)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"'yolo'.*yunet-2023mar, yunet-2026may"):
        model_files.pull("yolo")


# --- the cache ---


def _states() -> dict[str, str]:
    return {status.weights.name: status.state for status in model_files.listing()}


def test_listing_tells_present_absent_and_corrupt(mirror: Mirror, cache: Path) -> None:
    assert _states() == {"yunet-2023mar": "absent", "yunet-2026may": "absent", "toy": "absent"}
    pull(mirror)
    (cache / "face_detection_yunet_2026may.onnx").write_bytes(b"\0" * 229_738)
    assert _states() == {"yunet-2023mar": "absent", "yunet-2026may": "corrupt", "toy": "present"}
    with pytest.raises(WeightsError, match=r"2026may\.onnx is damaged.*models pull yunet-2026may"):
        model_files.verify()
    (cache / "face_detection_yunet_2026may.onnx").unlink()
    assert model_files.verify() == model_files.listing()


def test_find_gives_whole_files_only(mirror: Mirror) -> None:
    assert model_files.find("toy") is None
    path = pull(mirror)
    assert model_files.find("toy") == path
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        model_files.find("toy")


def test_weights_that_may_not_be_read_are_named(mirror: Mirror) -> None:
    path = pull(mirror)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for use in (model_files.listing, model_files.verify, lambda: model_files.find("toy")):
            with pytest.raises(WeightsError, match=r"\.onnx: Permission denied\..*FER_STREAM_CACHE"):
                use()
    finally:
        os.seteuid(user)


def test_weights_that_are_a_link_to_themselves_are_named(mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "toy.onnx").symlink_to("toy.onnx")
    with pytest.raises(WeightsError, match=r"Cannot read the weights .*toy\.onnx: Too many levels"):
        pull(mirror)


def test_the_cache_is_the_user_s_unless_the_environment_says_otherwise(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_files.cache_dir() == cache
    monkeypatch.delenv("FER_STREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert model_files.cache_dir() == tmp_path / "xdg" / "fer-stream" / "weights"


@pytest.mark.parametrize("name", ["yunet-2023mar", "yunet-2026may"])
def test_the_registry_describes_the_real_files(name: str, yunet_weights: Path) -> None:
    entry = model_files.PUBLISHED[name]
    path = yunet_weights.with_name(entry.file_name)
    if not path.exists():
        pytest.skip(f"needs {path.name}")
    assert path.stat().st_size == entry.size_bytes
    assert model_files.identity(path.read_bytes()) == name


def test_published_files_come_from_opencv_zoo_by_https() -> None:
    for entry in model_files.PUBLISHED.values():
        if entry is not TOY:
            assert re.fullmatch(
                rf"https://media\.githubusercontent\.com/media/opencv/.*/{entry.file_name}", entry.url
            )


# --- what comes with fer-stream ---


@pytest.mark.parametrize("size", ["standard", "small"])
def test_the_shipped_models_are_found(size: str) -> None:
    assert (model_files.shipped_model_dir(size) / "card.json").is_file()


def test_another_folder_comes_with_fer_stream() -> None:
    assert model_files.packaged("configs").is_dir()


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(FerStreamError, match="no-such-folder/ is missing"):
        model_files.packaged("no-such-folder")
