"""The capture process: reads several sources, each in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from fer_stream import factory
from fer_stream.backoff import Backoff
from fer_stream.broker.lease import AutoRenewingLease, Lease
from fer_stream.broker.source_registry import SourceKeys
from fer_stream.capture.camera import CameraSource
from fer_stream.capture.source import FrameSource, ReadOptions, throttle
from fer_stream.errors import FerStreamError, LeaseLost
from fer_stream.faces.detector import FaceDetector, SynchronizedDetector, ZoneFilter
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
    reload_settings,
)
from fer_stream.store.protocol import CameraState, ResultStore
from fer_stream.timeline.source_timeline import stream_id_of_state

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings, SourceSettings
    from fer_stream.config.settings import DetectorSettings

_log = get_logger(__name__)

_LEASE_TTL_S = 10.0
_STATE_INTERVAL_S = 2.0
# Delay before a failed source is opened again; one that ran for `_STEADY_S` starts with the minimum again.
_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 10.0
_STEADY_S = 60.0
_RECORDING_JOIN_S = 3.0
# Closing a source whose read hangs takes 2 s; the rest is for publishing the frames that were read.
_STOP_TIMEOUT_S = 5.0
# A capture process without frames for this long is not ready. The alert on a camera without frames waits as long.
_STALL_S = 30.0


def capture(context: ServiceContext, load: Callable[[], LiveSettings], is_assigned: Callable[[str], bool]) -> None:
    """Read the sources for which `is_assigned` returns True until stopped; on SIGHUP, `load` the settings again."""
    shared = CaptureContext(context, context.settings)
    running: dict[str, CaptureThread] = {}
    context.health.add_check("frames", lambda: _stall_reason(list(running.values())))

    def start(names: Iterable[str], settings: LiveSettings) -> None:
        for name in filter(is_assigned, names):
            running[name] = CaptureThread(name, settings.sources[name], shared)
            running[name].start()

    settings = context.settings
    if settings.recordings.dir and any(source.record for source in settings.sources.values()):
        context.watch_disk(settings.recordings.dir)
    start(settings.sources, settings)
    _log.info("worker_ready", sources=sorted(running))
    while not context.stop.is_set():
        context.wakeup.wait(_STATE_INTERVAL_S)
        context.wakeup.clear()
        for thread in running.values():
            context.health.heartbeat()
            thread.publish_state()
        context.health.heartbeat()
        if context.reload.is_set():
            context.reload.clear()
            settings, difference = reload_settings(load, settings)
            affected = (*difference.removed, *difference.changed)
            stop_all([running.pop(name) for name in affected if name in running])
            for name in difference.removed:
                shared.metrics.remove_source(name)
            start((*difference.added, *difference.changed), settings)
    stop_all(list(running.values()))


def stop_all(threads: list[CaptureThread]) -> None:
    """Stop `threads` in parallel, so that none waits for the camera of another that hangs."""
    for thread in threads:
        thread.close()
    deadline_s = time.monotonic() + _STOP_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))


class CaptureContext:
    """Connections, detectors and previews shared by the sources of one process."""

    def __init__(self, context: ServiceContext, settings: LiveSettings) -> None:
        self.settings = settings
        self.metrics = context.metrics
        self.owner = context.owner
        self.queue_client = context.connect("queue", connect_queue)
        self.store = open_store(context.connect("store", connect_store), settings)
        self.previews = PreviewPublisher(self.store, settings.web)
        self.previews.start()
        self._detectors: dict[DetectorSettings, FaceDetector] = {}
        self._detectors_lock = Lock()

    def detector(self, settings: DetectorSettings) -> FaceDetector:
        """Return the detector for `settings`, which all sources with the same settings share.

        A detector per source would need more memory and would not be faster on the same cores.
        """
        with self._detectors_lock:
            if settings not in self._detectors:
                self._detectors[settings] = SynchronizedDetector(factory.make_detector(settings))
            return self._detectors[settings]


@dataclass(slots=True)
class _LastState:
    up: bool
    since: float


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
        self._last_state = _LastState(False, time.time())
        self._last_frame_s = float("-inf")
        self._preview = shared.previews.buffer(name)

    def stall_reason(self) -> str | None:
        """Return why the source delivers no frames, or None if it does."""
        source = self._source
        if source is None:
            return "not opened, or captured by another process"
        if isinstance(source, CameraSource) and not source.status.up:
            return source.status.reason or "waiting for the first frame"
        silent_s = time.monotonic() - self._last_frame_s
        return None if silent_s < _STALL_S else f"no frame for more than {_STALL_S:.0f} s"

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
        """Store the state of the camera. Retries while the store is unreachable."""
        source = self._source
        if source is None:
            return
        try:
            self._shared.store.set_state(self.source_name, self._state(source))
        except FerStreamError as error:
            _log.error("state_not_stored", source=self.source_name, error=str(error))

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
                    self._capture(held.lost)
                return True
            _log.info("capture_waiting", source=self.source_name, reason="another process holds the lease")
        except LeaseLost as error:
            _log.error("capture_failed", source=self.source_name, error=str(error))
            self._shared.metrics.remove_source(self.source_name)
        except FerStreamError as error:
            _log.error("capture_failed", source=self.source_name, error=str(error))
        except Exception:  # noqa: BLE001 - an unexpected error must not stop a source for good
            _log.exception("capture_failed", source=self.source_name)
        return False

    def _capture(self, lost: Event) -> None:
        shared, name = self._shared, self.source_name
        last_session_ms = _last_session_ms(shared.store, name)
        queue = open_queue(
            shared.queue_client, shared.settings, overflow=overflow_for(self._settings), lease=self._lease
        )
        journal = open_journal(shared.queue_client, shared.settings, lease=self._lease)
        if self._settings.kind == "camera":
            # Before the camera is opened: the alerts must also notice a camera that never delivers a frame.
            shared.metrics.camera_up.labels(name).set(0)
            shared.metrics.camera_last_frame.labels(name)
        source = self._source = self._open(last_session_ms)
        self._last_frame_s = time.monotonic()
        if lost.is_set():
            self.interrupt()
        try:
            tapped = self._preview.wrap(shared.detector(self._settings.detector))
            detector = ZoneFilter(tapped, self._settings.ignore_zones)
            extractor = factory.make_extractor(
                source, detector, self._settings, shared.metrics, classify_interval_s=shared.settings.model.interval_s
            )
            messages = self._messages(source, lost)
            if self._settings.record:
                messages = self._with_recording(source, messages)
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
                self.source_name, self._settings, previous_start_ms=last_session_ms, metrics=self._shared.metrics
            )
        return factory.open_file(
            Path(self._settings.url.get_secret_value()),
            name=self.source_name,
            stream_start_ms=max(last_session_ms + 1, time.time_ns() // 1_000_000),
            options=ReadOptions(self._settings.fps),
            threads=1,
        )

    def _messages(self, source: FrameSource, lost: Event) -> Iterator[Frame | Gap]:
        if isinstance(source, CameraSource):
            yield from source.messages()
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
                self._last_frame_s = time.monotonic()
            yield message
            if isinstance(message, Frame):  # the detector has processed it
                self._preview.push(message)

    def _with_recording(self, source: FrameSource, messages: Iterator[Frame | Gap]) -> Iterator[Frame | Gap]:
        recordings = self._shared.settings.recordings
        recording = RecordingThread(
            self.source_name, source.stream_id, self._shared.store, recordings, self._settings.fps
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

    def _state(self, source: FrameSource) -> CameraState:
        if not isinstance(source, CameraSource):
            return CameraState(True, self._last_state.since, width=self._preview.width, height=self._preview.height)
        state = source.status
        if state.up != self._last_state.up:
            self._last_state = _LastState(state.up, time.time())
        return CameraState(
            state.up,
            self._last_state.since,
            state.reason,
            state.text,
            state.failures,
            self._preview.width,
            self._preview.height,
        )


def _stall_reason(threads: list[CaptureThread]) -> str | None:
    """Return why no source delivers frames, or None if one does or if all files have ended."""
    reasons = {thread.source_name: thread.stall_reason() for thread in threads if thread.is_alive()}
    if not reasons or None in reasons.values():
        return None
    return "no source delivers frames: " + ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _last_session_ms(store: ResultStore, name: str) -> int:
    """Return the start of the latest session in the store, in Unix ms, or 0.

    A timeline rejects sessions older than its current one.
    """
    latest, checkpoint = store.latest(name), store.checkpoint(name)
    stream_ids = [latest.stream_id if latest else None, stream_id_of_state(checkpoint.state) if checkpoint else None]
    return max((stream_start_ms(stream_id) for stream_id in stream_ids if stream_id), default=0)
