"""Processes of the service are killed in the midst of their work. Recovery times are printed: `pytest -rP`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.keys import GROUP, Keys

if TYPE_CHECKING:
    from tests.service.conftest import Service, Truth

NAME = "clip"
CAPACITY = 64


DIES_AT_A_COMMIT = """
import os, signal
from fer_stream.store.redis import RedisStore
commit, life, seen = RedisStore.commit, int(os.environ["FER_STREAM_OWNER"].rpartition(":")[2]), []

def harmed(self, source, checkpoint, *what):
    if checkpoint.files not in seen:
        seen.append(checkpoint.files)
    rows_since_last = len(seen) == 3
    if rows_since_last and life == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, source, checkpoint, *what)
    if rows_since_last and life == 1:
        os.kill(os.getpid(), signal.SIGKILL)

RedisStore.commit = harmed
"""


def on_loan(live: Service) -> int:
    """How many crops the workers have taken and not settled."""
    reply = live.queue_link.call(lambda client: client.xpending(Keys(NAME, 1).crops, GROUP))
    return cast(dict[str, int], reply)["pending"]


def stop_in_mid_batch(live: Service) -> int:
    """Stop the only worker at a moment when it has a batch on loan; how many crops."""
    live.tell("classify", signal.SIGSTOP)
    live.wait(lambda: live.queue.depth() >= CAPACITY)
    live.tell("classify", signal.SIGCONT)
    while True:
        live.tell("classify", signal.SIGSTOP)
        if (found := on_loan(live)) > 1:
            return found
        live.tell("classify", signal.SIGCONT)
        time.sleep(0.001)


def test_a_worker_killed_in_mid_batch_loses_nothing(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("one_face_crying")
    source = {"url": str(clips / "one_face_crying.mp4"), "playback": "fast"}
    live = service(
        sources={NAME: source | {"overflow": {"policy": "block", "capacity": CAPACITY}}},
        # So late that it is the worker in its place who sees to what it had on loan.
        queue={"redelivery": {"visibility_timeout_s": 600}},
        # Shorter than the capture runs ahead: a file is waited for however late its faces are.
        timeline={"allowed_lateness_s": 0.5},
    )
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id(NAME) and live.counts(NAME).settled > 50)
    taken = stop_in_mid_batch(live)
    killed = live.tell("classify", signal.SIGKILL)
    settled = live.counts(NAME).settled
    recovered_s = live.wait(lambda: live.counts(NAME).settled > settled)
    assert killed not in live.children("classify")
    print(f"worker killed with {taken} faces on loan: classified on {recovered_s:.1f} s later")
    live.wait(lambda: expected.is_told_by(live, NAME))
    expected.check(live, NAME)
    assert live.stop() == [0]


def test_a_timeline_killed_before_after_and_between_commits_writes_everything_once(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("one_face_crying")
    live = service(sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}})
    live.harm("timeline", DIES_AT_A_COMMIT)
    live.serve()
    live.wait_for_servers()
    for deaths, moment in enumerate(("between write and commit", "after a commit", "at any moment"), 1):
        if deaths == 3:
            live.more_results(NAME)
            live.tell("timeline", signal.SIGKILL)
        live.wait(lambda deaths=deaths: live.said().count("timeline ended with code -9") == deaths)  # type: ignore[misc]
        written = len(live.rows(NAME))
        assert written > 0
        print(f"timeline killed {moment}, {written} rows written: back after {live.more_results(NAME):.1f} s")
    live.wait(lambda: expected.is_told_by(live, NAME))
    expected.check(live, NAME)
    assert live.nothing_is_twice(NAME)
    assert live.stop() == [0]


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_second_timeline_stands_by_and_takes_over(
    fate: signal.Signals, service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "playback": "realtime"}})
    with EmbeddedServer(live.state_dir, "queue"), EmbeddedServer(live.state_dir, "store"):
        first = live.worker("timeline")
        live.wait(lambda: "keeping the timelines" in live.said())
        second = live.worker("timeline")
        live.wait(lambda: "standing by" in live.said())
        live.worker("classify")
        live.worker("capture")
        live.wait(lambda: len(live.rows(NAME)) > 30)
        first.send_signal(fate)
        shown = len(live.results(NAME))
        taken_over_s = live.wait(lambda: len(live.results(NAME)) > shown)
        print(f"timeline process met {fate.name}: the second one took over after {taken_over_s:.1f} s")
        # One that only slept finds that it was replaced, writes nothing and ends.
        first.send_signal(signal.SIGCONT)
        assert first.wait(10) != 0
        assert second.poll() is None
        live.wait(lambda: expected.is_told_by(live, NAME))
        expected.check(live, NAME)
        assert live.stop()[1:] == [0, 0, 0]


def test_a_killed_capture_begins_a_new_epoch(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "playback": "realtime"}})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 60)
    old = live.stream_id(NAME)
    before = live.tell("capture", signal.SIGKILL)
    began_s = live.wait(lambda: live.stream_id(NAME) != old)
    assert live.children("capture") != [before]
    print(f"capture killed: first result of the new epoch {began_s:.1f} s later")
    counts = live.queue.counts(old)
    assert (counts.open, counts.dropped, counts.dead) == (0, 0, 0)
    live.wait(lambda: live.gaps(NAME))
    ((why, start, end),) = live.gaps(NAME)
    assert (why, start < end) == ("restart", True)
    # The file plays again from its beginning, so the rows of its new epoch are those of the whole file.
    live.wait(lambda: live.rows(NAME)[-len(expected.rows) :] == expected.rows)
    cut_off = live.rows(NAME)[: -len(expected.rows)]
    assert 0 < len(cut_off) < len(expected.rows)
    assert len(live.rows(NAME)) == len(cut_off) + len(expected.rows)
    results = live.results(NAME)
    assert len({(frame.stream_id, frame.index) for frame in results}) == len(results)
    live.wait(lambda: len(live.segments(NAME)) > len(expected.segments))
    live.wait(lambda: live.written_segments(NAME) == live.segments(NAME))
    segments = live.lines(NAME, "segment")
    assert {line["stream_id"] for line in segments} == {old, live.stream_id(NAME)}
    assert len({(line["stream_id"], line["person"], line["start_s"]) for line in segments}) == len(segments)
    assert live.stop() == [0]


def epochs(live: Service) -> set[str]:
    return {frame.stream_id for frame in live.results(NAME)}


@pytest.mark.parametrize("role", ["queue", "store"])
def test_a_private_server_that_dies_is_started_again(
    role: str, service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "playback": "realtime"}})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.rows(NAME)) > 10)
    link = live.queue_link if role == "queue" else live.store_link
    server = link.call(lambda client: client.info("server"))["process_id"]
    subprocess.run(["kill", "-KILL", str(server)], check=True)
    killed_s = live.wait(lambda: f"the private {role} server ended" in live.said())
    shown = len(live.results(NAME))
    recovered_s = killed_s + live.wait(lambda: len(live.results(NAME)) > shown)
    print(f"private {role} server killed: results again after {recovered_s:.1f} s")
    if role == "store":
        # What the queue held in memory is gone with it; the store has written all down.
        live.wait(lambda: expected.is_told_by(live, NAME))
        expected.check(live, NAME)
    else:
        # The file is played again from its beginning, in an epoch of its own.
        live.wait(lambda: [why for why, _, _ in live.gaps(NAME)] == ["restart"])
        live.wait(lambda: len(epochs(live)) == 2)
    assert len(epochs(live)) == (2 if role == "queue" else 1)
    assert len(live.gaps(NAME)) == (1 if role == "queue" else 0)
    assert live.nothing_is_twice(NAME)
    assert live.stop() == [0]


def test_nothing_outlives_a_service_that_is_killed(service: Callable[..., Service], clips: Path) -> None:
    live = service(sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}})
    serve = live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id(NAME))
    serve.kill()
    serve.wait()
    gone_s = live.wait(lambda: not any(live.children(role) for role in ("capture", "classify", "timeline")))
    print(f"serve killed: its processes were gone after {gone_s:.1f} s")
