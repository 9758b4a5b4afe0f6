"""Addresses of cameras, and what is said of them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_stream.capture.camera_url import camera_address
from fer_stream.config import CameraSettings, SourceSettings
from fer_stream.errors import UnreadableSource

CANARY = "Canary7"
anything = st.text(st.sampled_from(string.ascii_letters + string.digits + string.punctuation + "é字"), max_size=20)
blanks = st.sampled_from(["", " ", "\t", "\n", "\u00a0"])


@given(st.sampled_from(["rtsp", "RTSPS", "http", "https"]), anything, anything, anything)
def test_a_url_reaches_ffmpeg_whole_and_is_shown_nowhere(scheme: str, user: str, before: str, after: str) -> None:
    url = f"{scheme}://{user}:{before}{CANARY}{after}@cam:554/live"
    source = SourceSettings.model_validate({"url": url})
    address = camera_address(source.url.get_secret_value(), source)
    assert address.url == url
    assert CANARY not in f"{address!r}{source!r}{source}"


@given(st.sampled_from(["ftp://", "rtmp://", "file://", "rtsp:/", "rtsp//", "rtsp:", ""]), anything, blanks, anything)
def test_nothing_else_is_a_source_and_its_password_is_in_no_complaint(
    begins: str, user: str, blank: str, after: str
) -> None:
    url = f"{begins}{user.replace('/', '')}:{blank}{CANARY}{after.replace('/', '')}@cam/live"
    with pytest.raises(ValidationError) as caught:
        SourceSettings.model_validate({"url": url})
    assert CANARY not in str(caught.value)


@given(st.sampled_from(["ftp", "rtmp", "file"]), anything, anything)
def test_nothing_else_is_a_camera(scheme: str, user: str, after: str) -> None:
    with pytest.raises(UnreadableSource, match="is no camera") as caught:
        camera_address(f"{scheme}://{user}:{CANARY}{after}@cam/live", CameraSettings())
    assert CANARY not in str(caught.value)
