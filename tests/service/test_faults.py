"""Processes of the service are killed in the midst of their work. Recovery times are printed: `pytest -rP`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from fer_stream.queues.embedded import EmbeddedServer
from fer_stream.queues.keys import GROUP, Keys
from fer_stream.timeline.redis import lease_key

if TYPE_CHECKING:
    from tests.service.conftest import Service, Truth

NAME = "clip"
CAPACITY = 64


def on_loan(live: Service) -> int:
    """How many crops the workers have taken and not settled."""
    reply = live.queue_link.call(lambda client: client.xpending(Keys(NAME, 1).crops, GROUP))
    return cast(dict[str, int], reply)["pending"]


def stop_in_mid_batch(live: Service) -> int:
    """Stop the only worker at a moment when it has a batch on loan; how many crops."""
    live.tell("recognize", signal.SIGSTOP)
    live.wait(lambda: live.queue.depth() >= CAPACITY)
    live.tell("recognize", signal.SIGCONT)
    while True:
        live.tell("recognize", signal.SIGSTOP)
        if (found := on_loan(live)) > 1:
            return found
        live.tell("recognize", signal.SIGCONT)
        time.sleep(0.001)


def test_a_worker_killed_in_mid_batch_loses_nothing(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("one_face_crying")
    source = {"url": str(clips / "one_face_crying.mp4"), "pace": "fast"}
    live = service(
        sources={NAME: source | {"overflow": {"policy": "block", "capacity": CAPACITY}}},
        queue={"redelivery": {"after_s": 2}},
        # Shorter than the capture runs ahead: a file is waited for however late its faces are.
        timeline={"lateness_s": 0.5},
    )
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id(NAME) and live.counts(NAME).settled > 50)
    taken = stop_in_mid_batch(live)
    killed = live.tell("recognize", signal.SIGKILL)
    settled = live.counts(NAME).settled
    recovered_s = live.wait(lambda: live.counts(NAME).settled > settled)
    assert killed not in live.children("recognize")
    print(f"worker killed with {taken} faces on loan: classified on {recovered_s:.1f} s later")
    live.wait(lambda: expected.is_told_by(live, NAME))
    expected.check(live, NAME)
    assert live.stop() == [0]


def test_a_timeline_killed_again_and_again_writes_everything_once(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("one_face_crying")
    live = service(sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "pace": "realtime"}})
    live.serve()
    live.wait_for_servers()
    for attempt in range(3):
        written = len(live.rows(NAME))
        live.wait(lambda written=written: len(live.rows(NAME)) > written)  # type: ignore[misc]
        live.tell("timeline", signal.SIGKILL)
        shown = len(live.results(NAME))
        if attempt:
            # Once is enough to wait until the lease of a dead process has run out.
            live.store_link.call(lambda client: client.delete(lease_key(0)))
        back_s = live.wait(lambda shown=shown: len(live.results(NAME)) > shown)  # type: ignore[misc]
        how = "was given back" if attempt else "had to run out"
        print(f"timeline killed after row {written}: back after {back_s:.1f} s, its lease {how}")
    live.wait(lambda: expected.is_told_by(live, NAME))
    expected.check(live, NAME)
    assert live.stop() == [0]


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_second_timeline_stands_by_and_takes_over(
    fate: signal.Signals, service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "pace": "realtime"}})
    with EmbeddedServer(live.state_dir, "queue"), EmbeddedServer(live.state_dir, "store"):
        first = live.worker("timeline")
        live.wait(lambda: "keeping the timelines" in live.said())
        second = live.worker("timeline")
        live.wait(lambda: "standing by" in live.said())
        live.worker("recognize")
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
    expected = truth("two_faces")
    live = service(sources={NAME: {"url": str(clips / "two_faces.mp4"), "pace": "realtime"}})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 10)
    old = live.stream_id(NAME)
    before = live.tell("capture", signal.SIGKILL)
    began_s = live.wait(lambda: live.stream_id(NAME) != old)
    assert live.children("capture") != [before]
    print(f"capture killed: first result of the new epoch {began_s:.1f} s later")
    counts = live.queue.counts(old)
    assert (counts.open, counts.dropped, counts.dead) == (0, 0, 0)
    # The file plays again from its beginning, so the rows of its new epoch are those of the whole file.
    live.wait(lambda: live.rows(NAME)[-len(expected.rows) :] == expected.rows)
    cut_off = live.rows(NAME)[: -len(expected.rows)]
    assert 0 < len(cut_off) < len(expected.rows)
    assert len(live.rows(NAME)) == len(cut_off) + len(expected.rows)
    results = live.results(NAME)
    assert len({(frame.stream_id, frame.index) for frame in results}) == len(results)
    live.wait(lambda: len(live.segments(NAME)) > len(expected.segments))
    segments = live.lines(NAME, "segment")
    assert {line["stream_id"] for line in segments} == {old, live.stream_id(NAME)}
    assert len({(line["stream_id"], line["person"], line["start_s"]) for line in segments}) == len(segments)
    assert live.written_segments(NAME) == live.segments(NAME)
    assert live.stop() == [0]


@pytest.mark.parametrize("role", ["queue", "store"])
def test_a_private_server_that_dies_is_started_again(
    role: str, service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path
) -> None:
    expected = truth("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "pace": "realtime"}})
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
    assert live.stop() == [0]
    rows = live.dated_rows(NAME)
    assert len(set(rows)) == len(rows)


def test_nothing_outlives_a_service_that_is_killed(service: Callable[..., Service], clips: Path) -> None:
    live = service(sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "pace": "realtime"}})
    serve = live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id(NAME))
    serve.kill()
    serve.wait()
    gone_s = live.wait(lambda: not any(live.children(role) for role in ("capture", "recognize", "timeline")))
    print(f"serve killed: its processes were gone after {gone_s:.1f} s")
