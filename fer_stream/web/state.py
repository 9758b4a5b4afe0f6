"""State shared by the routes: a cached overview of all sources, the open live streams, uploads and settings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request

from fer_stream.errors import FerStreamError
from fer_stream.web.schemas import Problem
from fer_stream.web.uploads import Uploads, delete_unused

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings
    from fer_stream.jobs.job import Jobs
    from fer_stream.metrics import Metrics
    from fer_stream.store.protocol import CameraState, ResultStore
    from fer_stream.store.schemas import FrameDocument

R = TypeVar("R")

_CACHE_S = 0.5
_PREVIEW_REQUEST_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """Camera state and newest result of one source."""

    name: str
    state: CameraState | None
    latest: FrameDocument | None


class Overview:
    """Cached snapshots of the sources of `store`, read at most every 0.5 s for all clients together.

    Sources for which `is_shown` returns False do not exist for clients.
    An error of the store is cached too: otherwise each waiting request would wait for a timeout of its own.
    """

    def __init__(self, store: ResultStore, is_shown: Callable[[str], bool]) -> None:
        self.is_shown = is_shown
        self._store = store
        self._lock = threading.Lock()
        self._snapshots: Sequence[SourceSnapshot] = ()
        self._error: FerStreamError | None = None
        self._read_s = -_CACHE_S
        self._requested_s: dict[str, float] = {}

    def snapshot(self) -> Sequence[SourceSnapshot]:
        """Return all sources, sorted by name. Raises `QueueError` and `CodecError` like the store."""
        with self._lock:
            if time.monotonic() - self._read_s >= _CACHE_S:
                self._refresh()
            if self._error:
                raise self._error.with_traceback(None)
            return [source for source in self._snapshots if self.is_shown(source.name)]

    def find(self, name: str) -> SourceSnapshot | None:
        """Return one source, or None if it does not exist."""
        return next((source for source in self.snapshot() if source.name == name), None)

    def request_previews(self, name: str) -> None:
        """Request previews of a source, at most once per second."""
        now_s = time.monotonic()
        if now_s - self._requested_s.get(name, 0.0) >= _PREVIEW_REQUEST_INTERVAL_S:
            self._requested_s[name] = now_s
            self._store.request_previews(name)

    def _refresh(self) -> None:
        try:
            names = filter(self.is_shown, self._store.sources())
            self._snapshots, self._error = [self._read(name) for name in names], None
        except FerStreamError as error:
            self._error = error
        self._read_s = time.monotonic()

    def _read(self, name: str) -> SourceSnapshot:
        return SourceSnapshot(name, self._store.state(name), self._store.latest_document(name))


class StreamLimiter:
    """Counter of open live streams, at most `max_streams`, each with a thread for blocking reads.

    `stop` ends all streams.
    """

    def __init__(self, max_streams: int, metrics: Metrics, stop: threading.Event) -> None:
        self.stop = stop
        self._max_streams = max_streams
        self._open = 0
        self._metrics = metrics
        self._threads: anyio.CapacityLimiter | None = None

    def acquire(self) -> None:
        """Count a new stream. Raises `Problem` (503) if the maximum is reached."""
        if self._open >= self._max_streams:
            raise Problem(
                503,
                f"All {self._max_streams} live streams are in use.",
                "Close another page, or increase web.max_streams.",
                {"Retry-After": "10"},
            )
        self._open += 1
        self._metrics.web_streams.set(self._open)

    def release(self) -> None:
        """Count a stream as closed."""
        self._open -= 1
        self._metrics.web_streams.set(self._open)

    async def run_blocking(self, work: Callable[[], R]) -> R:
        """Run `work` in a thread of the streams. Other requests use a separate thread pool."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self._max_streams)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


class WebState:
    """Everything that the routes share. One per application."""

    def __init__(
        self,
        store: ResultStore,
        jobs: Jobs,
        settings: LiveSettings,
        *,
        is_shown: Callable[[str], bool],
        metrics: Metrics,
        stop: threading.Event,
    ) -> None:
        self.store = store
        self.jobs = jobs
        self.settings = settings.web
        self.overview = Overview(store, is_shown)
        self.streams = StreamLimiter(settings.web.max_streams, metrics, stop)
        self.uploads = Uploads(
            settings.state_dir.absolute() / "uploads",
            max_bytes=settings.web.max_upload_mb << 20,
        )
        self.results_dir = settings.jobs_output_dir.absolute()
        self.file_settings = settings.for_files()
        self._result_retention_s = settings.jobs.retention_days * 86_400

    def clean_up(self, now: float) -> None:
        """Delete expired uploads and results; `now` is Unix time in seconds. Raises `QueueError`."""
        delete_unused(
            self.jobs.list(),
            self.uploads.directory,
            self.results_dir,
            now=now,
            upload_retention_s=self.settings.upload_retention_h * 3600,
            result_retention_s=self._result_retention_s,
        )

    def get_source(self, name: str) -> SourceSnapshot:
        """Return one source. Raises `Problem` (404) if it does not exist."""
        found = self.overview.find(name)
        if found is None:
            raise Problem(404, f"There is no source {name!r}.", "GET /api/v1/sources lists the sources.")
        return found


def _state(request: Request) -> WebState:
    state: WebState = request.app.state.web
    return state


State = Annotated[WebState, Depends(_state)]
"""Route parameter: the state of the application."""
