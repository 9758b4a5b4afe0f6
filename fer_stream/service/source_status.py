"""State, metrics and log of a configured source, whatever its fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING

from fer_stream.capture.camera import CameraSource
from fer_stream.errors import FerStreamError, SourceNotFound, UnreadableSource
from fer_stream.log import get_logger, redact_secrets
from fer_stream.store.protocol import CameraState

if TYPE_CHECKING:
    from fer_stream.capture.source import FrameSource
    from fer_stream.metrics import Metrics

_log = get_logger(__name__)

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (SourceNotFound, "not_found"),
    (UnreadableSource, "unreadable"),
)
"""Reasons of faults that end a capture; those of camera connections are in `capture`. Others are `internal`."""


class SourceStatus:
    """Status of one source of a capture process. The log contains changes, not every attempt.

    A source has a state and metrics from the moment its lease is held until its file has ended or another process
    takes it over. `now` returns Unix seconds. Thread-safe.
    """

    def __init__(self, name: str, *, is_camera: bool, metrics: Metrics, now: Callable[[], float] = time.time) -> None:
        self.attempted = False
        """True once the source was opened, failed to open, or is read by another process."""
        self._name = name
        self._is_camera = is_camera
        self._metrics = metrics
        self._now = now
        self._state: CameraState | None = None
        self._waiting = False
        self._fault: str | None = None
        self._lock = RLock()

    def on_lease(self) -> None:
        """Record that this process reads the source: from now on it is down until it delivers frames."""
        with self._lock:
            self._waiting = False
            # The alert on missing frames must also notice a source that never delivers one.
            self._metrics.camera_up.labels(self._name).set(0)
            self._metrics.camera_last_frame.labels(self._name)
            self._metrics.recording_frames_lost.labels(self._name)
            self._state = self._state or CameraState(False, self._now())

    def on_wait(self) -> None:
        """Record that another process reads the source, which exports its status."""
        self._release()
        if not self._waiting:
            _log.info("capture_waiting", source=self._name, reason="another process holds the lease")
        self._waiting = self.attempted = True

    def on_open(self) -> None:
        """Record that the source was opened; a camera may still be unreachable."""
        self.attempted = True

    def on_frame(self) -> None:
        """Record that the source delivered a frame."""
        if self._fault is not None:
            self._fault = None
            _log.info("capture_resumed", source=self._name)
        if not self._is_camera and self._state is not None and not self._state.up:
            with self._lock:
                self._metrics.camera_up.labels(self._name).set(1)
                # A file that has ended delivers no frames, which is not a fault.
                self._metrics.camera_last_frame.remove_by_labels({"source": self._name})
                self._state = CameraState(True, self._now())

    def on_failure(self, error: Exception) -> None:
        """Record that the capture failed with `error`, which is being handled, and will be retried."""
        self.attempted = True
        text = redact_secrets(str(error)) or type(error).__name__
        with self._lock:
            if self._state is not None:
                self._fail(self._state, error, text)
        if text == self._fault:
            return
        self._fault = text
        if isinstance(error, FerStreamError):
            _log.error("capture_failed", source=self._name, error=text)
        else:
            _log.exception("capture_failed", source=self._name)

    def on_lease_lost(self, error: Exception) -> None:
        """Record that another process took over the source."""
        self._release()
        self._metrics.remove_source(self._name)
        _log.error("capture_failed", source=self._name, error=str(error))

    def on_end(self) -> None:
        """Record that a file was read to its end, or that the source was closed. Its counters remain."""
        self._release()

    def state(self, source: FrameSource | None, size: tuple[int | None, int | None]) -> CameraState | None:
        """Return the state to publish; None if this process does not read the source.

        `size` is the width and height of its frames in px.
        """
        with self._lock:
            if self._state is None:
                return None
            if isinstance(source, CameraSource):
                current = source.status
                since = self._state.since if current.up == self._state.up else self._now()
                self._state = CameraState(current.up, since, current.reason, current.text, current.failures)
            return replace(self._state, width=size[0], height=size[1])

    def _fail(self, previous: CameraState, error: Exception, text: str) -> None:
        self.on_lease()
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "internal")
        since = self._now() if previous.up else previous.since
        self._state = CameraState(False, since, reason, text, previous.failures + 1)

    def _release(self) -> None:
        with self._lock:
            self._state = None
            for gauge in (self._metrics.camera_up, self._metrics.camera_last_frame):
                gauge.remove_by_labels({"source": self._name})
