"""Model files: download, cache and verification.

Only `pull` downloads. Downloads are verified by SHA-256, so neither the server nor the
connection needs to be trusted.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from platformdirs import user_cache_path

from fer_stream.errors import FerStreamError, WeightsError
from fer_stream.log import redact_secrets

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ProgressCallback = Callable[[int, int], None]
"""Called with the number of bytes downloaded so far and in total."""

CacheState = Literal["present", "absent", "corrupt"]

_OPENCV_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/"
"""The media host, because the plain one serves Git-LFS pointers."""

_MIRROR = "FER_STREAM_MODELS_URL"
_FIRST_RETRY_DELAY_S = 0.5
_CHUNK_BYTES = 1 << 16
_RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


@dataclass(frozen=True, slots=True)
class Weights:
    """A published weights file."""

    name: str
    file_name: str
    url: str
    sha256: str
    size_bytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Maximum number of connections of a download, and the timeout of each while no data arrives."""

    attempts: int = 4
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """State of one published file in the cache; `path` is its path there, even if it is absent."""

    weights: Weights
    state: CacheState
    path: Path


PUBLISHED = {
    weights.name: weights
    for weights in (
        Weights(
            name="yunet-2023mar",
            file_name="face_detection_yunet_2023mar.onnx",
            url=_OPENCV_ZOO + "face_detection_yunet_2023mar.onnx",
            sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            size_bytes=232_589,
            licence="MIT",
        ),
        Weights(
            name="yunet-2026may",
            file_name="face_detection_yunet_2026may.onnx",
            url=_OPENCV_ZOO + "face_detection_yunet_2026may.onnx",
            sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
            size_bytes=229_738,
            licence="MIT",
        ),
    )
}
"""Files that `pull` can download, by name. The checksums are those of the Git-LFS objects of opencv_zoo."""


def cache_dir() -> Path:
    """Return the folder of downloaded weights: `weights` in $FER_STREAM_CACHE or in the user's cache folder."""
    root = os.environ.get("FER_STREAM_CACHE")
    return (Path(root) if root else user_cache_path("fer-stream", appauthor=False)) / "weights"


def packaged_dir(folder: str) -> Path:
    """Return a folder shipped with fer-stream (`models`, `configs`), in the installed package or in the checkout."""
    package = Path(__file__).resolve().parent
    for path in (package / folder, package.parent / folder):
        if path.is_dir():
            return path
    raise FerStreamError(
        f"The folder {folder}/ is missing from this installation of fer-stream. Reinstall fer-stream."
    )


def shipped_model_dir(size: str = "standard") -> Path:
    """Return the folder of the shipped emotion model `standard` or `small`."""
    return packaged_dir("models") if size == "standard" else packaged_dir("models") / size


def cache_statuses() -> list[CacheStatus]:
    """Return the state of every published file in the cache, verified by SHA-256."""
    return [_status(weights) for weights in PUBLISHED.values()]


def verify() -> list[CacheStatus]:
    """Like `cache_statuses`, but raises `WeightsError` for a corrupt file; an absent file is not an error."""
    statuses = cache_statuses()
    for status in statuses:
        _raise_if_corrupt(status)
    return statuses


def find_cached(name: str) -> Path | None:
    """Return the path of the cached file `name`, verified by SHA-256, or None if it was not downloaded.

    Raises `WeightsError` for a corrupt file: falling back to another detector would hide the fault.
    """
    status = _status(_published(name))
    _raise_if_corrupt(status)
    return status.path if status.state == "present" else None


def read_weights(path: Path) -> bytes:
    """Return the content of a weights file.

    Raises `WeightsError` if it is missing, unreadable or obviously not a model.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(
            f"No weights file at {path}. Check the path, or download the weights with `fer-stream models pull`."
        ) from None
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror}.") from error
    if fault := _content_error(data):
        raise WeightsError(f"{path} {fault}. Download the weights with `fer-stream models pull`.")
    return data


def published_name(data: bytes) -> str:
    """Return the name of the published file with this content, or the first eight digits of its SHA-256."""
    digest = hashlib.sha256(data).hexdigest()
    return next((weights.name for weights in PUBLISHED.values() if weights.sha256 == digest), digest[:8])


def pull(
    name: str,
    *,
    base_url: str | None = None,
    progress: ProgressCallback | None = None,
    retries: RetryPolicy = RetryPolicy(),
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Download `name` into the cache, unless it is there, and return its path.

    `base_url` is the URL of a mirror's folder, by default that in $FER_STREAM_MODELS_URL, if set. Interrupted
    downloads are resumed, failed connections are retried with a growing delay in seconds, for which `sleep` is
    called, and the proxy settings of the environment apply. Raises `WeightsError` with instructions for a manual
    download.
    """
    weights = _published(name)
    base_url = base_url or os.environ.get(_MIRROR) or None
    url = weights.url if base_url is None else f"{_valid_mirror(base_url).rstrip('/')}/{weights.file_name}"
    path = _path(weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if _status(weights).state != "present":
                partial = path.with_name(path.name + ".partial")
                _download(weights, url, partial, progress or _no_progress, retries, sleep)
                partial.replace(path)
    except OSError as error:
        raise WeightsError(
            f"Cannot write to {path.parent}: {error.strerror}. Set FER_STREAM_CACHE to another folder."
        ) from error
    return path


class _DownloadError(Exception):
    """A failed attempt to download a file; a permanent failure is not retried."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


def _download(
    weights: Weights,
    url: str,
    partial: Path,
    progress: ProgressCallback,
    retries: RetryPolicy,
    sleep: Callable[[float], None],
) -> None:
    """Download to `partial` until it is complete and verified."""
    reason = ""
    for attempt in range(retries.attempts):
        if attempt:
            sleep(_FIRST_RETRY_DELAY_S * 2 ** (attempt - 1))
        try:
            resumed = _download_once(weights, url, partial, progress, retries.timeout_s)
            _verify_download(weights, partial, resumed=resumed)
        except _DownloadError as failure:
            reason = str(failure)
            if failure.permanent:
                break
        else:
            return
    raise WeightsError(
        f"Cannot download {weights.name} from {redact_secrets(url)}: {reason}. "
        f"Download it manually and save it as {_path(weights)}, or set detector.weights to its path."
    )


def _download_once(weights: Weights, url: str, partial: Path, progress: ProgressCallback, timeout_s: float) -> bool:
    """Append the missing part to `partial`, or write it from the start; return whether it was resumed."""
    done = partial.stat().st_size if partial.exists() else 0
    if done >= weights.size_bytes:
        return True
    request = Request(url, headers={"User-Agent": "fer-stream"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with _translate_errors(partial), build_opener().open(request, timeout=timeout_s) as response:
        resumed: bool = response.status == _PARTIAL_CONTENT
        if not resumed:
            done = 0
        with partial.open("ab" if resumed else "wb") as file:
            progress(done, weights.size_bytes)
            while done <= weights.size_bytes and (chunk := response.read1(_CHUNK_BYTES)):
                file.write(chunk)
                done += len(chunk)
                progress(done, weights.size_bytes)
    return resumed


@contextmanager
def _translate_errors(partial: Path) -> Iterator[None]:
    """Translate network errors to `_DownloadError`; disk errors remain OSError."""
    try:
        yield
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
        retry = error.code in (*_RETRIED_STATUSES, _RANGE_NOT_SATISFIABLE)
        raise _DownloadError(f"HTTP status {error.code} {error.reason}", permanent=not retry) from error
    except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError) as error:
        raise _DownloadError(str(getattr(error, "reason", error)) or type(error).__name__, permanent=False) from error


def _verify_download(weights: Weights, partial: Path, *, resumed: bool) -> None:
    """Raise unless `partial` is the published file. A wrong file is removed; an incomplete one is kept."""
    data = partial.read_bytes()
    fault = _content_error(data)
    if not fault and len(data) < weights.size_bytes:
        raise _DownloadError(f"connection closed after {len(data)} of {weights.size_bytes} bytes", permanent=False)
    if not fault and hashlib.sha256(data).hexdigest() != weights.sha256:
        fault = "is not the published file (its SHA-256 differs)"
    if fault:
        partial.unlink()
        raise _DownloadError(f"the received file {fault}", permanent=not resumed)


def _content_error(data: bytes) -> str | None:
    """Return why content is obviously not a model, as a predicate for an error message, or None."""
    if not data:
        return "is empty"
    if data.startswith(_LFS_POINTER):
        return "is a Git-LFS pointer instead of the file"
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page instead of a model"
    return None


def _published(name: str) -> Weights:
    if name not in PUBLISHED:
        raise WeightsError(f"Unknown weights {name!r}. Available: {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def _path(weights: Weights) -> Path:
    return cache_dir() / weights.file_name


def _status(weights: Weights) -> CacheStatus:
    path = _path(weights)
    try:
        whole = path.stat().st_size == weights.size_bytes and published_name(path.read_bytes()) == weights.name
    except (FileNotFoundError, NotADirectoryError):
        return CacheStatus(weights, "absent", path)
    except OSError as error:
        raise WeightsError(
            f"Cannot read the weights {path}: {error.strerror}. Make the file readable for this user, or set "
            "FER_STREAM_CACHE to another folder."
        ) from error
    return CacheStatus(weights, "present" if whole else "corrupt", path)


def _raise_if_corrupt(status: CacheStatus) -> None:
    if status.state == "corrupt":
        raise WeightsError(
            f"{status.path} is corrupt (wrong size or SHA-256). "
            f"Download it again with `fer-stream models pull {status.weights.name}`."
        )


def _valid_mirror(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise WeightsError(
            "The URL of a mirror must start with http:// or https:// and must not contain a user name."
        )
    return base_url


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that concurrent processes do not write to the same file.

    Windows has no such lock: a file that two processes wrote fails its verification there.
    """
    with (folder / ".lock").open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _no_progress(done: int, total: int) -> None:
    """Ignore progress."""
