"""The faults: what each does to cameras and processes, and when the service has recovered from it."""

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

# A source that says nothing for so long after a fault is given up: longer than any wait of the service.
_PATIENCE_S = 90.0
_LOOK_S = 0.02
# What belongs to a fault: what was under way when it came, and the time until labels are final again.
_BEFORE_S, _AFTER_S = 1.0, 5.0

_BURN = "while True: pass"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was done, in Unix seconds.

    `over_s` is when its cause was gone: the camera was back, or the process was killed, whose restart is the
    service's own affair. `recovery_s` counts from there to the first result of a later picture, of each source that
    it concerned; None where there was none.
    """

    kind: str
    target: str
    began_s: float
    over_s: float
    recovery_s: float | None

    @property
    def window(self) -> tuple[float, float]:
        """The time that it spoilt."""
        recovery_s = _PATIENCE_S if self.recovery_s is None else self.recovery_s
        return self.began_s - _BEFORE_S, self.over_s + recovery_s + _AFTER_S


@dataclass(slots=True)
class Rig:
    """What faults are done to."""

    service: Service
    cameras: Sequence[Camera]
    sources: dict[str, dict[str, Any]]
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Wound:
    """What a fault left: whom it hit, which sources it concerns, and which result shows that one is well again."""

    target: str
    sources: Sequence[str]
    well: Callable[[Arrival, float], bool] = lambda arrival, over_s: arrival.at > over_s


def camera_killed(rig: Rig) -> Wound:
    """The camera is gone for 3 to 12 s."""
    camera = rig.rng.choice(rig.cameras)
    camera.kill()
    time.sleep(rig.rng.uniform(3, 12))
    camera.start()
    return Wound(camera.name, [camera.name])


def camera_silent(rig: Rig) -> Wound:
    """The camera keeps its connections and sends nothing for 7 to 15 s."""
    camera = rig.rng.choice(rig.cameras)
    camera.freeze()
    time.sleep(rig.rng.uniform(7, 15))
    camera.thaw()
    return Wound(camera.name, [camera.name])


def process_killed(role: str, rig: Rig) -> Wound:
    """SIGKILL to a process of the service, or to a private server."""
    victim = rig.rng.choice(rig.service.of(role))
    victim.tell(signal.SIGKILL)
    return Wound(role, list(rig.sources))


def worker_slow(rig: Rig) -> Wound:
    """A worker does nothing for 3 to 8 s, longer than faces are kept."""
    victim = rig.rng.choice(rig.service.of("classify"))
    victim.tell(signal.SIGSTOP)
    time.sleep(rig.rng.uniform(3, 8))
    victim.tell(signal.SIGCONT)
    return Wound("classify", list(rig.sources))


def source_changed(rig: Rig) -> Wound:
    """SIGHUP with another setting of one source."""
    name = rig.rng.choice(sorted(rig.sources))
    rig.sources[name] = rig.sources[name] | {"stall_timeout_s": 11.0 - rig.sources[name].get("stall_timeout_s", 5.0)}
    began_ms = int(1000 * time.time())
    rig.service.reload(rig.sources)
    return Wound(name, [name], lambda arrival, _: int(arrival.stream_id.partition("@")[2]) >= began_ms)


def cpu_busy(rig: Rig) -> Wound:
    """Somebody else wants every core for 5 to 15 s."""
    with ExitStack() as stack:
        for _ in range(2):
            burner = subprocess.Popen([sys.executable, "-c", _BURN])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        time.sleep(rig.rng.uniform(5, 15))
    return Wound("machine", list(rig.sources))


FAULTS: dict[str, Callable[[Rig], Wound]] = {
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
"""Every kind of fault by its name on the command line."""

# Memory can be judged only of processes that live for a while.
_RARE = ("worker-killed", "capture-killed", "timeline-killed", "queue-killed", "store-killed")


def rounds(kinds: Sequence[str], rng: random.Random) -> Iterator[str]:
    """`kinds` for ever, round by round in random order; those that end a process once in a round, others twice."""
    one_round = [kind for kind in kinds for _ in range(1 if kind in _RARE else 2)]
    while True:
        yield from rng.sample(one_round, len(one_round))


def inject(kind: str, rig: Rig, subscriber: Subscriber) -> Fault:
    """Do a fault and wait until the service has recovered."""
    began_s = time.time()
    is_kill = kind in _RARE or kind == "source-changed"
    wound = FAULTS[kind](rig)
    over_s = began_s if is_kill else time.time()
    back_s = None
    while (back_s := _back_s(wound, subscriber, over_s)) is None and time.time() < over_s + _PATIENCE_S:
        time.sleep(_LOOK_S)
    return Fault(kind, wound.target, began_s, over_s, None if back_s is None else back_s - over_s)


def _back_s(wound: Wound, subscriber: Subscriber, over_s: float) -> float | None:
    """When the last of the sources was well again; None while one is not yet."""
    first = [
        next((one.received_s for one in subscriber.since(name, over_s) if wound.well(one, over_s)), None)
        for name in wound.sources
    ]
    found = [received_s for received_s in first if received_s is not None]
    return max(found) if len(found) == len(first) else None


def inject_until(
    end_s: float, rig: Rig, subscriber: Subscriber, *, kinds: Sequence[str], every_s: float, stop: Event
) -> list[Fault]:
    """Do faults of `kinds` one by one until Unix time `end_s`, each about `every_s` after the last was over."""
    done: list[Fault] = []
    order = rounds(kinds, rig.rng)
    while kinds and not stop.wait(pause_s := every_s * rig.rng.uniform(0.5, 1.5)) and time.time() + pause_s < end_s:
        fault = inject(next(order), rig, subscriber)
        done.append(fault)
        took = "NOT RECOVERED" if fault.recovery_s is None else f"recovered after {fault.recovery_s:.1f} s"
        print(f"{time.strftime('%H:%M:%S')} {fault.kind} ({fault.target}): {took}", flush=True)
    return done
