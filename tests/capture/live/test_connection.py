"""Parsing of camera URLs, without passwords in any message."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_stream.capture.connection import parse_camera_url
from fer_stream.config.live import CameraSettings, SourceSettings
from fer_stream.errors import UnreadableSource

CANARY = "Canary7"
anything = st.text(st.sampled_from(string.ascii_letters + string.digits + string.punctuation + "é字"), max_size=20)
blanks = st.sampled_from(["", " ", "\t", "\n", "\u00a0"])


@given(st.sampled_from(["rtsp", "RTSPS", "http", "https"]), anything, anything, anything)
def test_url_is_passed_unchanged_and_excluded_from_reprs(scheme: str, user: str, before: str, after: str) -> None:
    url = f"{scheme}://{user}:{before}{CANARY}{after}@cam:554/live"
    source = SourceSettings.model_validate({"url": url})
    parsed = parse_camera_url(source.url.get_secret_value(), source)
    assert parsed.url == url
    assert CANARY not in f"{parsed!r}{source!r}{source}"


@given(st.sampled_from(["ftp://", "rtmp://", "file://", "rtsp:/", "rtsp//", "rtsp:", ""]), anything, blanks, anything)
def test_invalid_source_url_is_rejected_without_its_password(prefix: str, user: str, blank: str, after: str) -> None:
    url = f"{prefix}{user.replace('/', '')}:{blank}{CANARY}{after.replace('/', '')}@cam/live"
    with pytest.raises(ValidationError) as caught:
        SourceSettings.model_validate({"url": url})
    assert CANARY not in str(caught.value)


@given(st.sampled_from(["ftp", "rtmp", "file"]), anything, anything)
def test_unsupported_scheme_is_rejected_without_its_password(scheme: str, user: str, after: str) -> None:
    with pytest.raises(UnreadableSource, match="Unsupported camera URL") as caught:
        parse_camera_url(f"{scheme}://{user}:{CANARY}{after}@cam/live", CameraSettings())
    assert CANARY not in str(caught.value)
