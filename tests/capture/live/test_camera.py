from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from av.video.frame import VideoFrame
from prometheus_client import CollectorRegistry

from fer_stream.capture.camera import LiveSource
from fer_stream.capture.camera_session import Picture
from fer_stream.capture.source import FrameSource
from fer_stream.errors import UnreadableSource
from fer_stream.metrics import Metrics
from fer_stream.records import DecodeErrors, Frame

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader
    from tests.conftest import Camera

DROPPED = "fer_frames_dropped_total"


def dropped(reader: Reader) -> float:
    return sum(reader.count(DROPPED, stage="capture", reason=reason) for reason in ("sampled", "overrun"))


def holes(frames: list[Frame]) -> int:
    """How many pictures the frames leave out, by their numbers."""
    return frames[-1].index + 1 - len(frames)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_reads_a_camera(transport: str, camera: Callable[..., Camera], read: Callable[..., Reader]) -> None:
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
    assert holes(frames) == dropped(reader)
    assert not reader.gaps
    info = reader.source.info
    assert (info.width, info.height, info.codec, info.fps) == (320, 180, "h264", 15)


def test_a_slow_consumer_gets_the_newest_picture(camera: Callable[..., Camera]) -> None:
    registry = CollectorRegistry()
    source = LiveSource(camera().start().url(), name="hall", metrics=Metrics(registry))
    pause_s, frames = 0.4, []
    for frame in source.frames():
        frames.append(frame)
        if len(frames) == 6:
            source.close()
        time.sleep(pause_s)
    overrun = registry.get_sample_value(DROPPED, {"source": "hall", "stage": "capture", "reason": "overrun"})

    # A queue would have given six pictures in a row, 1/15 s apart.
    assert frames[5].time_s - frames[0].time_s > 4 * pause_s
    assert holes(frames) == overrun


def test_looks_at_so_many_pictures_a_second(camera: Callable[..., Camera], read: Callable[..., Reader]) -> None:
    reader = read(camera().start().url(), fps=5)
    reader.wait_for_frames(8)
    reader.close()
    slots = [int(frame.time_s * 5) for frame in reader.frames]
    assert sorted(set(slots)) == slots
    assert reader.count(DROPPED, stage="capture", reason="sampled") > 0
    assert holes(reader.frames) <= dropped(reader)


def test_shrinks_pictures(camera: Callable[..., Camera], read: Callable[..., Reader]) -> None:
    reader = read(camera().start().url(), max_long_side_px=160)
    reader.wait_for_frames(1)
    assert reader.frames[0].image.shape == (90, 160, 3)
    assert reader.source.info.width == 320


def test_a_picture_that_cannot_be_converted_is_left_out() -> None:
    source = LiveSource("rtsp://127.0.0.1:9/", name="door", metrics=Metrics(CollectorRegistry()))
    exotic = VideoFrame(64, 48, "rgb96be")  # no camera sends it, but then swscale cannot read it
    source._feed.newest.put(Picture(exotic, index=0, time_s=0.0, captured_at=0.0))
    source.close()
    assert list(source.frames()) == []
    assert source.decode_errors == DecodeErrors(1, "rgb96be cannot be converted: Operation not supported")


@pytest.mark.parametrize("url", ["film.mp4", "ftp://user:{}@host/film", "rtsp:/camera", "/dev/../etc/passwd"])
def test_refuses_what_is_no_camera(url: str, canary: str) -> None:
    with pytest.raises(UnreadableSource, match="is no camera: expected an rtsp://") as error:
        LiveSource(url.format(canary), name="door", metrics=Metrics(CollectorRegistry()))
    assert canary not in str(error.value)


def test_an_epoch_is_later_than_the_last_whatever_the_clock_says() -> None:
    source: FrameSource = LiveSource(
        "rtsp://127.0.0.1:9/", name="door", metrics=Metrics(CollectorRegistry()), last_epoch_ms=5000, wall=lambda: 2.0
    )
    source.close()
    assert source.stream_id == "door@5001"


@pytest.mark.parametrize("device", [97, "97", "/dev/video97", "/dev/v4l/by-id/usb-Maker_Camera_1.0-video-index0"])
def test_a_webcam_that_is_not_there_is_waited_for(device: str | int, read: Callable[..., Reader]) -> None:
    reader = read(device)
    reader.wait_for_reason("not_found")
    reader.close()
    assert [(gap.start_s, gap.reason) for gap in reader.gaps] == [(0, "not_found")]


def test_close_does_not_wait_for_a_read_that_hangs(
    camera: Callable[..., Camera], read: Callable[..., Reader]
) -> None:
    frozen = camera().start()
    reader = read(frozen.url(), stall_timeout_s=60)
    reader.wait_for_frames(1)
    frozen.freeze()
    started_s = time.monotonic()
    reader.close()
    reader.close()
    assert time.monotonic() - started_s < 10
    assert reader.count("fer_camera_up") == 0


def test_a_process_can_exit_while_a_read_hangs(camera: Callable[..., Camera]) -> None:
    frozen = camera().start()
    program = (
        "import sys; from prometheus_client import CollectorRegistry;"
        "from fer_stream.capture.camera import LiveSource; from fer_stream.metrics import Metrics;"
        "source = LiveSource(sys.argv[1], name='door', metrics=Metrics(CollectorRegistry()));"
        "print(next(source.frames()).index, flush=True); sys.stdin.readline(); source.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, frozen.url()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        frozen.freeze()
        time.sleep(0.2)
        process.communicate("close\n", timeout=10)
        assert process.returncode == 0
