"""Model files: where they lie, how they are fetched, and what is refused.

Nothing is fetched unless `pull` is called. What is fetched is known beforehand by its SHA-256, so that neither the
server nor the way to it needs to be trusted.
"""

from __future__ import annotations

import fcntl
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

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes that there will be."""

State = Literal["present", "absent", "corrupt"]

_OPENCV_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/"
"""The media host: the plain one gives Git-LFS pointers."""

_TIMEOUT_S = 20.0
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
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
class Status:
    """What the cache holds of one published file; `path` is where it lies or would lie."""

    weights: Weights
    state: State
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
"""Every file that `pull` knows, by name. The checksums are those of opencv_zoo's Git-LFS objects."""


def cache_dir() -> Path:
    """The folder of fetched weights: `weights` in $FER_STREAM_CACHE, else in the user's cache folder."""
    root = os.environ.get("FER_STREAM_CACHE")
    return (Path(root) if root else user_cache_path("fer-stream", appauthor=False)) / "weights"


def packaged(folder: str) -> Path:
    """A folder that comes with fer-stream (`models`, `configs`): inside the installed package, or in the checkout."""
    package = Path(__file__).resolve().parent
    for path in (package / folder, package.parent / folder):
        if path.is_dir():
            return path
    raise FerStreamError(f"The folder {folder}/ is missing from this installation of fer-stream: install it again.")


def shipped_model_dir(size: str = "standard") -> Path:
    """The folder of the `standard` or the `small` emotion model that comes with fer-stream."""
    return packaged("models") if size == "standard" else packaged("models") / size


def listing() -> list[Status]:
    """What the cache holds of every published file, each checked by its SHA-256."""
    return [_status(weights) for weights in PUBLISHED.values()]


def verify() -> list[Status]:
    """As `listing`, but a corrupt file is a `WeightsError`. An absent one is none."""
    statuses = listing()
    for status in statuses:
        _refuse_corrupt(status)
    return statuses


def find(name: str) -> Path | None:
    """The cached file of `name`, checked by its SHA-256, or None where it was never fetched.

    A corrupt file is a `WeightsError`, not None: falling back to another detector would hide the fault.
    """
    status = _status(_published(name))
    _refuse_corrupt(status)
    return status.path if status.state == "present" else None


def read(path: Path) -> bytes:
    """The content of a weights file; `WeightsError` where it is missing, unreadable, or evidently something else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(
            f"There are no weights at {path}: check the path, or fetch them with `fer-stream models pull`."
        ) from None
    except OSError as error:
        raise WeightsError(f"Cannot read the weights {path}: {error.strerror}.") from error
    if fault := _foreign(data):
        raise WeightsError(f"{path} {fault}. Fetch the weights with `fer-stream models pull`.")
    return data


def identity(data: bytes) -> str:
    """The name of a published file with this content, else the first eight digits of its SHA-256."""
    digest = hashlib.sha256(data).hexdigest()
    return next((weights.name for weights in PUBLISHED.values() if weights.sha256 == digest), digest[:8])


def pull(
    name: str,
    *,
    base_url: str | None = None,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch `name` into the cache, unless it is there, and return its path.

    `base_url` is the folder of a mirror. An interrupted download is resumed, and a lost connection tried again after
    `pause` of some seconds; proxies are taken from the environment. Whatever goes wrong is a `WeightsError` that says
    how to get the file by hand.
    """
    weights = _published(name)
    url = weights.url if base_url is None else f"{_checked(base_url).rstrip('/')}/{weights.file_name}"
    path = _path(weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if _status(weights).state != "present":
                partial = path.with_name(path.name + ".partial")
                _download(weights, url, partial, progress or _silent, pause)
                partial.replace(path)
    except OSError as error:
        raise WeightsError(
            f"Cannot write to {path.parent}: {error.strerror}. The variable FER_STREAM_CACHE names another folder."
        ) from error
    return path


class _Failed(Exception):  # noqa: N818 - never leaves this module
    """One attempt to fetch a file failed; a final failure would only repeat itself."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


def _download(weights: Weights, url: str, partial: Path, progress: Progress, pause: Callable[[float], None]) -> None:
    """Fill `partial` until it is whole and right, over as many connections as it takes and are allowed."""
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        try:
            resumed = _fetch(weights, url, partial, progress)
            _check(weights, partial, resumed=resumed)
        except _Failed as failure:
            reason = str(failure)
            if failure.final:
                break
        else:
            return
    raise WeightsError(
        f"Cannot fetch {weights.name} from {redact_secrets(url)}: {reason}. "
        f"Download it by hand and put it at {_path(weights)}, or name it with detector.weights."
    )


def _fetch(weights: Weights, url: str, partial: Path, progress: Progress) -> bool:
    """Append to `partial` what it lacks, or write it anew. Was something kept of what was there before?"""
    done = partial.stat().st_size if partial.exists() else 0
    if done >= weights.size_bytes:
        return True
    request = Request(url, headers={"User-Agent": "fer-stream"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with _as_failure(partial), build_opener().open(request, timeout=_TIMEOUT_S) as response:
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
def _as_failure(partial: Path) -> Iterator[None]:
    """Turn what the network may raise into `_Failed`; what the disk raises stays an OSError."""
    try:
        yield
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
        retry = error.code in (*_RETRIED_STATUSES, _RANGE_NOT_SATISFIABLE)
        raise _Failed(f"the server answered {error.code} {error.reason}", final=not retry) from error
    except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError) as error:
        raise _Failed(str(getattr(error, "reason", error)) or type(error).__name__, final=False) from error


def _check(weights: Weights, partial: Path, *, resumed: bool) -> None:
    """Fail unless `partial` is the published file. A wrong one is removed; a short one stays, to be resumed."""
    data = partial.read_bytes()
    fault = _foreign(data)
    if not fault and len(data) < weights.size_bytes:
        raise _Failed(f"the connection broke off after {len(data)} of {weights.size_bytes} bytes", final=False)
    if not fault and hashlib.sha256(data).hexdigest() != weights.sha256:
        fault = "is another file than the published one (its SHA-256 differs)"
    if fault:
        partial.unlink()
        raise _Failed(f"what the server sent {fault}", final=not resumed)


def _foreign(data: bytes) -> str | None:
    """What is wrong with content that is evidently no model, as the end of a sentence about it."""
    if not data:
        return "is empty"
    if data.startswith(_LFS_POINTER):
        return "is a Git-LFS pointer, not the file that it points to"
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a model"
    return None


def _published(name: str) -> Weights:
    if name not in PUBLISHED:
        raise WeightsError(f"There are no weights called {name!r}: known are {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def _path(weights: Weights) -> Path:
    return cache_dir() / weights.file_name


def _status(weights: Weights) -> Status:
    path = _path(weights)
    try:
        whole = path.stat().st_size == weights.size_bytes and identity(path.read_bytes()) == weights.name
    except (FileNotFoundError, NotADirectoryError):
        return Status(weights, "absent", path)
    except OSError as error:
        raise WeightsError(
            f"Cannot read the weights {path}: {error.strerror}. Make them readable for this user, or name another "
            "folder in the variable FER_STREAM_CACHE."
        ) from error
    return Status(weights, "present" if whole else "corrupt", path)


def _refuse_corrupt(status: Status) -> None:
    if status.state == "corrupt":
        raise WeightsError(
            f"{status.path} is damaged (its size or SHA-256 is wrong): "
            f"fetch it anew with `fer-stream models pull {status.weights.name}`."
        )


def _checked(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise WeightsError("A mirror is an http:// or https:// address without a user name in it.")
    return base_url


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder, so that processes which pull at once do not write into one file."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _silent(done: int, total: int) -> None:
    """Tells nobody."""
