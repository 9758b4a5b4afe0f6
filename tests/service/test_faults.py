"""Recovery after processes of the service are killed. `pytest -rP` prints recovery times."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.broker.source_registry import GROUP, SourceKeys

if TYPE_CHECKING:
    from tests.service.conftest import ExpectedResults, Service

NAME = "clip"
CAPACITY = 64


DIE_AT_COMMIT = """
import os, signal
from fer_stream.store.redis import RedisStore
commit, life, seen = RedisStore.commit, int(os.environ["FER_STREAM_OWNER"].rpartition(":")[2]), []

def commit_and_die(self, source, checkpoint, *what):
    if checkpoint.files not in seen:
        seen.append(checkpoint.files)
    rows_since_last = len(seen) == 3
    if rows_since_last and life == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, source, checkpoint, *what)
    if rows_since_last and life == 1:
        os.kill(os.getpid(), signal.SIGKILL)

RedisStore.commit = commit_and_die
"""


def in_flight(live: Service) -> int:
    """Return the number of crops that workers have received and not acknowledged."""
    reply = live.queue_client.call(lambda client: client.xpending(SourceKeys(NAME, 1).crops, GROUP))
    return cast(dict[str, int], reply)["pending"]


def suspend_during_batch(live: Service) -> int:
    """Suspend the only worker while it has a batch in flight, and return the number of crops."""
    live.send_signal("classify", signal.SIGSTOP)
    live.wait(lambda: live.queue.depth() >= CAPACITY)
    live.send_signal("classify", signal.SIGCONT)
    while True:
        live.send_signal("classify", signal.SIGSTOP)
        if (found := in_flight(live)) > 1:
            return found
        live.send_signal("classify", signal.SIGCONT)
        time.sleep(0.001)


def test_worker_killed_during_a_batch_loses_no_faces(
    service: Callable[..., Service], expected_results: Callable[[str], ExpectedResults], clips: Path
) -> None:
    expected = expected_results("one_face_crying")
    source = {"url": str(clips / "one_face_crying.mp4"), "playback": "fast"}
    live = service(
        sources={NAME: source | {"overflow": {"policy": "block", "capacity": CAPACITY}}},
        # Longer than the test: the replacement of the worker must reclaim its crops.
        queue={"redelivery": {"visibility_timeout_s": 600}},
        # Shorter than the capture is ahead of the workers: files have no limit on lateness.
        timeline={"allowed_lateness_s": 0.5},
    )
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id(NAME) and live.counts(NAME).acked > 50)
    received = suspend_during_batch(live)
    killed = live.send_signal("classify", signal.SIGKILL)
    acked = live.counts(NAME).acked
    recovered_s = live.wait(lambda: live.counts(NAME).acked > acked)
    assert killed not in live.children("classify")
    print(f"worker killed with {received} faces in flight: resumed after {recovered_s:.1f} s")
    live.wait(lambda: expected.is_complete_in(live, NAME))
    expected.assert_equal_in(live, NAME)
    assert live.stop() == [0]


def test_timeline_killed_around_commits_writes_everything_once(
    service: Callable[..., Service], expected_results: Callable[[str], ExpectedResults], clips: Path
) -> None:
    expected = expected_results("one_face_crying")
    live = service(sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}})
    live.inject("timeline", DIE_AT_COMMIT)
    live.serve()
    live.wait_for_servers()
    for deaths, moment in enumerate(("between write and commit", "after a commit", "at any moment"), 1):
        if deaths == 3:
            live.wait_for_results(NAME)
            live.send_signal("timeline", signal.SIGKILL)
        live.wait(lambda deaths=deaths: live.logged("process_exited", worker="timeline", code=-9) == deaths)  # type: ignore[misc]
        written = len(live.rows(NAME))
        assert written > 0
        print(f"timeline killed {moment}, {written} rows written: resumed after {live.wait_for_results(NAME):.1f} s")
    live.wait(lambda: expected.is_complete_in(live, NAME))
    expected.assert_equal_in(live, NAME)
    assert live.has_no_duplicates(NAME)
    assert live.stop() == [0]


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_standby_timeline_takes_over(
    fate: signal.Signals,
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
) -> None:
    expected = expected_results("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "playback": "realtime"}})
    with EmbeddedServer(live.state_dir, "queue"), EmbeddedServer(live.state_dir, "store"):
        first = live.worker("timeline")
        live.wait(lambda: live.logged("worker_ready", role="timeline"))
        second = live.worker("timeline")
        live.wait(lambda: live.logged("standing_by"))
        live.worker("classify")
        live.worker("capture")
        live.wait(lambda: len(live.rows(NAME)) > 30)
        first.send_signal(fate)
        shown = len(live.results(NAME))
        taken_over_s = live.wait(lambda: len(live.results(NAME)) > shown)
        print(f"timeline process got {fate.name}: the standby took over after {taken_over_s:.1f} s")
        # A suspended process finds that it lost its lease, writes nothing and exits.
        first.send_signal(signal.SIGCONT)
        assert first.wait(10) != 0
        assert second.poll() is None
        live.wait(lambda: expected.is_complete_in(live, NAME))
        expected.assert_equal_in(live, NAME)
        assert live.stop()[1:] == [0, 0, 0]


def test_killed_capture_starts_a_new_session(
    service: Callable[..., Service], expected_results: Callable[[str], ExpectedResults], clips: Path
) -> None:
    expected = expected_results("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "playback": "realtime"}})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 60)
    old = live.stream_id(NAME)
    before = live.send_signal("capture", signal.SIGKILL)
    recovered_s = live.wait(lambda: live.stream_id(NAME) != old)
    assert live.children("capture") != [before]
    print(f"capture killed: first result of the new session after {recovered_s:.1f} s")
    counts = live.queue.counts(old)
    assert (counts.pending, counts.dropped, counts.dead) == (0, 0, 0)
    live.wait(lambda: live.gaps(NAME))
    ((reason, start, end),) = live.gaps(NAME)
    assert (reason, start < end) == ("restart", True)
    # The file starts again, so that the rows of the new session are those of the whole file.
    live.wait(lambda: live.rows(NAME)[-len(expected.rows) :] == expected.rows)
    interrupted = live.rows(NAME)[: -len(expected.rows)]
    assert 0 < len(interrupted) < len(expected.rows)
    assert len(live.rows(NAME)) == len(interrupted) + len(expected.rows)
    results = live.results(NAME)
    assert len({(frame.stream_id, frame.index) for frame in results}) == len(results)
    live.wait(lambda: len(live.segments(NAME)) > len(expected.segments))
    live.wait(lambda: live.written_segments(NAME) == live.segments(NAME))
    segments = live.lines(NAME, "segment")
    assert {line["stream_id"] for line in segments} == {old, live.stream_id(NAME)}
    assert len({(line["stream_id"], line["person_id"], line["start_s"]) for line in segments}) == len(segments)
    assert live.stop() == [0]


def session_ids(live: Service) -> set[str]:
    return {frame.stream_id for frame in live.results(NAME)}


@pytest.mark.parametrize("role", ["queue", "store"])
def test_killed_embedded_server_is_restarted(
    role: str, service: Callable[..., Service], expected_results: Callable[[str], ExpectedResults], clips: Path
) -> None:
    expected = expected_results("leave_and_return")
    live = service(sources={NAME: {"url": str(clips / "leave_and_return.mp4"), "playback": "realtime"}})
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.rows(NAME)) > 10)
    link = live.queue_client if role == "queue" else live.store_client
    server = link.call(lambda client: client.info("server"))["process_id"]
    subprocess.run(["kill", "-KILL", str(server)], check=True)
    noticed_s = live.wait(lambda: live.logged("embedded_server_exited", server=role))
    shown = len(live.results(NAME))
    recovered_s = noticed_s + live.wait(lambda: len(live.results(NAME)) > shown)
    print(f"embedded {role} server killed: results again after {recovered_s:.1f} s")
    if role == "store":
        # The store persists all data; the queue does not.
        live.wait(lambda: expected.is_complete_in(live, NAME))
        expected.assert_equal_in(live, NAME)
    else:
        # The file starts again in a new session.
        live.wait(lambda: [reason for reason, _, _ in live.gaps(NAME)] == ["restart"])
        live.wait(lambda: len(session_ids(live)) == 2)
    assert len(session_ids(live)) == (2 if role == "queue" else 1)
    assert len(live.gaps(NAME)) == (1 if role == "queue" else 0)
    assert live.has_no_duplicates(NAME)
    assert live.stop() == [0]


def test_no_process_outlives_a_killed_service(service: Callable[..., Service], clips: Path) -> None:
    live = service(sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}})
    serve = live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.stream_id(NAME))
    serve.kill()
    serve.wait()
    exited_s = live.wait(lambda: not any(live.children(role) for role in ("capture", "classify", "timeline")))
    print(f"serve killed: its processes exited within {exited_s:.1f} s")
