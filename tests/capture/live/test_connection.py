"""Conversion of camera URLs and logins, without passwords in any message."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_stream.capture.camera_url import parse_camera_url
from fer_stream.config.live import CameraSettings, SourceSettings
from fer_stream.errors import UnreadableSource

CANARY = "Canary7"
anything = st.text(st.sampled_from(string.ascii_letters + string.digits + string.punctuation + "é字"), max_size=20)
blanks = st.sampled_from(["", " ", "\t", "\n", "\u00a0"])


@given(st.sampled_from(["rtsp", "RTSPS", "http", "https", "rtmp"]), anything, anything, anything)
def test_login_in_the_url_and_in_its_own_keys_are_equal(scheme: str, user: str, before: str, after: str) -> None:
    user, password = user + "u", before + CANARY + after
    encoded = f"{quote(user, safe='')}:{quote(password, safe='')}"
    one = SourceSettings.model_validate({"url": f"{scheme}://{encoded}@cam:554/live?x=1"})
    two = SourceSettings.model_validate(
        {"url": f"{scheme}://cam:554/live?x=1", "username": user, "password": password}
    )
    three = SourceSettings.model_validate(
        {"url": f"{scheme}://{quote(user, safe='')}@cam:554/live?x=1", "password": password}
    )
    for source in (one, two, three):
        parsed = parse_camera_url(source.url.get_secret_value(), source)
        assert parsed.url == f"{scheme.lower()}://{encoded}@cam:554/live?x=1"
        assert parsed.login == (user, password)
        assert parsed.parts
        assert (parsed.parts.host, parsed.parts.port, parsed.parts.path) == ("cam", 554, "/live?x=1")
        assert CANARY not in f"{parsed!r}{source!r}{source}"


@given(st.sampled_from(["ftp://", "mms://", "file://", "rtsp:/", "rtsp//", "rtsp:", ""]), anything, blanks, anything)
def test_invalid_source_url_is_rejected_without_its_password(prefix: str, user: str, blank: str, after: str) -> None:
    url = f"{prefix}{user.replace('/', '')}:{blank}{CANARY}{after.replace('/', '')}@cam/live"
    with pytest.raises(ValidationError) as caught:
        SourceSettings.model_validate({"url": url})
    assert CANARY not in str(caught.value)


@given(
    st.sampled_from(["rtsp", "https", "rtmp"]),
    anything,
    st.sampled_from(["@", "/", "?", "#", "%", "@/", "@a/"]),
    anything,
)
def test_password_with_unescaped_characters_is_rejected_with_the_cure(
    scheme: str, user: str, character: str, after: str
) -> None:
    url = f"{scheme}://{quote(user, safe='')}:{CANARY}{character}{quote(after, safe='')}@cam/live"
    with pytest.raises(ValidationError, match="give user and password in `username` and `password`") as caught:
        SourceSettings.model_validate({"url": url})
    assert CANARY not in str(caught.value)


@given(st.sampled_from(["ftp", "mms", "file"]), anything, anything)
def test_unsupported_scheme_is_rejected_without_its_password(scheme: str, user: str, after: str) -> None:
    with pytest.raises(UnreadableSource, match="Unsupported camera URL") as caught:
        parse_camera_url(f"{scheme}://{user}:{CANARY}{after}@cam/live", CameraSettings())
    assert CANARY not in str(caught.value)
