"""Faults that may lose data: losses are counted, and the counts are compared with the expected results.

`pytest -rP` prints recovery times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fer_stream.broker.source_registry import SourceKeys
from fer_stream.records import FaceCrop, stream_start_ms

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.service.conftest import ExpectedResults, Service

NAME = "clip"
TIMEOUTS = {"open_timeout_s": 2, "stall_timeout_s": 2, "reconnect_min_s": 0.1, "reconnect_max_s": 0.5}

POISONED_FACES = """
import os, signal
from hashlib import sha256
from fer_stream.classify import classifier
run_batches = classifier.run_batches

def patched(pixels, *more, **options):
    found = {{sha256(face.tobytes()).hexdigest() for face in pixels}}
    if found & {deadly}:
        os.kill(os.getpid(), signal.SIGKILL)
    if found & {bad}:
        raise RuntimeError("cannot classify this face")
    return run_batches(pixels, *more, **options)

classifier.run_batches = patched
"""

SLOW_WORKER = """
import time
from fer_stream.classify import classifier
run_batches = classifier.run_batches

def patched(pixels, *more, **options):
    time.sleep(0.2 * len(pixels))
    return run_batches(pixels, *more, **options)

classifier.run_batches = patched
"""

SHIFTED_CLOCK = """
import time
from pathlib import Path
real, shift = time.time, Path({shift!r})
time.time = lambda: real() + float(shift.read_text())
"""

LEASE_TTL_S = 4.0

SHORT_LEASE = f"""
from fer_stream.service import timeline
timeline._LEASE_TTL_S = {LEASE_TTL_S}
"""


def digest(crop: FaceCrop) -> str:
    return sha256(crop.pixels.tobytes()).hexdigest()


def dead_letters(live: Service) -> set[tuple[int, int]]:
    """Return frame index and person id of every dead letter."""
    reply = live.queue_client.call(lambda client: client.xrange(SourceKeys(NAME, 1).dead))
    letters = [fields for _, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], reply)]
    assert {(fields[b"reason"], fields[b"deliveries"]) for fields in letters} == {(b"deliveries", b"3")}
    return {(int(fields[b"frame_index"]), int(fields[b"person_id"])) for fields in letters}


def probs_by_face(rows: list[str]) -> dict[tuple[int, int], tuple[str, ...]]:
    """Return (frame index, person id) → probabilities, for the rows with a face."""
    cells = [row.split(",") for row in rows]
    return {(int(row[0]), int(row[2])): tuple(row[10:17]) for row in cells if row[2]}


def wait_for_faces(live: Service, name: str, faces: int) -> None:
    """Wait until frames.csv contains `faces` faces."""
    live.wait(lambda: len(probs_by_face(live.rows(name))) == faces)


def is_later(crop: FaceCrop | None, other: FaceCrop | None) -> bool:
    return crop is None or other is None or crop.face.captured_at > other.face.captured_at


def metric(port: int, processes: int, name: str, **labels: str) -> float:
    """Return the sum of a metric over all processes."""
    pages = [urlopen(f"http://127.0.0.1:{port + number}/metrics").read().decode() for number in range(processes)]
    samples = [one for page in pages for family in text_string_to_metric_families(page) for one in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def test_only_the_crops_that_crash_workers_are_lost(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    faces: Callable[[str], list[FaceCrop]],
    clips: Path,
) -> None:
    expected, crops = expected_results("two_faces"), faces("two_faces")
    deadly, bad = crops[40], (crops[10], crops[45], crops[70])
    poisoned = {(crop.face.key.frame_index, crop.face.key.person_id) for crop in (deadly, *bad)}
    source = {"url": str(clips / "two_faces.mp4"), "playback": "fast"}
    live = service(
        sources={NAME: source}, workers={"classifiers": 2}, queue={"redelivery": {"visibility_timeout_s": 1}}
    )
    live.inject("classify", POISONED_FACES.format(deadly={digest(deadly)}, bad={digest(crop) for crop in bad}))
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: live.logged("process_exited", worker="classify", code=-9))
    recovered_s = live.wait(lambda: live.stream_id(NAME) and live.counts(NAME).dead == len(poisoned), 90)
    print(f"a crop that kills workers: dead letter {recovered_s:.1f} s after the first crash")
    live.wait(lambda: [frame.index for frame in live.results(NAME)] == expected.indexes)
    live.wait(lambda: probs_by_face(live.rows(NAME)).keys() >= probs_by_face(expected.rows).keys() - poisoned)
    counts, letters = live.counts(NAME), dead_letters(live)
    assert live.has_no_duplicates(NAME)
    assert live.stop() == [0]
    assert live.logged("process_exited", worker="classify", code=-9) == 3
    assert (counts.enqueued, counts.acked) == (len(crops), len(crops) - len(poisoned))
    assert letters == poisoned
    # The other crops of the same batches have the same probabilities as without the fault.
    whole = probs_by_face(expected.rows)
    assert probs_by_face(live.rows(NAME)) == {key: probs for key, probs in whole.items() if key not in poisoned}
    print(f"enqueued {counts.enqueued} = acknowledged {counts.acked} + dead {counts.dead}")


@pytest.fixture
def external_servers(
    redis_server: Callable[..., subprocess.Popen[bytes]], free_port: Callable[[], int], canary: str, tmp_path: Path
) -> dict[str, Callable[[], Any]]:
    """External Redis servers, one for the queue and a persistent one for the store: start functions by role,
    `urls`."""
    ports = {"queue": free_port(), "store": free_port()}
    options = {"queue": ("--appendonly", "no"), "store": ("--appendonly", "yes")}

    def start(role: str) -> subprocess.Popen[bytes]:
        (tmp_path / role).mkdir(exist_ok=True)
        return redis_server(tmp_path / role, ports[role], "--requirepass", canary, *options[role])

    password = quote(canary, safe="")
    return {
        **{role: lambda role=role: start(role) for role in ports},  # type: ignore[misc]
        "urls": lambda: {role: {"url": f"redis://:{password}@127.0.0.1:{port}"} for role, port in ports.items()},
    }


def test_external_servers_are_killed_and_restarted(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    external_servers: dict[str, Callable[[], Any]],
    canary: str,
) -> None:
    camera = rtsp_camera((camera_clip,)).start()
    running = {role: external_servers[role]() for role in ("queue", "store")}
    url = camera.url(f"viewer:{quote(canary, safe='')}@")
    live = service(sources={NAME: {"url": url, **TIMEOUTS}}, **external_servers["urls"]())
    live.serve()
    live.wait(lambda: live.logged("worker_ready", role="timeline"))
    live.wait(lambda: len(live.results(NAME)) > 10)
    session = live.stream_id(NAME)
    for role, server in reversed(running.items()):
        outages = live.logged("redis_unreachable")
        server.kill()
        server.wait()
        live.wait(lambda outages=outages: live.logged("redis_unreachable") > outages)  # type: ignore[misc]
        external_servers[role]()
        again = live.wait_for_results(NAME) if role == "store" else live.wait(lambda: live.stream_id(NAME) != session)
        print(f"{role} server killed and restarted: results after {again:.1f} s")
        live.wait_for_results(NAME)
        if role == "store":
            assert live.stream_id(NAME) == session
            assert live.gaps(NAME) == []
            assert live.unexplained_gaps(NAME) == []
    # The queued faces and the frames until the camera was reopened are lost, as the gap shows.
    live.wait(lambda: live.gaps(NAME))
    ((reason, start, end),) = live.gaps(NAME)
    print(f"queue server killed: a gap of {end - start:.1f} s")
    assert (reason, live.unexplained_gaps(NAME)) == ("restart", [])
    assert live.stream_id(NAME) != session
    assert live.stop() == [0]
    assert live.has_no_duplicates(NAME)


def test_store_outage_longer_than_a_lease_loses_nothing(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    external_servers: dict[str, Callable[[], Any]],
) -> None:
    camera = rtsp_camera((camera_clip,)).start()
    store = {role: external_servers[role]() for role in ("queue", "store")}["store"]
    names = (NAME, "other")
    live = service(
        sources={name: {"url": camera.url(), "fps": 5, **TIMEOUTS} for name in names}, **external_servers["urls"]()
    )
    live.inject("timeline", SHORT_LEASE)
    live.serve()
    for name in names:
        live.wait(lambda name=name: live.results(name))  # type: ignore[misc]
    sessions = {name: live.stream_id(name) for name in names}
    store.kill()
    store.wait()
    # The last renewal was before the kill, so that the lease has expired when its TTL has passed.
    expired_s = time.monotonic() + LEASE_TTL_S
    live.wait(lambda: time.monotonic() > expired_s)
    external_servers["store"]()
    for name in names:
        print(f"store unreachable: results of {name} {live.wait_for_results(name):.1f} s after its restart")
    live.wait(lambda: all(live.camera_reason(name) == "up" for name in names))
    assert {name: live.stream_id(name) for name in names} == sessions
    assert [live.gaps(name) for name in names] == [[], []]
    assert [live.unexplained_gaps(name) for name in names] == [[], []]
    assert all(live.has_no_duplicates(name) for name in names)


def test_full_redis_drops_faces_and_counts_them(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
    external_servers: dict[str, Callable[[], Any]],
    free_port: Callable[[], int],
) -> None:
    expected, port = expected_results("one_face_crying"), free_port()
    for role in ("queue", "store"):
        external_servers[role]()
    source = {
        "url": str(clips / "one_face_crying.mp4"),
        "playback": "realtime",
        "overflow": {"policy": "drop_oldest"},
    }
    live = service(sources={NAME: source}, metrics={"port": port}, **external_servers["urls"]())
    live.serve()
    live.wait(lambda: live.logged("worker_ready", role="timeline"))
    live.wait(lambda: len(live.results(NAME)) > 20)
    links = (live.queue_client, live.store_client)
    for link in links:
        link.call(lambda client: client.config_set("maxmemory", 1))
    live.wait(lambda: live.counts(NAME).dropped > 20)
    for link in links:
        link.call(lambda client: client.config_set("maxmemory", 0))
    recovered_s = live.wait_for_results(NAME)
    print(f"full queue and store: results {recovered_s:.1f} s after memory was available")
    live.wait(lambda: len({row.split(",")[0] for row in live.rows(NAME)}) == len(expected.indexes))
    live.wait(lambda: live.segments(NAME) and live.counts(NAME).pending == 0)
    counts = live.counts(NAME)
    assert counts.enqueued == counts.acked + counts.dropped == len(probs_by_face(expected.rows))
    # Dropped faces are missing in their frames; no frame is missing.
    assert len(probs_by_face(live.rows(NAME))) == counts.acked
    assert probs_by_face(live.rows(NAME)).items() <= probs_by_face(expected.rows).items()
    unpublished = len(expected.indexes) - len(live.results(NAME))
    assert unpublished > 0
    assert metric(port, 3, "fer_results_rejected_total") == unpublished
    assert metric(port, 3, "fer_crops_dropped_total", source=NAME) == counts.dropped
    assert metric(port, 3, "fer_predictions_missing_total", source=NAME) == counts.dropped
    print(f"enqueued {counts.enqueued} = acknowledged {counts.acked} + dropped {counts.dropped}")
    assert live.stop() == [0]
    assert live.has_no_duplicates(NAME)
    assert live.written_segments(NAME) == live.segments(NAME)


def test_overloaded_workers_drop_the_oldest_faces_and_a_stop_counts_all(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
    external_servers: dict[str, Callable[[], Any]],
) -> None:
    expected = expected_results("one_face_crying")
    for role in ("queue", "store"):
        external_servers[role]()
    source = {
        "url": str(clips / "one_face_crying.mp4"),
        "playback": "realtime",
        "overflow": {"policy": "drop_oldest", "max_age_s": 1},
    }
    names = ("one", "two")
    servers = external_servers["urls"]()
    servers["queue"]["redelivery"] = {"visibility_timeout_s": 4}
    model = {"batch_size": 8}
    live = service(sources=dict.fromkeys(names, source), workers={"classifiers": 1}, model=model, **servers)
    live.inject("classify", SLOW_WORKER)
    live.serve()
    live.wait(lambda: live.logged("worker_ready", role="timeline"))
    for name in names:
        live.wait(lambda name=name: live.stream_id(name) and live.counts(name).dropped > 20)  # type: ignore[misc]
    # The oldest pending face of each source advances, so that results do not wait for ever.
    oldest = live.queue.oldest_pending(names)
    live.wait(lambda: all(is_later(crop, oldest[name]) for name, crop in live.queue.oldest_pending(names).items()))
    assert live.stop() == [0]
    remaining = {name: live.counts(name) for name in names}
    assert sum(counts.pending for counts in remaining.values()) == live.queue.depth()
    # The remaining faces stay on the server and are processed by the next workers.
    (live.inject_dir / "sitecustomize.py").unlink()
    live.worker("classify")
    live.worker("timeline")
    live.wait(lambda: all(live.logged("worker_ready", role=role) == 2 for role in ("classify", "timeline")))
    live.wait(lambda: live.queue.depth() == 0)
    for name in names:
        counts = live.counts(name)
        wait_for_faces(live, name, counts.acked)
        assert counts.enqueued == counts.acked + counts.dropped
        last = max(int(row.split(",")[0]) for row in live.rows(name))
        whole = {key: probs for key, probs in probs_by_face(expected.rows).items() if key[0] <= last}
        assert counts.enqueued == len(whole)
        assert probs_by_face(live.rows(name)).items() <= whole.items()
        assert live.has_no_duplicates(name)
        print(f"{name}: enqueued {counts.enqueued} = acknowledged {counts.acked} + dropped {counts.dropped}")
    assert live.stop() == [0, 0]


def test_killed_capture_leaves_a_gap_even_if_the_clock_changes(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    tmp_path: Path,
    canary: str,
) -> None:
    shift = tmp_path / "shift"
    shift.write_text("0")
    camera = rtsp_camera((camera_clip,)).start()
    url = camera.url(f"viewer:{quote(canary, safe='')}@")
    live = service(sources={NAME: {"url": url, **TIMEOUTS}})
    live.inject("capture", SHIFTED_CLOCK.format(shift=str(shift)))
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 10)
    first = live.stream_id(NAME)
    live.send_signal("capture", signal.SIGKILL)
    recovered_s = live.wait(lambda: live.stream_id(NAME) != first)
    live.wait(lambda: live.gaps(NAME))
    ((reason, start, end),) = live.gaps(NAME)
    print(f"capture killed: results after {recovered_s:.1f} s, a gap of {end - start:.1f} s")
    assert reason == "restart"
    assert live.unexplained_gaps(NAME) == []

    starts = [stream_start_ms(live.stream_id(NAME))]
    for seconds in ("3600", "-3600"):
        (tmp_path / "next").write_text(seconds)
        (tmp_path / "next").replace(shift)
        restarted_s = live.wait(lambda: stream_start_ms(live.stream_id(NAME)) > starts[-1])
        print(f"clock {seconds} s off: results of a new session after {restarted_s:.1f} s")
        starts.append(stream_start_ms(live.stream_id(NAME)))
        live.wait_for_results(NAME)
    assert starts[1] - starts[0] > 3_600_000
    assert starts[2] == starts[1] + 1, "a session starts after the previous one"
    assert live.unexplained_gaps(NAME) == []
    before = live.stream_id(NAME)
    live.send_signal("capture", signal.SIGKILL)
    recovered_s = live.wait(lambda: live.stream_id(NAME) != before)
    print(f"capture killed with its clock one hour back: results after {recovered_s:.1f} s")
    # The length of the gap cannot be derived from that clock, but the gap must exist.
    live.wait(lambda: len(live.gaps(NAME)) == 4)
    assert {reason for reason, _, _ in live.gaps(NAME)} == {"restart"}
    assert stream_start_ms(live.stream_id(NAME)) == stream_start_ms(before) + 1
    by_session: dict[str, list[float]] = {}
    for frame in live.results(NAME):
        by_session.setdefault(frame.stream_id, []).append(frame.time_s)
    assert all(times == sorted(times) for times in by_session.values())
    assert live.has_no_duplicates(NAME)
    assert live.stop() == [0]


def test_full_disk_suspends_the_tables_and_counts_lost_rows(
    service: Callable[..., Service],
    expected_results: Callable[[str], ExpectedResults],
    clips: Path,
    small_disk: Callable[[int], Path],
    free_port: Callable[[], int],
) -> None:
    expected, disk, port = expected_results("one_face_crying"), small_disk(128), free_port()
    filler = disk / "filler"
    filler.write_bytes(os.urandom(100_000))
    live = service(
        sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}},
        recordings={"dir": str(disk / "files")},
        metrics={"port": port},
    )
    (disk / "files").mkdir()
    live.files = disk / "files"
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: str(live.files) in live.log_text())
    shown = len(live.results(NAME))
    live.wait_for_results(NAME)
    filler.unlink()
    written = len(live.rows(NAME))
    recovered_s = live.wait(lambda: len(live.rows(NAME)) > written)
    print(f"full disk after {shown} frames: rows {recovered_s:.1f} s after space was available")
    live.wait(lambda: len(live.segments(NAME)) == len(expected.segments))
    assert live.has_no_duplicates(NAME)
    counted = metric(port, 3, "fer_rows_lost_total", source=NAME)
    assert live.stop() == [0]
    lost = live.lines(NAME, "lost")
    assert counted == sum(line["rows"] for line in lost)
    lines = len(live.rows(NAME)) + len(live.written_segments(NAME))
    assert lines + sum(line["rows"] for line in lost) == len(expected.rows) + len(expected.segments)
    assert sum(line["rows"] for line in lost) > 0
    assert set(live.rows(NAME)) <= set(expected.rows)
    print(f"{lines} lines written + {[line['rows'] for line in lost]} lost = all that `fer-stream run` writes")


def test_directory_that_cannot_be_created_suspends_only_the_files(
    service: Callable[..., Service], clips: Path, free_port: Callable[[], int]
) -> None:
    source = {"url": str(clips / "long_mostly_no_face.mp4"), "playback": "realtime", "record": True}
    port = free_port()
    live = service(sources={NAME: source}, metrics={"port": port})
    live.files.write_text("not a directory")
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 10)
    assert live.logged("writing_stopped", output="recording", source=NAME)
    assert f"Cannot write {live.files}" in live.log_text()
    live.wait(lambda: metric(port, 3, "fer_recording_frames_lost_total", source=NAME) > 0)
    live.files.unlink()
    resumed_s = live.wait(lambda: [*live.files.glob(f"{NAME}/.*.mp4")] and live.rows(NAME))
    print(f"a file instead of a directory: recordings and tables {resumed_s:.1f} s after it was removed")
    # Recorded frames are not lost.
    lost = metric(port, 3, "fer_recording_frames_lost_total", source=NAME)
    recorded = metric(port, 3, "fer_frames_total", source=NAME)
    live.wait(lambda: metric(port, 3, "fer_frames_total", source=NAME) > recorded + 60)
    lost = metric(port, 3, "fer_recording_frames_lost_total", source=NAME) - lost
    print(f"recording works: {lost:.0f} of 60 frames lost")
    assert lost < 60
    assert len({frame.stream_id for frame in live.results(NAME)}) == 1
    assert live.stop() == [0]
    assert len([*live.files.glob(f"{NAME}/[!.]*.mp4")]) == 1
