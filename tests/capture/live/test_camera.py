"""Frames, status and shutdown of camera sources."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from av.video.frame import VideoFrame
from prometheus_client import CollectorRegistry

from fer_stream.capture.camera import CameraSource, ReconnectPolicy
from fer_stream.capture.camera_session import DecodedFrame
from fer_stream.capture.disconnect import Disconnect
from fer_stream.capture.source import Clocks, FrameSource
from fer_stream.config.live import CameraSettings
from fer_stream.errors import UnreadableSource
from fer_stream.metrics import Metrics
from fer_stream.records import DecodeErrors, Frame
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader
    from tests.conftest import Camera

DROPPED = "fer_frames_dropped_total"


def dropped(reader: Reader) -> float:
    return sum(reader.count(DROPPED, stage="capture", reason=reason) for reason in ("sampled", "overrun"))


def missing(frames: list[Frame]) -> int:
    """Return the number of frames that are missing from the sequence of `index`."""
    return frames[-1].index + 1 - len(frames)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_camera_is_read_in_real_time(
    transport: str, camera: Callable[..., Camera], read: Callable[..., Reader]
) -> None:
    opened_at = time.time()
    reader = read(camera().start().url(), transport=transport)
    reader.wait_for_frames(20)
    assert reader.count("fer_camera_up") == 1
    assert reader.count("fer_camera_last_frame_timestamp_seconds") > opened_at
    reader.close()

    frames = reader.frames
    assert {frame.image.shape for frame in frames} == {(180, 320, 3)}
    assert frames[0].image.dtype == np.uint8
    assert {frame.stream_id for frame in frames} == {f"front-door@{reader.source.stream_start_ms}"}
    steps_s = np.diff([frame.time_s for frame in frames]) / np.diff([frame.index for frame in frames])
    assert np.median(steps_s) == pytest.approx(1 / 15, abs=0.001)
    assert all(opened_at < frame.captured_at <= time.time() for frame in frames)
    assert missing(frames) == dropped(reader)
    assert not reader.gaps
    info = reader.source.info
    assert (info.width, info.height, info.codec, info.fps) == (320, 180, "h264", 15)


def test_slow_consumer_gets_the_latest_frame(camera: Callable[..., Camera]) -> None:
    registry = CollectorRegistry()
    source = CameraSource(camera().start().url(), name="hall", metrics=Metrics(registry))

    def overrun() -> float:
        labels = {"source": "hall", "stage": "capture", "reason": "overrun"}
        return registry.get_sample_value(DROPPED, labels) or 0

    frames = []
    for frame in source.frames():
        frames.append(frame)
        if len(frames) >= 6:
            source.close()
            continue
        replaced = overrun()
        wait_until(lambda: overrun() >= replaced + 3)  # noqa: B023

    assert min(np.diff([frame.index for frame in frames[:6]])) >= 4, "a queue would return consecutive frames"
    assert missing(frames) == overrun()


def test_fps_limits_the_frame_rate(camera: Callable[..., Camera], read: Callable[..., Reader]) -> None:
    reader = read(camera().start().url(), fps=5)
    reader.wait_for_frames(8)
    reader.close()
    slots = [int(frame.time_s * 5) for frame in reader.frames]
    assert sorted(set(slots)) == slots
    assert reader.count(DROPPED, stage="capture", reason="sampled") > 0
    assert missing(reader.frames) <= dropped(reader)


def test_frames_are_scaled_down(camera: Callable[..., Camera], read: Callable[..., Reader]) -> None:
    reader = read(camera().start().url(), max_long_side_px=160)
    reader.wait_for_frames(1)
    assert reader.frames[0].image.shape == (90, 160, 3)
    assert reader.source.info.width == 320


def test_frames_have_square_pixels(
    camera: Callable[..., Camera], read: Callable[..., Reader], encode: Callable[..., None], tmp_path: Path
) -> None:
    encode(tmp_path / "narrow.h264", 240, 180, 30, aspect=Fraction(4, 3))
    reader = read(camera(clips=(tmp_path / "narrow.h264",)).start().url())
    reader.wait_for_frames(2)
    assert {frame.image.shape for frame in reader.frames} == {(180, 320, 3)}
    assert (reader.source.info.width, reader.source.info.height) == (320, 180)


def test_frame_that_cannot_be_converted_is_counted_and_skipped() -> None:
    source = CameraSource("rtsp://127.0.0.1:9/", name="door", metrics=Metrics(CollectorRegistry()))
    unsupported = VideoFrame(64, 48, "rgb96be")  # swscale cannot convert it
    source._session.latest.put(DecodedFrame(unsupported, index=0, time_s=0.0, captured_at=0.0))
    source.close()
    assert list(source.frames()) == []
    assert source.decode_errors == DecodeErrors(1, "cannot convert pixel format rgb96be: Operation not supported")


@pytest.mark.parametrize("url", ["film.mp4", "ftp://user:{}@host/film", "rtsp:/camera", "/dev/../etc/passwd"])
def test_unsupported_url_is_rejected(url: str, canary: str) -> None:
    with pytest.raises(UnreadableSource, match=r"Unsupported camera URL .*: \w+") as error:
        CameraSource(url.format(canary), name="door", metrics=Metrics(CollectorRegistry()))
    assert canary not in str(error.value)


def test_session_starts_after_the_previous_one_if_the_clock_was_set_back() -> None:
    source: FrameSource = CameraSource(
        "rtsp://127.0.0.1:9/",
        name="door",
        metrics=Metrics(CollectorRegistry()),
        previous_start_ms=5000,
        clocks=Clocks(wall=lambda: 2.0),
    )
    source.close()
    assert source.stream_id == "door@5001"


@pytest.mark.parametrize("device", [97, "97", "/dev/video97", "/dev/v4l/by-id/usb-Maker_Camera_1.0-video-index0"])
def test_missing_webcam_is_retried(device: str | int, read: Callable[..., Reader]) -> None:
    reader = read(device)
    reader.wait_for_reason("not_found")
    reader.close()
    assert [(gap.start_s, gap.reason) for gap in reader.gaps] == [(0, "not_found")]


def test_close_does_not_wait_for_a_blocked_read(camera: Callable[..., Camera], read: Callable[..., Reader]) -> None:
    frozen = camera().start()
    reader = read(frozen.url(), stall_timeout_s=60)
    reader.wait_for_frames(1)
    frozen.freeze()
    reader.close()
    reader.close()
    threads = {thread.name for thread in threading.enumerate()}
    assert "capture-front-door-reader" in threads, "the read is still blocked"
    assert "capture-front-door" not in threads
    assert reader.count("fer_camera_up") == 0


def test_process_can_exit_during_a_blocked_read(camera: Callable[..., Camera]) -> None:
    frozen = camera().start()
    program = (
        "import sys; from prometheus_client import CollectorRegistry;"
        "from fer_stream.capture.camera import CameraSource; from fer_stream.config.live import CameraSettings;"
        "from fer_stream.metrics import Metrics;"
        "source = CameraSource(sys.argv[1], name='door', metrics=Metrics(CollectorRegistry()),"
        " settings=CameraSettings(stall_timeout_s=300));"
        "print(next(source.frames()).index, flush=True); sys.stdin.readline(); source.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, frozen.url()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        frozen.freeze()
        process.communicate("close\n", timeout=60)  # the read itself would time out after 450 s
        assert process.returncode == 0


class LongestDelay(random.Random):
    """Random numbers that never shorten a delay."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


REFUSED = Disconnect("refused", "")
DENIED = Disconnect("unauthorized", "")


def delays_s(*connections: tuple[Disconnect, float]) -> list[float]:
    """Return the delay after each connection, given as (disconnect, uptime)."""
    policy = ReconnectPolicy(CameraSettings(), LongestDelay())
    return [policy.delay_s(disconnect, uptime_s=uptime_s) for disconnect, uptime_s in connections]


def test_reconnection_delay_doubles_up_to_its_maximum() -> None:
    assert delays_s(*[(REFUSED, 0)] * 9) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_denied_access_is_retried_after_a_fixed_delay() -> None:
    assert delays_s(*[(DENIED, 0)] * 3, (REFUSED, 0)) == [60, 60, 60, 0.5]


def test_stable_connection_resets_the_delay() -> None:
    assert delays_s(*[(REFUSED, 0)] * 3, (REFUSED, 6)) == [0.5, 1, 2, 0.5]


def test_unstable_connection_does_not_reset_the_delay() -> None:
    assert delays_s(*[(REFUSED, 0.4)] * 8) == [0.5, 1, 2, 4, 8, 16, 30, 30]
