"""Routes for sources: states, history and previews."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from fer_stream.records import UNKNOWN, Gap, LabelledFrame, Segment
from fer_stream.store.protocol import CameraState, Checkpoint, Preview

if TYPE_CHECKING:
    from tests.web.conftest import Web

UP = CameraState(True, 1767225600.25, width=640, height=360)
CHECKPOINT = Checkpoint("1-0", b"", {})
JPEG = b"\xff\xd8\xff\xe0 not a real image \xff\xd9"


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_an_empty_store_has_no_sources(web: Web) -> None:
    assert web.get("/sources").json() == []


def test_sources_have_state_and_newest_result(
    web: Web, frame: Callable[..., LabelledFrame], session_start_ms: int
) -> None:
    web.store.set_state("door", UP)
    web.store.publish("door", [frame(0), frame(7, faces=2)])
    web.store.set_state("yard", CameraState(False, 5.0, "refused", "Connection refused", 3))
    door, yard = web.get("/sources").json()
    assert door == {
        "name": "door", "up": True, "since": 1767225600.25, "reason": None, "text": "", "failures": 0,
        "latest_at": round(session_start_ms / 1000 + 0.7, 6), "faces": 2, "width": 640, "height": 360,
    }  # fmt: skip
    assert (yard["up"], yard["reason"], yard["text"], yard["failures"]) == (False, "refused", "Connection refused", 3)
    assert (yard["latest_at"], yard["faces"], yard["width"]) == (None, None, None)
    assert web.get("/sources/yard").json() == yard


def test_source_without_capture_process_is_neither_up_nor_down(web: Web, frame: Callable[..., LabelledFrame]) -> None:
    web.store.publish("door", [frame(0)])
    assert web.get("/sources/door").json()["up"] is None


@pytest.mark.parametrize("below", ["", "/live", "/preview.jpg", "/timeline", "/days"])
def test_unknown_source_is_not_found(web: Web, below: str) -> None:
    web.store.set_state("door", UP)
    for name in ("nobody", "DOOR", "fer:store", "a*"):
        assert_not_found(web.get(f"/sources/{name}{below}"), name)


def assert_not_found(response: httpx.Response, name: str) -> None:
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", "Not Found", 404)
    assert name in problem["detail"]
    assert "/api/v1/sources" in problem["hint"]


def test_timeline_has_segments_by_person_and_gaps(
    web: Web, segment: Callable[..., Segment], gap: Callable[[float], Gap]
) -> None:
    now = float(int(time.time()))
    inside = [segment(now - 100), segment(now - 100, person_id=2), segment(now - 50)]
    web.store.commit("door", CHECKPOINT, [*inside, segment(now - 7200)], [gap(now - 80), gap(now - 9000)])
    timeline = web.get("/sources/door/timeline").json()
    assert [(one["person_id"], len(one["segments"])) for one in timeline["people"]] == [(1, 1), (2, 1), (1, 1)]
    first = timeline["people"][0]
    assert first["stream_id"] == inside[0].stream_id
    assert first["segments"] == [
        {"label": "happy", "start_at": now - 100, "end_at": now - 98, "mean_prob": 0.75, "unknown_reason": None}
    ]
    assert [(one["reason"], one["start_at"], one["end_at"]) for one in timeline["gaps"]] == [
        ("stalled", now - 80, now - 78)
    ]
    assert timeline["to_at"] - timeline["from_at"] == 3600
    part = web.get("/sources/door/timeline", params={"from": now - 99, "to": now - 90}).json()
    assert [one["person_id"] for one in part["people"]] == [1, 2]
    assert part["gaps"] == []


def test_timeline_as_csv(web: Web, segment: Callable[..., Segment], gap: Callable[[float], Gap]) -> None:
    now = float(int(time.time()))
    web.store.commit("door", CHECKPOINT, [segment(now - 50), segment(now - 100, person_id=2)], [gap(now - 80)])
    response = web.get("/sources/door/timeline", params={"format": "csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="door.timeline.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["kind"], row["person_id"], row["label"]) for row in rows] == [
        ("segment", "2", "happy"), ("gap", "", "stalled"), ("segment", "1", "happy"),
    ]  # fmt: skip
    assert [float(row["start_at"]) - now for row in rows] == [-100, -80, -50]


def test_timeline_has_the_reason_of_unknown_segments(web: Web, segment: Callable[..., Segment]) -> None:
    now = float(int(time.time()))
    small = replace(segment(now - 100), label=UNKNOWN, mean_prob=0.0, unknown_reason="small")
    web.store.commit("door", CHECKPOINT, [small, segment(now - 50)], [])
    people = web.get("/sources/door/timeline").json()["people"]
    assert [one["segments"][0]["unknown_reason"] for one in people] == ["small", None]
    response = web.get("/sources/door/timeline", params={"format": "csv"})
    assert [row["unknown_reason"] for row in csv.DictReader(io.StringIO(response.text))] == ["small", ""]


def test_timeline_of_many_hours_has_every_segment_once(
    web: Web, segment: Callable[..., Segment], gap: Callable[[float], Gap]
) -> None:
    """The store is read an hour at a time; some hours are empty, and some segments are longer than an hour."""
    now = float(int(time.time()))
    starts = sorted({now - 600 * number for number in range(1, 60)} | {now - 80_000 - 17 * n for n in range(300)})
    lengths = [(2.0, 900.0, 20_000.0)[number % 3] for number in range(len(starts))]
    segments = [segment(at, length, track) for track, (at, length) in enumerate(zip(starts, lengths, strict=True))]
    web.store.commit("door", CHECKPOINT, segments, [gap(now - 70_000), gap(now - 20)])
    for from_s, to_s in ((0.0, now), (now - 79_000, now - 10_000), (now - 80_500, now - 80_100)):
        query = {"from": from_s, "to": to_s}
        inside = [
            (at, track)
            for track, (at, length) in enumerate(zip(starts, lengths, strict=True))
            if at < to_s and at + length >= from_s
        ]
        people = web.get("/sources/door/timeline", params=query).json()["people"]
        assert [(one["segments"][0]["start_at"], one["person_id"]) for one in people] == inside
        table = web.get("/sources/door/timeline", params={**query, "format": "csv"}).text
        rows = list(csv.DictReader(io.StringIO(table)))
        assert [(float(row["start_at"]), int(row["person_id"])) for row in rows if row["kind"] == "segment"] == inside
        assert [float(row["start_at"]) for row in rows] == sorted(float(row["start_at"]) for row in rows)


def test_too_long_timeline_is_refused_as_json_but_not_as_csv(
    web: Web, segment: Callable[..., Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_stream.web.sources.MAX_SEGMENTS", 20)
    now = time.time()
    web.store.commit("door", CHECKPOINT, [segment(now - 3000 + number) for number in range(21)], [])
    response = web.get("/sources/door/timeline")
    assert response.status_code == 422
    assert "more than 20 segments" in response.json()["detail"]
    assert "format=csv" in response.json()["hint"]
    assert web.get("/sources/door/timeline", params={"from": now - 2998}).status_code == 200
    assert len(web.get("/sources/door/timeline", params={"format": "csv"}).text.splitlines()) == 22


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"from": "nan"}, "from"),
        ({"from": "-1"}, "from"),
        ({"to": "inf"}, "to"),
        ({"to": "soon"}, "to"),
        ({"from": "20", "to": "10"}, "from"),
        ({"format": "xml"}, "format"),
    ],
)
def test_invalid_time_range_is_refused(web: Web, query: dict[str, str], named: str) -> None:
    web.store.set_state("door", UP)
    response = web.get("/sources/door/timeline", params=query)
    assert response.status_code == 422
    assert named in response.json()["detail"]


def test_days_depend_on_the_time_zone(web: Web, segment: Callable[..., Segment]) -> None:
    today = datetime.now(UTC).date().isoformat()
    late = utc(f"{today}T00:00:00") - 3600  # the evening before, in UTC; already today in Berlin
    web.store.commit("door", CHECKPOINT, [segment(late), segment(late + 2), segment(late - 2 * 86_400)], [])
    days = web.get("/sources/door/days").json()
    assert len(days) == 2
    assert days == sorted(days)
    assert days[-1] < today
    assert web.get("/sources/door/days", params={"tz": "Europe/Berlin"}).json()[-1] == today


@pytest.mark.parametrize("zone", ["Nowhere", "../../etc/passwd", "/etc/passwd", "", "Europe", "\0"])
def test_unknown_time_zone_is_refused(web: Web, zone: str) -> None:
    web.store.set_state("door", UP)
    assert web.get("/sources/door/days", params={"tz": zone}).status_code == 422


def test_preview_request_reaches_the_store(web: Web) -> None:
    web.store.set_state("door", UP)
    assert web.store.preview_requests(["door"]) == set()
    response = web.get("/sources/door/preview.jpg")
    assert (response.status_code, response.content) == (204, b"")
    assert web.store.preview_requests(["door"]) == {"door"}
    deadline_s = time.monotonic() + 20
    while response.status_code == 204:
        assert time.monotonic() < deadline_s
        web.store.set_preview("door", Preview("door@5", 3, 1280, 720, JPEG))
        response = web.get("/sources/door/preview.jpg")
    assert response.content == JPEG
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "no-store"
    names = ("stream-id", "frame-index", "frame-width", "frame-height")
    assert [response.headers[f"x-{name}"] for name in names] == ["door@5", "3", "1280", "720"]


def test_previews_can_be_disabled(make_web: Callable[..., Web]) -> None:
    web = make_web(previews="off")
    web.store.set_state("door", UP)
    response = web.get("/sources/door/preview.jpg")
    assert response.status_code == 403
    assert "web.previews" in response.json()["hint"]
    assert web.store.preview_requests(["door"]) == set()
