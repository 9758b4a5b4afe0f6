"""The capture process: reads several sources, each in a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fer_stream.capture.source import ClockMonitor, Clocks
from fer_stream.errors import FerStreamError
from fer_stream.log import get_logger
from fer_stream.service.capture_thread import CaptureContext, CaptureThread
from fer_stream.service.process import ServiceContext, reload_settings

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings

_log = get_logger(__name__)

_STATE_INTERVAL_S = 2.0
# Closing a source whose read hangs takes 2 s; the rest is for publishing the frames that were read.
_STOP_TIMEOUT_S = 5.0


def capture(
    context: ServiceContext,
    load: Callable[[], LiveSettings],
    is_assigned: Callable[[str], bool],
    *,
    clocks: Clocks | None = None,
) -> None:
    """Read the sources for which `is_assigned` returns True until stopped; on SIGHUP, `load` the settings again."""
    captures = _Captures(CaptureContext(context, context.settings, clocks or Clocks()), is_assigned)
    context.health.add_check("sources", captures.unstarted)
    settings = context.settings
    if settings.recordings.dir and any(source.record for source in settings.sources.values()):
        context.watch_disk(settings.recordings.dir)
    captures.start(settings.sources, settings)
    _log.info("worker_ready", sources=captures.names)
    while not context.stop.is_set():
        context.wakeup.wait(_STATE_INTERVAL_S)
        context.wakeup.clear()
        captures.check_clock()
        captures.publish_states(context.health.heartbeat)
        context.health.heartbeat()
        if context.reload.is_set():
            context.reload.clear()
            settings, difference = reload_settings(load, settings)
            captures.remove(difference.removed)
            captures.stop(difference.changed)
            captures.start((*difference.added, *difference.changed), settings)
    captures.stop(captures.names)


class _Captures:
    """The running captures by source, used by the main thread only, except for `unstarted`."""

    def __init__(self, shared: CaptureContext, is_assigned: Callable[[str], bool]) -> None:
        self._shared = shared
        self._is_assigned = is_assigned
        self._running: dict[str, CaptureThread] = {}
        self._clock = ClockMonitor(shared.clocks)

    @property
    def names(self) -> list[str]:
        """Names of the sources, sorted."""
        return sorted(self._running)

    def unstarted(self) -> str | None:
        """Return which sources were not attempted yet, or None if all were. A source that is down was."""
        names = [name for name, thread in list(self._running.items()) if not thread.status.attempted]
        return f"not started yet: {', '.join(names)}" if names else None

    def start(self, names: Iterable[str], settings: LiveSettings) -> None:
        """Start the assigned ones of the sources `names`."""
        for name in filter(self._is_assigned, names):
            self._running[name] = CaptureThread(name, settings.sources[name], self._shared)
            self._running[name].start()

    def stop(self, names: Iterable[str]) -> None:
        """Stop sources in parallel, so that none waits for the camera of another that hangs."""
        threads = [self._running.pop(name) for name in names if name in self._running]
        for thread in threads:
            thread.close()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def remove(self, names: Iterable[str]) -> None:
        """Stop sources that were removed from the settings. Their state and metrics disappear at once."""
        assigned = [name for name in names if name in self._running]
        for name in assigned:
            self._forget(name)
        self.stop(assigned)
        for name in assigned:
            self._shared.metrics.remove_source(name)  # the thread may have counted meanwhile

    def publish_states(self, heartbeat: Callable[[], object]) -> None:
        """Store the state of every source; `heartbeat` is called in between, because the store may be slow."""
        for thread in self._running.values():
            heartbeat()
            thread.publish_state()

    def check_clock(self) -> None:
        """Start new sessions of all cameras if the system clock stepped."""
        step_s = self._clock.step_s()
        if step_s is not None:
            self._shared.metrics.clock_steps.inc()
            _log.warning("clock_stepped", step_s=round(step_s, 1), action="starting a new session of every camera")
        for thread in self._running.values():
            thread.check_clock(stepped=step_s is not None)

    def _forget(self, name: str) -> None:
        self._shared.metrics.remove_source(name)
        self._shared.previews.remove(name)
        try:
            self._shared.store.clear_state(name)
        except FerStreamError as error:
            _log.error("state_not_removed", source=name, error=str(error))
