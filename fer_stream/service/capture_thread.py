"""Capture of one source, in a thread of the capture process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from fer_stream import factory
from fer_stream.backoff import Backoff
from fer_stream.broker.lease import AutoRenewingLease, Lease
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.capture.camera import CameraSource
from fer_stream.capture.source import CLOCK_TOLERANCE_S, Clocks, FrameSource, ReadOptions, throttle
from fer_stream.errors import FerStreamError, LeaseLost
from fer_stream.faces.detector import FaceNetwork, SynchronizedDetector, ZoneFilter
from fer_stream.log import get_logger
from fer_stream.pipeline import run_capture, timed_frames
from fer_stream.records import Frame, Gap, stream_start_ms
from fer_stream.service.camera_video import PreviewPublisher, RecordingThread
from fer_stream.service.process import (
    ServiceContext,
    connect_queue,
    connect_store,
    open_journal,
    open_queue,
    open_store,
    overflow_for,
)
from fer_stream.service.source_status import SourceStatus
from fer_stream.timeline.source_timeline import stream_id_of_state

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings, SourceSettings
    from fer_stream.config.settings import DetectorSettings
    from fer_stream.store.protocol import ResultStore

_log = get_logger(__name__)

_LEASE_TTL_S = 10.0
# Delay before a failed source is opened again; one that ran for `_STEADY_S` starts with the minimum again.
_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 10.0
_STEADY_S = 60.0
_RECORDING_JOIN_S = 3.0


class CaptureContext:
    """Connections, detectors, previews and clocks shared by the sources of one process."""

    def __init__(self, context: ServiceContext, settings: LiveSettings, clocks: Clocks) -> None:
        self.settings = settings
        self.clocks = clocks
        self.metrics = context.metrics
        self.owner = context.owner
        self.queue_client = context.connect("queue", connect_queue)
        self.store = open_store(context.connect("store", connect_store), settings)
        self.previews = PreviewPublisher(self.store, settings.web)
        self.previews.start()
        self._detectors: dict[DetectorSettings, FaceNetwork] = {}
        self._detectors_lock = Lock()

    def detector(self, settings: DetectorSettings) -> FaceNetwork:
        """Return the detector for `settings`, which all sources with the same settings share.

        A detector per source would need more memory and would not be faster on the same cores.
        """
        with self._detectors_lock:
            if settings not in self._detectors:
                self._detectors[settings] = SynchronizedDetector(factory.make_detector(settings))
            return self._detectors[settings]


class CaptureThread(Thread):
    """Reads one source while it holds the lease of the source. Reopens the source after an error."""

    def __init__(self, name: str, settings: SourceSettings, shared: CaptureContext) -> None:
        super().__init__(name=f"source-{name}", daemon=True)
        self.source_name = name
        self._settings = settings
        self._shared = shared
        self._closing = Event()
        key = SourceKeys(name, shared.settings.queue.shards).lease
        self._lease = Lease(shared.queue_client, key, _LEASE_TTL_S, owner=shared.owner)
        self._source: FrameSource | None = None
        self._session = _Session()
        self._new_session = Event()
        self._state_unstored = False
        self._preview = shared.previews.buffer(name)
        self.status = SourceStatus(
            name, is_camera=settings.kind == "camera", metrics=shared.metrics, now=shared.clocks.wall
        )

    def run(self) -> None:
        """Capture until closed. A file ends by itself."""
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        while True:
            started_s = time.monotonic()
            if self._try_capture() or self._closing.is_set():
                return
            if time.monotonic() - started_s > _STEADY_S:
                backoff.reset()
            self._closing.wait(backoff.failed())

    def publish_state(self) -> None:
        """Store the state of the source. Retries while the store is unreachable."""
        state = self.status.state(self._source, (self._preview.width, self._preview.height))
        if state is None:
            return
        try:
            self._shared.store.set_state(self.source_name, state)
            self._state_unstored = False
        except FerStreamError as error:
            if not self._state_unstored:
                _log.error("state_not_stored", source=self.source_name, error=str(error))
            self._state_unstored = True

    def check_clock(self, *, stepped: bool) -> None:
        """Start a new session of a camera if the system clock `stepped`, or if that makes its times right again."""
        source, clocks = self._source, self._shared.clocks
        if not isinstance(source, CameraSource):
            return
        elapsed_s = clocks.monotonic() - self._session.opened_s
        ahead_s = source.stream_start_ms / 1000 + elapsed_s - clocks.wall()
        # A session starts after the previous one, so that its times stay ahead of a clock that was set back until
        # the clock has passed its start.
        can_be_right = clocks.wall() > source.stream_start_ms / 1000 + 0.001
        if stepped or (can_be_right and abs(ahead_s) > CLOCK_TOLERANCE_S):
            _log.info("session_restarted", source=self.source_name, reason="clock", ahead_s=round(ahead_s, 1))
            self._new_session.set()
            self.interrupt()

    def close(self) -> None:
        """Request a stop. The thread ends when the frames it has read are published."""
        self._closing.set()

    def _try_capture(self) -> bool:
        """Capture until closed or until a file ends. Return False if the capture must be retried."""
        try:
            if self._lease.acquire():
                with AutoRenewingLease(
                    self._lease, self.source_name, stop=self._closing, on_lost=self.interrupt
                ) as held:
                    self.status.on_lease()
                    self._capture(held.lost)
                    while self._new_session.is_set() and not held.lost.is_set():
                        self._capture(held.lost)
                self.status.on_end()
                return True
            self.status.on_wait()
        except LeaseLost as error:
            self.status.on_lease_lost(error)
        except Exception as error:  # noqa: BLE001 - an unexpected error must not stop a source for good
            self.status.on_failure(error)
        return False

    def _capture(self, lost: Event) -> None:
        shared, name = self._shared, self.source_name
        self._new_session.clear()
        last_session_ms = max(self._session.start_ms, _last_session_ms(shared.store, name))
        queue = open_queue(
            shared.queue_client, shared.settings, overflow=overflow_for(self._settings), lease=self._lease
        )
        journal = open_journal(shared.queue_client, shared.settings, lease=self._lease)
        # Before the source is opened: a camera that cannot be analysed is not connected.
        network = shared.detector(self._settings.detector)
        source = self._source = self._open(last_session_ms)
        self._session = _Session(stream_start_ms(source.stream_id), shared.clocks.monotonic())
        self.status.on_open()
        if lost.is_set() or self._new_session.is_set():
            self.interrupt()
        try:
            tapped = self._preview.wrap(factory.scaled_detector(network, source.info, self._settings))
            detector = ZoneFilter(tapped, self._settings.ignore_zones)
            extractor = factory.make_extractor(
                source, detector, self._settings, shared.metrics, classify_interval_s=shared.settings.model.interval_s
            )
            messages = self._messages(source, lost)
            if self._settings.record:
                messages = self._with_recording(source, messages)
            with suppress(_SessionInterrupted):
                run_capture(self._with_previews(messages), source, extractor, queue, journal, metrics=shared.metrics)
        finally:
            self._source = None
            source.close()

    def interrupt(self) -> None:
        """Interrupt the wait for the next frame of a camera. Files never wait."""
        source = self._source
        if isinstance(source, CameraSource):
            source.close()

    def _open(self, last_session_ms: int) -> FrameSource:
        if self._settings.kind == "camera":
            return factory.open_camera(
                self.source_name,
                self._settings,
                previous_start_ms=last_session_ms,
                metrics=self._shared.metrics,
                clocks=self._shared.clocks,
            )
        return factory.open_file(
            Path(self._settings.url.get_secret_value()),
            name=self.source_name,
            stream_start_ms=max(last_session_ms + 1, int(self._shared.clocks.wall() * 1000)),
            options=ReadOptions(self._settings.fps),
            threads=1,
        )

    def _messages(self, source: FrameSource, lost: Event) -> Iterator[Frame | Gap]:
        if isinstance(source, CameraSource):
            yield from source.messages()
            if self._new_session.is_set() and not lost.is_set():
                raise _SessionInterrupted
            return
        frames = timed_frames(source.frames(), self._shared.metrics)
        if self._settings.playback == "realtime":
            frames = throttle(frames, monotonic=time.monotonic, wait=lost.wait)
        for frame in frames:
            if lost.is_set():
                return
            yield frame

    def _with_previews(self, messages: Iterator[Frame | Gap]) -> Iterator[Frame | Gap]:
        for message in messages:
            if isinstance(message, Frame):
                self.status.on_frame()
            yield message
            if isinstance(message, Frame):  # the detector has processed it
                self._preview.push(message)

    def _with_recording(self, source: FrameSource, messages: Iterator[Frame | Gap]) -> Iterator[Frame | Gap]:
        recordings = self._shared.settings.recordings
        recording = RecordingThread(
            self.source_name,
            source.stream_id,
            self._shared.store,
            recordings,
            self._settings.fps,
            on_lost=self._shared.metrics.recording_frames_lost.labels(self.source_name).inc,
        )
        recording.start()
        try:
            for message in messages:
                if isinstance(message, Frame):
                    recording.push(message)
                yield message
        finally:
            recording.close(wait_for_labels=not self._closing.is_set())
            recording.join(_RECORDING_JOIN_S)


class _SessionInterrupted(Exception):  # noqa: N818 - not an error
    """The session ends without an `EndOfStream`, so that the timeline records a gap until the next one."""


@dataclass(frozen=True, slots=True)
class _Session:
    """Start of the latest session in Unix ms, and the monotonic time at which it was opened."""

    start_ms: int = 0
    opened_s: float = 0.0


def _last_session_ms(store: ResultStore, name: str) -> int:
    """Return the start of the latest session in the store, in Unix ms, or 0.

    A timeline rejects sessions older than its current one.
    """
    latest, checkpoint = store.latest(name), store.checkpoint(name)
    stream_ids = [latest.stream_id if latest else None, stream_id_of_state(checkpoint.state) if checkpoint else None]
    return max((stream_start_ms(stream_id) for stream_id in stream_ids if stream_id), default=0)
