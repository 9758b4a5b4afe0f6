"""Cameras that send one picture per request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.http_camera import HttpCamera

if TYPE_CHECKING:
    from pathlib import Path

    from tests.capture.live.conftest import Reader

PATH = "/snapshot"


@pytest.fixture
def snapshots(http_camera: HttpCamera, jpeg: bytes) -> HttpCamera:
    http_camera.pages[PATH] = ("image/jpeg", jpeg)
    return http_camera


def test_pictures_are_requested_at_the_rate_of_the_source(snapshots: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(snapshots.url(PATH), fps=8)
    reader.wait_for_frames(12)
    steps_s = np.diff([frame.time_s for frame in reader.frames])
    assert np.median(steps_s) >= 1 / 8 - 0.002, "a slow machine requests fewer, never more"
    requested_s = np.diff([request.at_s for request in snapshots.requests])
    assert np.median(requested_s) >= 0.9 / 8
    assert len(snapshots.requests) <= reader.frames[-1].index + 3, "no picture is requested twice"
    assert not reader.gaps
    assert (reader.source.info.width, reader.source.info.codec, reader.source.info.fps) == (320, "mjpeg", 8)


def test_default_rate(snapshots: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(snapshots.url(PATH))
    reader.wait_for_frames(4)
    assert np.median(np.diff([frame.time_s for frame in reader.frames])) >= 0.48


def test_interval_may_exceed_the_timeouts(snapshots: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(snapshots.url(PATH), fps=0.6, stall_timeout_s=0.5, no_frame_timeout_s=0.5)
    reader.wait_for_frames(3)
    assert not reader.gaps


def test_picture_is_current(snapshots: HttpCamera, read: Callable[..., Reader], photo: NDArray[np.uint8]) -> None:
    reader = read(snapshots.url(PATH), fps=10)
    reader.wait_for_frames(1)
    other = cv2.imencode(".jpg", photo[300:400, 300:420, ::-1])[1].tobytes()
    snapshots.pages[PATH] = ("image/jpeg", other)
    reader.wait(lambda: reader.frames[-1].image.shape == (100, 120, 3))
    assert not reader.gaps


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("content_type", ["image/jpeg", "image/x-anything", "application/octet-stream"])
def test_content_decides(
    suffix: str, content_type: str, http_camera: HttpCamera, read: Callable[..., Reader], photo: NDArray[np.uint8]
) -> None:
    """Cameras send all kinds of content types, and addresses without a suffix."""
    picture = cv2.imencode(suffix, photo[:90, :160, ::-1])[1].tobytes()
    http_camera.pages["/cgi-bin/get?channel=1"] = (content_type, picture)
    reader = read(http_camera.url("/cgi-bin/get?channel=1"), fps=10)
    reader.wait_for_frames(2)
    assert reader.frames[0].image.shape == (90, 160, 3)


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_login_is_sent_once_per_picture(
    method: str, http_camera: HttpCamera, jpeg: bytes, read: Callable[..., Reader], canary: str
) -> None:
    path = f"/{method}/snapshot"
    http_camera.pages[path] = ("image/jpeg", jpeg)
    reader = read(http_camera.url(path), fps=10, username="user", password=canary)
    reader.wait_for_frames(5)
    assert sum(request.authorization is None for request in http_camera.requests) <= 2, "only to get a challenge"


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_wrong_password_is_sent_once(
    method: str, http_camera: HttpCamera, jpeg: bytes, read: Callable[..., Reader], canary: str
) -> None:
    path = f"/{method}/snapshot"
    http_camera.pages[path] = ("image/jpeg", jpeg)
    reader = read(http_camera.url(path), username="user", password=f"{canary}-wrong")
    reader.wait_for_reason("unauthorized")
    assert sum(request.authorization is not None for request in http_camera.requests) == 1
    assert reader.source.status.text.startswith("the camera rejects user or password")


def test_login_is_requested(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    reader = read(http_camera.url("/basic/snapshot"))
    reader.wait_for_reason("unauthorized")
    assert reader.source.status.text.startswith("the camera requires a login: set username and password")


def test_damaged_picture_is_skipped(snapshots: HttpCamera, read: Callable[..., Reader], jpeg: bytes) -> None:
    reader = read(snapshots.url(PATH), fps=10, no_frame_timeout_s=10)
    reader.wait_for_frames(1)
    snapshots.pages[PATH] = ("image/jpeg", b"\xff\xd8\xff" + b"noise" * 50)
    reader.wait(lambda: reader.source.decode_errors.packets >= 2)
    snapshots.pages[PATH] = ("image/jpeg", jpeg)
    reader.wait_for_frames(2)
    assert reader.source.decode_errors.reason == "damaged data"
    assert not reader.gaps


def test_outage_is_a_gap(snapshots: HttpCamera, read: Callable[..., Reader], jpeg: bytes) -> None:
    reader = read(snapshots.url(PATH), fps=10, reconnect_auth_s=0.1)
    reader.wait_for_frames(2)
    del snapshots.pages[PATH]
    reader.wait_for_reason("not_found")
    snapshots.pages[PATH] = ("image/jpeg", jpeg)
    reader.wait_for_frames(2)
    assert [gap.reason for gap in reader.gaps] == ["not_found"]


def test_redirect_is_followed_without_the_password(
    http_camera: HttpCamera, read: Callable[..., Reader], jpeg: bytes, segments: Path, canary: str
) -> None:
    other = HttpCamera(segments, jpeg)
    other.pages["/basic/snapshot"] = ("image/jpeg", jpeg)
    http_camera.redirects["/here"] = "/basic/snapshot"
    http_camera.redirects["/there"] = other.url("/basic/snapshot")
    http_camera.pages["/basic/snapshot"] = ("image/jpeg", jpeg)
    read(http_camera.url("/here"), username="user", password=canary).wait_for_frames(1)
    read(http_camera.url("/there"), username="user", password=canary).wait_for_reason("unauthorized")
    assert {request.authorization for request in other.requests} == {None}
    other.close()


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:port/"])
def test_redirect_to_another_scheme_is_refused(
    location: str, http_camera: HttpCamera, read: Callable[..., Reader]
) -> None:
    http_camera.redirects["/away"] = location
    read(http_camera.url("/away")).wait_for_reason("network")


def test_redirect_in_a_circle_ends(http_camera: HttpCamera, read: Callable[..., Reader]) -> None:
    http_camera.redirects["/circle"] = "/circle"
    reader = read(http_camera.url("/circle"))
    reader.wait_for_reason("network")
    assert "redirects in a circle" in reader.source.status.text
