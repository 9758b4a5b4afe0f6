"""Faults that cost something, or might: what was lost is counted, and the count is checked against the truth.

`pytest -rP` prints recovery times.
"""

from __future__ import annotations

import os
import re
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
    from tests.service.conftest import Service, Truth

NAME = "clip"
PATIENCE = {"open_timeout_s": 2, "stall_timeout_s": 2, "reconnect_min_s": 0.1, "reconnect_max_s": 0.5}

POISON = """
import os, signal
from hashlib import sha256
from fer_stream.classify import classifier
classify = classifier.classify

def harmed(pixels, *more, **options):
    found = {{sha256(face.tobytes()).hexdigest() for face in pixels}}
    if found & {deadly}:
        os.kill(os.getpid(), signal.SIGKILL)
    if found & {bad}:
        raise RuntimeError("a face that nobody can bear to look at")
    return classify(pixels, *more, **options)

classifier.classify = harmed
"""

SLOW = """
import time
from fer_stream.classify import classifier
classify = classifier.classify

def harmed(pixels, *more, **options):
    time.sleep(0.2 * len(pixels))
    return classify(pixels, *more, **options)

classifier.classify = harmed
"""

CLOCK = """
import time
from pathlib import Path
real, shift = time.time, Path({shift!r})
time.time = lambda: real() + float(shift.read_text())
"""


def digest(crop: FaceCrop) -> str:
    return sha256(crop.pixels.tobytes()).hexdigest()


def dead_letters(live: Service) -> set[tuple[int, int]]:
    """Frame and person of every dead letter."""
    reply = live.queue_link.call(lambda client: client.xrange(SourceKeys(NAME, 1).dead))
    letters = [fields for _, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], reply)]
    assert {(fields[b"reason"], fields[b"deliveries"]) for fields in letters} == {(b"deliveries", b"3")}
    return {(int(fields[b"frame_index"]), int(fields[b"person_id"])) for fields in letters}


def seen(rows: list[str]) -> dict[tuple[int, int], tuple[str, ...]]:
    """Frame and person → what the classifier said, of the rows with a face."""
    cells = [row.split(",") for row in rows]
    return {(int(row[0]), int(row[2])): tuple(row[10:17]) for row in cells if row[2]}


def wait_for_faces(live: Service, name: str, faces: int) -> None:
    """Wait until so many faces are in the table of frames."""
    live.wait(lambda: len(seen(live.rows(name))) == faces)


def metric(port: int, processes: int, name: str, **labels: str) -> float:
    """The sum of a metric over all processes."""
    pages = [urlopen(f"http://127.0.0.1:{port + number}/metrics").read().decode() for number in range(processes)]
    samples = [one for page in pages for family in text_string_to_metric_families(page) for one in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def test_a_face_that_no_worker_survives_costs_itself_alone(
    service: Callable[..., Service],
    truth: Callable[[str], Truth],
    faces: Callable[[str], list[FaceCrop]],
    clips: Path,
) -> None:
    expected, crops = truth("two_faces"), faces("two_faces")
    deadly, bad = crops[40], (crops[10], crops[45], crops[70])
    poisoned = {(crop.key.frame_index, crop.key.person_id) for crop in (deadly, *bad)}
    source = {"url": str(clips / "two_faces.mp4"), "playback": "fast"}
    live = service(
        sources={NAME: source}, workers={"classifiers": 2}, queue={"redelivery": {"visibility_timeout_s": 1}}
    )
    live.harm("classify", POISON.format(deadly={digest(deadly)}, bad={digest(crop) for crop in bad}))
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: "classify ended with code -9" in live.said())
    recovered_s = live.wait(lambda: live.stream_id(NAME) and live.counts(NAME).dead == len(poisoned), 90)
    print(f"a face that kills workers: given up {recovered_s:.1f} s after the first worker was killed")
    live.wait(lambda: [frame.index for frame in live.results(NAME)] == expected.indexes)
    live.wait(lambda: seen(live.rows(NAME)).keys() >= seen(expected.rows).keys() - poisoned)
    counts, letters = live.counts(NAME), dead_letters(live)
    assert live.nothing_is_twice(NAME)
    assert live.stop() == [0]
    assert live.said().count("classify ended with code -9") == 3
    assert (counts.enqueued, counts.acked) == (len(crops), len(crops) - len(poisoned))
    assert letters == poisoned
    # Those who shared a batch with the poison are there, with the same probabilities.
    whole = seen(expected.rows)
    assert seen(live.rows(NAME)) == {key: probs for key, probs in whole.items() if key not in poisoned}
    print(f"put {counts.enqueued} = settled {counts.acked} + dead {counts.dead}")


@pytest.fixture
def own_servers(
    redis_server: Callable[..., subprocess.Popen[bytes]], free_port: Callable[[], int], canary: str, tmp_path: Path
) -> dict[str, Callable[[], Any]]:
    """Debian's redis-server, one for the queue and a persistent one for the store: `start` by role, `urls`."""
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


def test_servers_of_others_are_killed_and_come_back(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    film: Path,
    own_servers: dict[str, Callable[[], Any]],
    canary: str,
) -> None:
    camera = rtsp_camera((film,)).start()
    running = {role: own_servers[role]() for role in ("queue", "store")}
    url = camera.url(f"viewer:{quote(canary, safe='')}@")
    live = service(sources={NAME: {"url": url, **PATIENCE}}, **own_servers["urls"]())
    live.serve()
    live.wait(lambda: "keeping the timelines" in live.said())
    live.wait(lambda: len(live.results(NAME)) > 10)
    epoch = live.stream_id(NAME)
    for role, server in reversed(running.items()):
        server.kill()
        server.wait()
        time.sleep(2)
        own_servers[role]()
        again = live.more_results(NAME) if role == "store" else live.wait(lambda: live.stream_id(NAME) != epoch)
        print(f"{role} server killed and started again after 2 s: results {again:.1f} s later")
        time.sleep(2)
        if role == "store":
            assert live.stream_id(NAME) == epoch
            assert live.gaps(NAME) == []
            assert live.holes(NAME) == []
    # What lay on the queue is gone, and the pictures until the camera was opened again: the gap says so.
    live.wait(lambda: live.gaps(NAME))
    ((why, start, end),) = live.gaps(NAME)
    print(f"queue server killed: a gap of {end - start:.1f} s")
    assert (why, live.holes(NAME)) == ("restart", [])
    assert live.stream_id(NAME) != epoch
    assert live.stop() == [0]
    assert live.nothing_is_twice(NAME)


def test_a_store_that_is_away_for_longer_than_a_lease_costs_nothing(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    film: Path,
    own_servers: dict[str, Callable[[], Any]],
) -> None:
    camera = rtsp_camera((film,)).start()
    store = {role: own_servers[role]() for role in ("queue", "store")}["store"]
    names = (NAME, "other")
    live = service(
        sources={name: {"url": camera.url(), "fps": 5, **PATIENCE} for name in names}, **own_servers["urls"]()
    )
    live.serve()
    for name in names:
        live.wait(lambda name=name: live.results(name))  # type: ignore[misc]
    epochs = {name: live.stream_id(name) for name in names}
    store.kill()
    store.wait()
    time.sleep(11)
    own_servers["store"]()
    for name in names:
        print(f"store away for 11 s: results of {name} again after {live.more_results(name):.1f} s more")
    live.wait(lambda: all(live.reason(name) == "up" for name in names))
    assert {name: live.stream_id(name) for name in names} == epochs
    assert [live.gaps(name) for name in names] == [[], []]
    assert [live.holes(name) for name in names] == [[], []]
    assert all(live.nothing_is_twice(name) for name in names)


def test_a_full_redis_drops_faces_and_counts_them(
    service: Callable[..., Service],
    truth: Callable[[str], Truth],
    clips: Path,
    own_servers: dict[str, Callable[[], Any]],
    free_port: Callable[[], int],
) -> None:
    expected, port = truth("one_face_crying"), free_port()
    for role in ("queue", "store"):
        own_servers[role]()
    source = {
        "url": str(clips / "one_face_crying.mp4"),
        "playback": "realtime",
        "overflow": {"policy": "drop_oldest"},
    }
    live = service(sources={NAME: source}, metrics={"port": port}, **own_servers["urls"]())
    live.serve()
    live.wait(lambda: "keeping the timelines" in live.said())
    live.wait(lambda: len(live.results(NAME)) > 20)
    links = (live.queue_link, live.store_link)
    for link in links:
        link.call(lambda client: client.config_set("maxmemory", 1))
    live.wait(lambda: live.counts(NAME).dropped > 20)
    for link in links:
        link.call(lambda client: client.config_set("maxmemory", 0))
    recovered_s = live.more_results(NAME)
    print(f"full queue and store: results again {recovered_s:.1f} s after there was room")
    live.wait(lambda: len({row.split(",")[0] for row in live.rows(NAME)}) == len(expected.indexes))
    live.wait(lambda: live.segments(NAME) and live.counts(NAME).pending == 0)
    counts = live.counts(NAME)
    assert counts.enqueued == counts.acked + counts.dropped == len(seen(expected.rows))
    # A face that was dropped is missing from its frame, and no frame is missing.
    assert len(seen(live.rows(NAME))) == counts.acked
    assert seen(live.rows(NAME)).items() <= seen(expected.rows).items()
    unpublished = len(expected.indexes) - len(live.results(NAME))
    assert unpublished > 0
    assert metric(port, 3, "fer_results_rejected_total") == unpublished
    assert metric(port, 3, "fer_crops_dropped_total", source=NAME) == counts.dropped
    assert metric(port, 3, "fer_predictions_missing_total", source=NAME) == counts.dropped
    print(f"put {counts.enqueued} = settled {counts.acked} + dropped {counts.dropped}; unpublished {unpublished}")
    assert live.stop() == [0]
    assert live.nothing_is_twice(NAME)
    assert live.written_segments(NAME) == live.segments(NAME)


def test_slow_workers_drop_the_oldest_and_a_stop_under_load_loses_nothing_uncounted(
    service: Callable[..., Service],
    truth: Callable[[str], Truth],
    clips: Path,
    own_servers: dict[str, Callable[[], Any]],
) -> None:
    expected = truth("one_face_crying")
    for role in ("queue", "store"):
        own_servers[role]()
    source = {
        "url": str(clips / "one_face_crying.mp4"),
        "playback": "realtime",
        "overflow": {"policy": "drop_oldest", "max_age_s": 1},
    }
    names = ("one", "two")
    servers = own_servers["urls"]()
    servers["queue"]["redelivery"] = {"visibility_timeout_s": 4}
    model = {"batch_size": 8}
    live = service(sources=dict.fromkeys(names, source), workers={"classifiers": 1}, model=model, **servers)
    live.harm("classify", SLOW)
    live.serve()
    live.wait(lambda: "keeping the timelines" in live.said())
    for name in names:
        live.wait(lambda name=name: live.stream_id(name) and live.counts(name).dropped > 20)  # type: ignore[misc]
    # A result waits for nothing that is younger than the oldest face that is open.
    ages = []
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s:
        ages += [time.time() - crop.captured_at for crop in live.queue.oldest_pending(names).values() if crop]
        time.sleep(0.05)
    print(f"workers at a tenth of the load: results wait for faces of {min(ages):.1f} to {max(ages):.1f} s ago")
    assert max(ages) < 10

    began_s = time.monotonic()
    assert live.stop() == [0]
    print(f"SIGTERM under that load: over after {time.monotonic() - began_s:.1f} s")
    left = {name: live.counts(name) for name in names}
    assert sum(counts.pending for counts in left.values()) == live.queue.depth()
    print(f"left on the queue: {live.queue.depth()}; said: {re.findall(r'[0-9]+ faces are left', live.said())}")
    # What it could not finish lies on the server, and is finished by the next one.
    (live.harm_folder / "sitecustomize.py").unlink()
    live.worker("classify")
    live.worker("timeline")
    live.wait(lambda: all(live.said().count(words) == 2 for words in ("classifying with", "keeping the timelines")))
    live.wait(lambda: live.queue.depth() == 0)
    for name in names:
        counts = live.counts(name)
        wait_for_faces(live, name, counts.acked)
        assert counts.enqueued == counts.acked + counts.dropped
        last = max(int(row.split(",")[0]) for row in live.rows(name))
        whole = {key: probs for key, probs in seen(expected.rows).items() if key[0] <= last}
        assert counts.enqueued == len(whole)
        assert seen(live.rows(name)).items() <= whole.items()
        assert live.nothing_is_twice(name)
        print(f"{name}: put {counts.enqueued} = settled {counts.acked} + dropped {counts.dropped}")
    assert live.stop() == [0, 0]


def test_a_killed_capture_leaves_a_gap_whatever_the_clock_says(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    film: Path,
    tmp_path: Path,
    canary: str,
) -> None:
    shift = tmp_path / "shift"
    shift.write_text("0")
    camera = rtsp_camera((film,)).start()
    url = camera.url(f"viewer:{quote(canary, safe='')}@")
    live = service(sources={NAME: {"url": url, **PATIENCE}})
    live.harm("capture", CLOCK.format(shift=str(shift)))
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 10)
    first = live.stream_id(NAME)
    live.tell("capture", signal.SIGKILL)
    recovered_s = live.wait(lambda: live.stream_id(NAME) != first)
    live.wait(lambda: live.gaps(NAME))
    ((why, start, end),) = live.gaps(NAME)
    print(f"capture killed: results again after {recovered_s:.1f} s, a gap of {end - start:.1f} s")
    assert why == "restart"
    assert live.holes(NAME) == []

    second = live.stream_id(NAME)
    for seconds in ("3600", "-3600"):
        (tmp_path / "next").write_text(seconds)
        (tmp_path / "next").replace(shift)
        for _ in range(5):
            live.more_results(NAME)
    assert live.stream_id(NAME) == second
    assert live.holes(NAME) == []
    live.tell("capture", signal.SIGKILL)
    recovered_s = live.wait(lambda: live.stream_id(NAME) != second)
    print(f"capture killed with its clock an hour back: results again after {recovered_s:.1f} s")
    # How long nobody looked cannot be known from that clock; that nobody looked can.
    live.wait(lambda: len(live.gaps(NAME)) == 2)
    assert {why for why, _, _ in live.gaps(NAME)} == {"restart"}
    assert stream_start_ms(live.stream_id(NAME)) == stream_start_ms(second) + 1
    by_epoch: dict[str, list[float]] = {}
    for frame in live.results(NAME):
        by_epoch.setdefault(frame.stream_id, []).append(frame.time_s)
    assert all(times == sorted(times) for times in by_epoch.values())
    assert live.nothing_is_twice(NAME)
    assert live.stop() == [0]


def test_a_full_disk_stops_the_tables_and_tells_what_they_lack(
    service: Callable[..., Service], truth: Callable[[str], Truth], clips: Path, tiny_disk: Callable[[int], Path]
) -> None:
    expected, disk = truth("one_face_crying"), tiny_disk(128)
    hog = disk / "hog"
    hog.write_bytes(os.urandom(100_000))
    live = service(
        sources={NAME: {"url": str(clips / "one_face_crying.mp4"), "playback": "realtime"}},
        recordings={"dir": str(disk / "files")},
    )
    (disk / "files").mkdir()
    live.files = disk / "files"
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: "No room left" in live.said())
    shown = len(live.results(NAME))
    live.more_results(NAME)
    hog.unlink()
    written = len(live.rows(NAME))
    recovered_s = live.wait(lambda: len(live.rows(NAME)) > written)
    print(f"full disk after {shown} frames: rows again {recovered_s:.1f} s after there was room")
    live.wait(lambda: len(live.segments(NAME)) == len(expected.segments))
    assert live.nothing_is_twice(NAME)
    assert live.stop() == [0]
    lost = live.lines(NAME, "lost")
    lines = len(live.rows(NAME)) + len(live.written_segments(NAME))
    assert lines + sum(line["rows"] for line in lost) == len(expected.rows) + len(expected.segments)
    assert sum(line["rows"] for line in lost) > 0
    assert set(live.rows(NAME)) <= set(expected.rows)
    print(f"{lines} lines written + {[line['rows'] for line in lost]} lost = all that `fer-stream run` writes")


def test_a_folder_that_cannot_be_made_stops_the_files_alone(service: Callable[..., Service], clips: Path) -> None:
    source = {"url": str(clips / "long_mostly_no_face.mp4"), "playback": "realtime", "record": True}
    live = service(sources={NAME: source})
    live.files.write_text("in the way")
    live.serve()
    live.wait_for_servers()
    live.wait(lambda: len(live.results(NAME)) > 10)
    assert f"recording of {NAME}: Cannot write {live.files}" in live.said()
    live.files.unlink()
    begun_s = live.wait(lambda: [*live.files.glob(f"{NAME}/.*.mp4")] and live.rows(NAME))
    print(f"a file where the folder should be: recordings and tables {begun_s:.1f} s after it was gone")
    assert len({frame.stream_id for frame in live.results(NAME)}) == 1
    assert live.stop() == [0]
    assert len([*live.files.glob(f"{NAME}/[!.]*.mp4")]) == 1
