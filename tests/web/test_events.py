"""Server-sent events: live results of one source and of all sources."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from fer_stream.config.live import LiveSettings
from fer_stream.config.reload import Changes
from fer_stream.records import LabelledFrame
from fer_stream.store.protocol import CameraState, position_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.web.conftest import Web

UP = CameraState(True, 1767225600.25, width=640, height=360)
Event = tuple[str, dict[str, Any], str | None]


@contextmanager
def event_stream(web: Web, path: str, last_event_id: str | None = None) -> Iterator[Iterator[Event]]:
    """Open a stream; yield its events as name, data and id."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with web.client.stream("GET", f"/api/v1{path}", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield parse_events(response.iter_lines())


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"]), fields.get("id")
        fields = {}


def first(stream: Iterator[Event], name: str) -> Event:
    return next(event for event in stream if event[0] == name)


def test_stream_starts_with_state_and_newest_result(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.set_state("door", UP)
    web.store.publish("door", [frame(0), frame(5, faces=2)])
    with event_stream(web, "/sources/door/live") as stream:
        name, state, position = next(stream)
        assert (name, state["up"], state["width"], position) == ("state", True, 640, None)
        name, seen, position = next(stream)
    assert (name, position) == ("frame", position_of(frame(5)))
    assert (seen["source"], seen["index"], seen["provisional"]) == ("door", 5, True)
    assert (seen["stream_id"], seen["time_s"]) == (frame(5).stream_id, 0.5)
    assert (seen["width"], seen["height"]) == (640, 360)
    assert 50 < seen["latency_s"] < 120
    assert seen["latency_s"] == pytest.approx(time.time() - seen["at"], abs=10)
    one, two = seen["faces"]
    assert (one["person_id"], two["person_id"], one["label"], one["xyxy"]) == (1, 2, "happy", [1.0, 2.25, 30.0, 40.0])
    assert one["smoothed"] == one["probs"] == [0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05]
    assert (one["quality"], one["quality_reason"]) == (0.8, "ok")


def test_results_and_state_changes_are_sent_as_they_happen(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.set_state("door", UP)
    with event_stream(web, "/sources/door/live") as stream:
        assert next(stream)[0] == "state"
        web.store.publish("door", [frame(0)])
        assert first(stream, "frame")[1]["index"] == 0
        web.store.set_state("door", CameraState(False, 5.0, "stalled", "nothing came", 1))
        assert first(stream, "state")[1]["reason"] == "stalled"
        web.store.publish("door", [frame(1)])
        assert first(stream, "frame")[1]["index"] == 1


def test_reconnecting_client_receives_missed_results(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.set_state("door", UP)
    web.store.publish("door", [frame(index) for index in range(40)])
    with event_stream(web, "/sources/door/live", position_of(frame(9))) as stream:
        seen = [first(stream, "frame")[1]["index"] for _ in range(30)]
        web.store.publish("door", [frame(40)])
        assert first(stream, "frame")[1]["index"] == 40
    assert seen == list(range(10, 40))


@pytest.mark.parametrize("value", ["", "5", "1-2-3", "-1-0", "x", "9" * 40 + "-0", "$", "0-0 or 1"])
def test_invalid_last_event_id_is_ignored(web: Web, frame: Callable[..., LabelledFrame], value: str) -> None:
    web.store.publish("door", [frame(0), frame(3)])
    with event_stream(web, "/sources/door/live", value) as stream:
        assert first(stream, "frame")[1]["index"] == 3


def test_only_the_newest_of_several_results_is_sent(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.publish("door", [frame(0)])
    with event_stream(web, "/sources/door/live") as stream:
        first(stream, "frame")
        web.store.publish("door", [frame(index) for index in range(1, 60)])
        assert first(stream, "frame")[1]["index"] == 59


def test_client_far_behind_continues_with_the_newest_result(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.publish("door", [frame(0)])
    with event_stream(web, "/sources/door/live") as stream:
        first(stream, "frame")
        web.store.publish("door", [frame(index) for index in range(1, 500)])
        indexes = [first(stream, "frame")[1]["index"] for _ in range(2)]
    assert indexes == [64, 499]


def test_slow_client_skips_results_and_receives_the_newest(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    """The buffers of the connection fill up; results of that time are not kept for the client."""
    web.store.publish("door", [frame(0, faces=60)])
    with closing(slow_connection(web, "/api/v1/sources/door/live")) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        newest = 1000
        for last in range(5, newest + 1, 5):
            web.store.publish("door", [frame(index, faces=60) for index in range(last - 4, last + 1)])
        client.settimeout(20)
        received = b""
        while f'"index":{newest},'.encode() not in received:
            received += client.recv(1 << 16)
    indexes = [int(number) for number in re.findall(rb'"index":(\d+)', received)]
    assert indexes == sorted(indexes)
    assert len(indexes) < newest / 2
    wait_until(lambda: web.metric("fer_web_streams") == 0)


def slow_connection(web: Web, path: str) -> socket.socket:
    """Connect a client with a minimal receive buffer."""
    address = urlsplit(web.address)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    return client


def test_number_of_streams_is_limited(make_web: Callable[..., Web]) -> None:
    web = make_web(max_streams=2)
    web.store.set_state("door", UP)
    with event_stream(web, "/sources/door/live") as one, event_stream(web, "/live") as two:
        assert next(one)[0] == next(two)[0] == "state"
        assert web.metric("fer_web_streams") == 2
        for path in ("/sources/door/live", "/live"):
            response = web.get(path)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "10"
            assert "All 2 live streams are in use" in response.json()["detail"]
        assert web.get("/sources").status_code == 200
    wait_until(lambda: web.metric("fer_web_streams") == 0)
    with event_stream(web, "/live") as again:
        assert next(again)[0] == "state"


def test_overview_stream_has_states_and_newest_results(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.set_state("door", UP)
    web.store.publish("door", [frame(0), frame(1)])
    web.store.set_state("yard", CameraState(False, 5.0, "refused"))
    with event_stream(web, "/live") as stream:
        begin = [next(stream) for _ in range(3)]
        assert [(name, data.get("name", data.get("source"))) for name, data, _ in begin] == [
            ("state", "door"), ("latest", "door"), ("state", "yard"),
        ]  # fmt: skip
        assert begin[1][1]["index"] == 1
        assert len(begin[1][1]["faces"]) == 1
        web.store.publish("door", [frame(2)])
        name, latest, _ = next(stream)
        assert (name, latest["source"], latest["index"]) == ("latest", "door", 2)
        web.store.set_state("yard", CameraState(True, 6.0))
        name, state, _ = next(stream)
        assert (name, state["name"], state["up"]) == ("state", "yard", True)


def test_removed_source_disappears_from_streams_and_routes(web: Web) -> None:
    configured = LiveSettings.model_validate({"sources": {"door": {"url": "rtsp://cam/1"}}})
    for name in ("door", "yard"):
        web.store.set_state(name, UP)
    with event_stream(web, "/live") as overview, event_stream(web, "/sources/yard/live") as yard:
        assert {next(overview)[1]["name"] for _ in range(2)} == {"door", "yard"}
        assert next(yard)[0] == "state"
        web.is_configured.update(configured, Changes(removed=("yard",)))
        assert next(overview)[:2] == ("removed", {"name": "yard"})
        assert list(yard) == []
    assert [source["name"] for source in web.get("/sources").json()] == ["door"]
    for path in ("", "/live", "/preview.jpg", "/timeline", "/days"):
        assert web.get(f"/sources/yard{path}").status_code == 404
    web.is_configured.update(LiveSettings(), Changes(removed=("door",), added=("yard",)))
    wait_until(lambda: [source["name"] for source in web.get("/sources").json()] == ["yard"])


def test_stream_continues_after_an_outage_of_the_store(
    make_web: Callable[..., Web],
    frame: Callable[..., LabelledFrame],
    restartable_store: Any,
) -> None:
    web = make_web(restartable_store.url)
    web.store.publish("door", [frame(0)])
    with event_stream(web, "/sources/door/live") as stream:
        first(stream, "frame")
        restartable_store.stop()
        name, problem, _ = next(event for event in stream if event[0] != "state")
        assert (name, problem["status"]) == ("problem", 503)
        response = web.get("/sources")
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert web.client.get("/readyz").status_code == 503
        assert web.client.get("/healthz").status_code == 200
        restartable_store.start()
        web.store.publish("door", [frame(1)])
        assert first(stream, "frame")[1]["index"] == 1
    assert web.client.get("/readyz").json() == {"status": "ok"}


def test_concurrent_requests_share_one_failed_read_of_the_store(
    make_web: Callable[..., Web], restartable_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = make_web(restartable_store.url)
    reads = []
    sources = web.store.sources

    def counted() -> list[str]:
        reads.append(time.monotonic())
        return sources()

    monkeypatch.setattr(web.store, "sources", counted)
    restartable_store.stop()
    with ThreadPoolExecutor(12) as many:
        responses = list(many.map(web.get, ["/sources", "/sources/door", "/sources/door/timeline"] * 4))
    assert [response.status_code for response in responses] == [503] * 12
    assert len({response.json()["detail"] for response in responses}) == 1
    assert len(reads) <= 3
    restartable_store.start()
    wait_until(lambda: web.get("/sources").status_code == 200)


def test_idle_stream_sends_keepalive_comments(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.web.events._KEEPALIVE_S", 0.5)
    web.store.set_state("door", UP)
    with web.client.stream("GET", "/api/v1/sources/door/live") as response:
        lines = response.iter_lines()
        assert next(lines) == "retry: 2000"
        assert next(line for line in lines if line.startswith(":")) == ": keepalive"


def test_streams_end_when_the_service_stops(web: Web) -> None:
    web.store.set_state("door", UP)
    with event_stream(web, "/sources/door/live") as stream:
        assert next(stream)[0] == "state"
        web.stop.set()
        assert not [event for event in stream if event[0] != "state"]


def test_stream_of_a_disconnected_client_is_released(web: Web) -> None:
    web.store.set_state("door", UP)
    with closing(slow_connection(web, "/api/v1/live")) as client:
        client.recv(1)
        assert web.metric("fer_web_streams") == 1
    wait_until(lambda: web.metric("fer_web_streams") == 0)
