"""Faults of cameras and processes, and detection of the recovery of the service."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

from benchmarks.rtsp import Camera
from benchmarks.service import Service
from benchmarks.watch import Arrival, Subscriber

# Recovery timeout of a source: longer than any timeout of the service.
_RECOVERY_TIMEOUT_S = 90.0
_POLL_S = 0.02
# Margins of a fault: results in flight before it, and the time until labels are final after the recovery.
_BEFORE_S, _AFTER_S = 1.0, 5.0

_BURN = "while True: pass"


@dataclass(frozen=True, slots=True)
class Fault:
    """An injected fault. Times are Unix seconds.

    `ended_s` is the end of its cause: the camera is back, or the process was killed. `recovery_s` is the time from
    then to the first result of a later frame of every affected source; None if there was none.
    """

    kind: str
    target: str
    started_s: float
    ended_s: float
    recovery_s: float | None

    @property
    def window(self) -> tuple[float, float]:
        """Time range affected by the fault."""
        recovery_s = _RECOVERY_TIMEOUT_S if self.recovery_s is None else self.recovery_s
        return self.started_s - _BEFORE_S, self.ended_s + recovery_s + _AFTER_S


@dataclass(slots=True)
class Testbed:
    """The service and cameras into which faults are injected."""

    service: Service
    cameras: Sequence[Camera]
    sources: dict[str, dict[str, Any]]
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Injection:
    """Effect of a fault: its target, the affected sources, and the condition for a result that shows recovery."""

    target: str
    sources: Sequence[str]
    is_recovered: Callable[[Arrival, float], bool] = lambda arrival, ended_s: arrival.captured_at > ended_s


def camera_killed(rig: Testbed) -> Injection:
    """Kill a camera for 3 to 12 s."""
    camera = rig.rng.choice(rig.cameras)
    camera.kill()
    time.sleep(rig.rng.uniform(3, 12))
    camera.start()
    return Injection(camera.name, [camera.name])


def camera_silent(rig: Testbed) -> Injection:
    """Suspend a camera for 7 to 15 s; its connections stay open."""
    camera = rig.rng.choice(rig.cameras)
    camera.freeze()
    time.sleep(rig.rng.uniform(7, 15))
    camera.thaw()
    return Injection(camera.name, [camera.name])


def process_killed(role: str, rig: Testbed) -> Injection:
    """Kill a process of the service or an embedded server."""
    victim = rig.rng.choice(rig.service.with_role(role))
    victim.send_signal(signal.SIGKILL)
    return Injection(role, list(rig.sources))


def worker_slow(rig: Testbed) -> Injection:
    """Suspend a worker for 3 to 8 s, longer than the maximum age of queued faces."""
    victim = rig.rng.choice(rig.service.with_role("classify"))
    victim.send_signal(signal.SIGSTOP)
    time.sleep(rig.rng.uniform(3, 8))
    victim.send_signal(signal.SIGCONT)
    return Injection("classify", list(rig.sources))


def source_changed(rig: Testbed) -> Injection:
    """Change a setting of one source by SIGHUP."""
    name = rig.rng.choice(sorted(rig.sources))
    rig.sources[name] = rig.sources[name] | {"stall_timeout_s": 11.0 - rig.sources[name].get("stall_timeout_s", 5.0)}
    began_ms = int(1000 * time.time())
    rig.service.reload(rig.sources)
    return Injection(name, [name], lambda arrival, _: int(arrival.stream_id.partition("@")[2]) >= began_ms)


def cpu_busy(rig: Testbed) -> Injection:
    """Load two cores for 5 to 15 s."""
    with ExitStack() as stack:
        for _ in range(2):
            burner = subprocess.Popen([sys.executable, "-c", _BURN])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        time.sleep(rig.rng.uniform(5, 15))
    return Injection("machine", list(rig.sources))


FAULTS: dict[str, Callable[[Testbed], Injection]] = {
    "camera-killed": camera_killed,
    "camera-silent": camera_silent,
    "worker-slow": worker_slow,
    "source-changed": source_changed,
    "cpu-busy": cpu_busy,
    "worker-killed": partial(process_killed, "classify"),
    "capture-killed": partial(process_killed, "capture"),
    "timeline-killed": partial(process_killed, "timeline"),
    "queue-killed": partial(process_killed, "queue"),
    "store-killed": partial(process_killed, "store"),
}
"""Faults by their name on the command line."""

# Injected half as often, because memory growth is measured only in processes that run for a while.
_RARE = ("worker-killed", "capture-killed", "timeline-killed", "queue-killed", "store-killed")


def fault_sequence(kinds: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield `kinds` endlessly in rounds of random order: faults that end a process once per round, others twice."""
    one_round = [kind for kind in kinds for _ in range(1 if kind in _RARE else 2)]
    while True:
        yield from rng.sample(one_round, len(one_round))


def inject(kind: str, rig: Testbed, subscriber: Subscriber) -> Fault:
    """Inject a fault and wait until the service has recovered."""
    started_s = time.time()
    is_kill = kind in _RARE or kind == "source-changed"
    injection = FAULTS[kind](rig)
    ended_s = started_s if is_kill else time.time()
    recovered_s = None
    while (
        recovered_s := _recovered_at(injection, subscriber, ended_s)
    ) is None and time.time() < ended_s + _RECOVERY_TIMEOUT_S:
        time.sleep(_POLL_S)
    return Fault(kind, injection.target, started_s, ended_s, None if recovered_s is None else recovered_s - ended_s)


def _recovered_at(injection: Injection, subscriber: Subscriber, ended_s: float) -> float | None:
    """Return when the last affected source recovered, or None if one has not yet."""
    first = [
        next(
            (one.received_s for one in subscriber.since(name, ended_s) if injection.is_recovered(one, ended_s)), None
        )
        for name in injection.sources
    ]
    found = [received_s for received_s in first if received_s is not None]
    return max(found) if len(found) == len(first) else None


def inject_until(
    end_s: float, rig: Testbed, subscriber: Subscriber, *, kinds: Sequence[str], every_s: float, stop: Event
) -> list[Fault]:
    """Inject faults of `kinds` until Unix time `end_s`, each about `every_s` seconds after the last recovery."""
    done: list[Fault] = []
    order = fault_sequence(kinds, rig.rng)
    while kinds and not stop.wait(pause_s := every_s * rig.rng.uniform(0.5, 1.5)) and time.time() + pause_s < end_s:
        fault = inject(next(order), rig, subscriber)
        done.append(fault)
        outcome = "NOT RECOVERED" if fault.recovery_s is None else f"recovered after {fault.recovery_s:.1f} s"
        print(f"{time.strftime('%H:%M:%S')} {fault.kind} ({fault.target}): {outcome}", flush=True)
    return done
