"""The capture process: several sources, each in a thread of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

from fer_stream import factory
from fer_stream.backoff import Backoff
from fer_stream.broker.journal import RedisJournal
from fer_stream.broker.keys import Keys
from fer_stream.broker.lease import Lease
from fer_stream.broker.lease_renewal import HeldLease
from fer_stream.capture.camera import LiveSource
from fer_stream.capture.source import FrameSource, in_real_time
from fer_stream.config import DetectorSettings, LiveSettings, SourceSettings, changes
from fer_stream.errors import FerStreamError, LeaseLost
from fer_stream.faces.detector import FaceDetector, SynchronizedDetector
from fer_stream.faces.ignore_zones import ZoneFilter
from fer_stream.metrics import Metrics
from fer_stream.pipeline import decoded, run_capture
from fer_stream.records import Frame, Gap, stream_start_ms
from fer_stream.service.connections import open_queue, open_queue_link, open_store, open_store_link, overflow_of
from fer_stream.service.previews import Previews
from fer_stream.service.process import Process
from fer_stream.service.recording import Recording
from fer_stream.store.protocol import CameraState
from fer_stream.store.redis import RedisStore
from fer_stream.timeline.source_timeline import stream_id_of_state

_log = logging.getLogger(__name__)

_LEASE_S = 10.0
_TELL_S = 2.0
# Delay before a failed source is opened again; one that ran for `_STEADY_S` starts with the minimum again.
_RETRY_MIN_S, _RETRY_MAX_S = 1.0, 10.0
_STEADY_S = 60.0
_JOIN_S = 3.0
# Closing takes 2 s where a read hangs; what was read is told in the time that is left.
_END_S = 5.0
# A capture whose sources gave nothing for so long is not ready; the alert on a camera without pictures takes as long.
_SEES_S = 30.0


def capture(process: Process, load: Callable[[], LiveSettings], mine: Callable[[str], bool]) -> None:
    """Read the sources that are `mine` until told to stop; on SIGHUP `load` the settings again."""
    office = _Office(process, process.settings)
    running: dict[str, _Source] = {}
    process.health.need("frames", lambda: _blind(list(running.values())))

    def start(names: Iterator[str], settings: LiveSettings) -> None:
        for name in filter(mine, names):
            running[name] = _Source(name, settings.sources[name], office)
            running[name].start()

    settings = process.settings
    if settings.recordings.dir and any(source.record for source in settings.sources.values()):
        process.watch_disk("files", settings.recordings.dir)
    start(iter(settings.sources), settings)
    while not process.stop.is_set():
        process.woken.wait(_TELL_S)
        process.woken.clear()
        for source in running.values():
            process.health.beat()
            source.tell_state()
        process.health.beat()
        if process.reload.is_set():
            process.reload.clear()
            settings = _reloaded(load, settings, running, start, office.metrics)
    _end(list(running.values()))


def _reloaded(
    load: Callable[[], LiveSettings],
    old: LiveSettings,
    running: dict[str, _Source],
    start: Callable[[Iterator[str], LiveSettings], None],
    metrics: Metrics,
) -> LiveSettings:
    """Apply what changed in the settings to the sources concerned, and to no other."""
    try:
        new = load()
    except FerStreamError as error:
        _log.error("the new settings are left alone: %s", error)
        return old
    news = changes(old, new)
    if news.restart:
        _log.warning("only a restart applies what changed in %s", ", ".join(news.restart))
    _end([running.pop(name) for name in (*news.removed, *news.changed) if name in running])
    for name in news.removed:
        metrics.remove_source(name)
    start(iter((*news.added, *news.changed)), new)
    return new


def _end(sources: list[_Source]) -> None:
    """End `sources` side by side, so that none waits for a camera that hangs."""
    for source in sources:
        source.close()
    until_s = time.monotonic() + _END_S
    for source in sources:
        source.join(max(0.0, until_s - time.monotonic()))


class _Office:
    """What the sources of one process share."""

    def __init__(self, process: Process, settings: LiveSettings) -> None:
        self.settings = settings
        self.metrics = process.metrics
        self.owner = process.owner
        self.link = process.link_to("queue", open_queue_link)
        self.store = open_store(process.link_to("store", open_store_link), settings)
        self.previews = Previews(self.store, settings.web)
        self.previews.start()
        self._detectors: dict[DetectorSettings, FaceDetector] = {}
        self._making = Lock()

    def detector(self, settings: DetectorSettings) -> FaceDetector:
        """One detector for all sources with the same settings: twelve would not make a core any faster."""
        with self._making:
            if settings not in self._detectors:
                self._detectors[settings] = SynchronizedDetector(factory.make_detector(settings))
            return self._detectors[settings]


@dataclass(slots=True)
class _Told:
    up: bool
    since: float


class _Source(Thread):
    """Reads one source, again and again if it must, while it holds the source's lease."""

    def __init__(self, name: str, settings: SourceSettings, office: _Office) -> None:
        super().__init__(name=f"source-{name}", daemon=True)
        self.source_name = name
        self._settings = settings
        self._office = office
        self._closing = Event()
        key = Keys(name, office.settings.queue.shards).lease
        self._lease = Lease(office.link, key, _LEASE_S, owner=office.owner)
        self._source: FrameSource | None = None
        self._told = _Told(False, time.time())
        self._frame_s = float("-inf")
        self._view = office.previews.view(name)

    def blind(self) -> str | None:
        """Why it gives no frames; None while it does."""
        source = self._source
        if source is None:
            return "not begun, or captured by another process"
        if isinstance(source, LiveSource) and not source.state.up:
            return source.state.reason or "waits for its first picture"
        silent_s = time.monotonic() - self._frame_s
        return None if silent_s < _SEES_S else f"no frame for more than {_SEES_S:.0f} s"

    def run(self) -> None:
        """Capture until closed; a file ends by itself."""
        backoff = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        while True:
            began_s = time.monotonic()
            if self._captured() or self._closing.is_set():
                return
            if time.monotonic() - began_s > _STEADY_S:
                backoff.reset()
            self._closing.wait(backoff.failed())

    def tell_state(self) -> None:
        """Tell how the camera is. A store that is away is waited for."""
        source = self._source
        if source is None:
            return
        try:
            self._office.store.set_state(self.source_name, self._state(source))
        except FerStreamError as error:
            _log.error("%s: %s", self.source_name, error)

    def close(self) -> None:
        """Stop soon. The thread ends when what it read is told."""
        self._closing.set()

    def _captured(self) -> bool:
        """Capture until closed, or until a file ends; False where that is to be tried again."""
        try:
            if self._lease.hold():
                with HeldLease(self._lease, self.source_name, stop=self._closing, end=self._hurry) as held:
                    self._capture(held.over)
                return True
            _log.info("%s is captured by another process: waiting", self.source_name)
        except LeaseLost as error:
            _log.error("%s: %s", self.source_name, error)
            self._office.metrics.remove_source(self.source_name)
        except FerStreamError as error:
            _log.error("%s: %s", self.source_name, error)
        except Exception:  # noqa: BLE001 - a fault that nobody foresaw must not end a source for good
            _log.exception("%s failed", self.source_name)
        return False

    def _capture(self, over: Event) -> None:
        office, name = self._office, self.source_name
        last_epoch_ms = _last_epoch_ms(office.store, name)
        queue = open_queue(office.link, office.settings, overflow=overflow_of(self._settings), lease=self._lease)
        journal = RedisJournal(office.link, shards=office.settings.queue.shards, lease=self._lease)
        if self._settings.kind == "camera":
            # Before anything can go wrong with the camera: who never gave a picture must be missed too.
            office.metrics.camera_up.labels(name).set(0)
            office.metrics.camera_last_frame.labels(name)
        source = self._source = self._open(last_epoch_ms)
        self._frame_s = time.monotonic()
        if over.is_set():
            self._hurry()
        try:
            seeing = self._view.through(office.detector(self._settings.detector))
            detector = ZoneFilter(seeing, self._settings.ignore_zones)
            follower = factory.make_extractor(
                source, detector, self._settings, office.metrics, classify_interval_s=office.settings.model.interval_s
            )
            messages = self._messages(source, over)
            if self._settings.record:
                messages = self._recorded(source, messages)
            run_capture(self._seen(messages), source, follower, queue, journal, metrics=office.metrics)
        finally:
            self._source = None
            source.close()

    def _hurry(self) -> None:
        """End the wait for a camera's next picture; a file gives its next one at once."""
        source = self._source
        if isinstance(source, LiveSource):
            source.close()

    def _open(self, last_epoch_ms: int) -> FrameSource:
        if self._settings.kind == "camera":
            return factory.open_camera(
                self.source_name, self._settings, last_epoch_ms=last_epoch_ms, metrics=self._office.metrics
            )
        return factory.open_file(
            Path(self._settings.url.get_secret_value()),
            name=self.source_name,
            stream_start_ms=max(last_epoch_ms + 1, time.time_ns() // 1_000_000),
            fps=self._settings.fps,
            threads=1,
        )

    def _messages(self, source: FrameSource, over: Event) -> Iterator[Frame | Gap]:
        if isinstance(source, LiveSource):
            yield from source.messages()
            return
        frames = decoded(source.frames(), self._office.metrics)
        if self._settings.playback == "realtime":
            frames = in_real_time(frames, monotonic=time.monotonic, wait=over.wait)
        for frame in frames:
            if over.is_set():
                return
            yield frame

    def _seen(self, messages: Iterator[Frame | Gap]) -> Iterator[Frame | Gap]:
        for message in messages:
            if isinstance(message, Frame):
                self._frame_s = time.monotonic()
            yield message
            if isinstance(message, Frame):  # its faces are found by now
                self._view.show(message)

    def _recorded(self, source: FrameSource, messages: Iterator[Frame | Gap]) -> Iterator[Frame | Gap]:
        files = self._office.settings.recordings
        recording = Recording(self.source_name, source.stream_id, self._office.store, files, self._settings.fps)
        recording.start()
        try:
            for message in messages:
                if isinstance(message, Frame):
                    recording.keep(message)
                yield message
        finally:
            recording.close(patiently=not self._closing.is_set())
            recording.join(_JOIN_S)

    def _state(self, source: FrameSource) -> CameraState:
        if not isinstance(source, LiveSource):
            return CameraState(True, self._told.since, width=self._view.width, height=self._view.height)
        state = source.state
        if state.up != self._told.up:
            self._told = _Told(state.up, time.time())
        return CameraState(
            state.up,
            self._told.since,
            state.reason,
            state.text,
            state.failures,
            self._view.width,
            self._view.height,
        )


def _blind(sources: list[_Source]) -> str | None:
    """Why no source gives frames; None where one does, and where all that there are were played to their ends."""
    reasons = {source.source_name: source.blind() for source in sources if source.is_alive()}
    if not reasons or None in reasons.values():
        return None
    return "no source gives frames: " + ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _last_epoch_ms(store: RedisStore, name: str) -> int:
    """The newest epoch that anybody knows of, or 0. A timeline takes no epoch before the one that it is in."""
    latest, checkpoint = store.latest(name), store.checkpoint(name)
    known = [latest.stream_id if latest else None, stream_id_of_state(checkpoint.state) if checkpoint else None]
    return max((stream_start_ms(stream_id) for stream_id in known if stream_id), default=0)
