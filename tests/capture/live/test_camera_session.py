"""Hand-over of the latest frame, gaps and log events of a camera session."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import pytest
from av.video.frame import VideoFrame
from prometheus_client import CollectorRegistry

from fer_stream.capture.camera_session import CameraSession, CameraStatus, LatestFrame
from fer_stream.capture.connection import Connection
from fer_stream.capture.disconnect import Disconnect
from fer_stream.capture.source import Clocks
from fer_stream.metrics import Metrics
from fer_stream.records import Gap, SourceInfo

STREAM_ID = "door@5000"
INFO = SourceInfo("door", "video", 640, 480, 15.0, None, None, "h264", "yuv420p")
REFUSED = Disconnect("refused", "Connection refused")
ENDED = Disconnect("ended", "the camera ended the stream")


def gap(start_s: float, end_s: float, reason: str = "refused") -> Gap:
    return Gap(STREAM_ID, start_s, end_s, reason)


def test_newer_frame_replaces_one_that_was_not_taken() -> None:
    latest: LatestFrame[str] = LatestFrame()
    assert [latest.put("a"), latest.put("b"), latest.put("c")] == [False, True, True]
    assert latest.take() == "c"
    assert latest.put("d") is False


def test_gap_is_taken_before_the_frame_that_ends_it() -> None:
    latest: LatestFrame[str] = LatestFrame()
    latest.put("before")
    latest.put("after", gap(1, 2))
    assert [latest.take(), latest.take()] == [gap(1, 2), "after"]


def test_gaps_that_were_not_taken_are_merged() -> None:
    latest: LatestFrame[str] = LatestFrame()
    latest.put("a", gap(1, 2, "stalled"))
    latest.put("b", gap(3, 4, "ended"))
    latest.put("c")
    assert [latest.take(), latest.take()] == [gap(1, 4, "stalled"), "c"]


def test_stored_frame_can_be_taken_after_close() -> None:
    latest: LatestFrame[str] = LatestFrame()
    latest.put("last", gap(1, 2))
    latest.close(gap(3, 4))
    latest.put("ignored")
    assert [latest.take() for _ in range(4)] == [gap(1, 2), "last", gap(3, 4), None]


def test_close_wakes_all_waiting_consumers() -> None:
    latest: LatestFrame[str] = LatestFrame()
    consumers = [threading.Thread(target=latest.take) for _ in range(3)]
    for consumer in consumers:
        consumer.start()
    latest.close()
    for consumer in consumers:
        consumer.join(5)
    assert not any(consumer.is_alive() for consumer in consumers)


class Session:
    """Session with injected clocks; `connect` and `frame` simulate a connection."""

    def __init__(self) -> None:
        self.now_s = 0.0
        clocks = Clocks(monotonic=lambda: self.now_s, wall=lambda: 1000.0 + self.now_s)
        self.session = CameraSession(STREAM_ID, None, Metrics(CollectorRegistry()), clocks=clocks)
        self._connection = cast("Connection", None)

    def connect(self) -> None:
        self._connection = cast("Connection", object())
        self.session.attach(self._connection)
        self.session.on_open(self._connection, INFO)

    def frame(self, now_s: float) -> None:
        self.now_s = now_s
        self.session.on_frame(self._connection, VideoFrame(64, 48, "yuv420p"), None)


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Return level, event and fields of each log record."""
    names = ("source", "width", "height", "codec", "fps", "reason", "detail", "retry_s", "after_s")
    return [
        (
            record.levelname,
            record.getMessage(),
            {name: getattr(record, name) for name in names if hasattr(record, name)},
        )
        for record in caplog.records
    ]


def test_connecting_disconnecting_and_reconnecting_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    camera = Session()
    camera.session.on_disconnect(REFUSED, retry_s=0.5)
    camera.session.on_disconnect(REFUSED, retry_s=1)
    camera.connect()
    camera.frame(2.0)
    camera.session.on_disconnect(ENDED, retry_s=0.5)
    camera.connect()
    camera.frame(9.5)
    size = {"width": 640, "height": 480, "codec": "h264", "fps": 15.0}
    assert events(caplog) == [
        ("WARNING", "camera_unreachable",
         {"source": "door", "reason": "refused", "detail": "Connection refused", "retry_s": 0.5}),
        ("INFO", "camera_connected", {"source": "door", **size}),
        ("WARNING", "camera_disconnected",
         {"source": "door", "reason": "ended", "detail": "the camera ended the stream", "retry_s": 0.5}),
        ("INFO", "camera_reconnected", {"source": "door", **size, "after_s": 7.5}),
    ]  # fmt: skip


def test_status_counts_failed_connections_until_a_frame_arrives() -> None:
    camera = Session()
    camera.session.on_disconnect(REFUSED, retry_s=1)
    camera.session.on_disconnect(ENDED, retry_s=1)
    assert camera.session.status == CameraStatus(False, "ended", "the camera ended the stream", failures=2)
    camera.connect()
    camera.frame(1.0)
    assert camera.session.status == CameraStatus(up=True)


def test_events_of_a_replaced_connection_are_ignored() -> None:
    camera = Session()
    camera.connect()
    replaced = camera._connection
    camera.connect()
    camera.session.on_frame(replaced, VideoFrame(64, 48, "yuv420p"), None)
    camera.session.on_decode_error(replaced, "corrupt")
    assert camera.session.status == CameraStatus(up=False)
    assert camera.session.decode_errors.packets == 0


def test_outage_is_a_gap_between_the_frames_around_it() -> None:
    camera = Session()
    camera.connect()
    camera.frame(2.0)
    camera.session.latest.take()
    camera.session.on_disconnect(ENDED, retry_s=1)
    camera.session.on_disconnect(REFUSED, retry_s=1)
    camera.connect()
    camera.frame(9.5)
    assert camera.session.latest.take() == gap(2.0, 9.5, "ended")


def test_outage_that_has_not_ended_is_closed_with_the_session() -> None:
    camera = Session()
    camera.session.on_disconnect(REFUSED, retry_s=1)
    camera.now_s = 4.0
    camera.session.close()
    assert camera.session.latest.take() == gap(0.0, 4.0)
    assert camera.session.latest.take() is None
