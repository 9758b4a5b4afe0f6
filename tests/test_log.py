from __future__ import annotations

import json
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.log import redact_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:s3cret@10.0.0.5:554/stream1", "rtsp://***@10.0.0.5:554/stream1"),
        ("redis://:s3cret@host/0", "redis://***@host/0"),
        ("rediss://user:p%40ss@host:6380/0?ssl_ca_certs=/ca.pem", "rediss://***@host:6380/0?ssl_ca_certs=/ca.pem"),
        ("unix://user@/run/valkey.sock?password=s3cret", "unix://***@/run/valkey.sock?password=***"),
        ("rtsp://admin:pa/ss@word@cam/live", "rtsp://***@cam/live"),
        ("http://cam/mjpg?user=me&pwd=s3cret&fps=5", "http://cam/mjpg?user=me&pwd=***&fps=5"),
        ("http://cam/live?access_token=abc.def#top", "http://cam/live?access_token=***#top"),
        ("rtsp://cam/user=admin_password=s3cret_channel=1", "rtsp://cam/user=admin_password=***"),
        ("cannot open 'rtsp://a:b@cam1' and rtsp://c:d@cam2!", "cannot open 'rtsp://***@cam1' and rtsp://***@cam2!"),
        ("http://host:8080/path is no video", "http://host:8080/path is no video"),
        ("mail me@example.org about talk.mp4", "mail me@example.org about talk.mp4"),
        ("", ""),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, expected: str) -> None:
    assert redact_secrets(text) == expected


CANARY = "Canary7"
anything = st.text(st.sampled_from(string.ascii_letters + string.digits + "/@:?#&=%.~'\"!$*()[]{}|\\^`<>,;+-_"))
names = st.text(st.sampled_from(string.ascii_lowercase + string.digits + "-."), min_size=1, max_size=12)
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "redis", "rediss", "rtmp", "srt", "HTTP"])


@given(schemes, anything, anything, anything, names, st.text(), st.text())
def test_a_password_never_stays_whatever_is_in_it_and_around_it(
    scheme: str, user: str, before: str, after: str, host: str, head: str, tail: str
) -> None:
    text = f"{head}{scheme}://{user}:{before}{CANARY}{after}@{host}{tail}"
    assert CANARY not in redact_secrets(text)


@given(
    schemes,
    names,
    st.sampled_from(
        ["token", "access_token", "password", "PASSWD", "pwd", "api_key", "key", "sig", "auth", "secret"]
    ),
    st.text(st.sampled_from(string.ascii_letters + string.digits + "%.-_~")),
    st.sampled_from(["", "&fps=5", "#t=1", " cannot be opened", "\n"]),
)
def test_a_token_in_a_query_never_stays(scheme: str, host: str, name: str, before: str, tail: str) -> None:
    redacted = redact_secrets(f"{scheme}://{host}/live?channel=1&{name}={before}{CANARY}{tail}")
    assert CANARY not in redacted
    assert redacted.endswith(tail)
    assert host in redacted


@given(st.text())
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redact_secrets(redact_secrets(text)) == redact_secrets(text)


@pytest.mark.parametrize("text", ["a" * 200_000, "a://" * 50_000, "key=" * 50_000, "@" * 200_000])
def test_a_long_text_is_redacted_too(text: str) -> None:
    """In time that grows with its length: with its square, these would take minutes."""
    assert redact_secrets(text).count("***") == text.startswith("key=")


LOGGING = """
import logging
from fer_stream.log import set_up
set_up("info", json={json}, role="capture")
log = logging.getLogger("somewhere")
log.debug("not told")
log.warning("camera at %s", "rtsp://viewer:canary@host/1")
try:
    raise ValueError("cannot open rtsp://viewer:canary@host/1?token=canary")
except ValueError:
    log.exception("it failed")
"""


def logged(*, json: bool) -> str:
    code = LOGGING.format(json=json)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def test_no_log_holds_a_secret_not_even_in_a_traceback() -> None:
    for json_lines in (True, False):
        told = logged(json=json_lines)
        assert "canary" not in told
        assert "rtsp://***@host/1" in told
        assert "ValueError" in told
        assert "not told" not in told


def test_not_even_an_exception_that_nobody_caught_holds_a_secret() -> None:
    code = """
import threading
from fer_stream.log import set_up
set_up("info", json=True, role="capture")
def fail():
    raise ValueError("rtsp://viewer:canary@host/1")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["level"] for event in events] == ["critical", "critical"]
    assert "canary" not in done.stderr


def test_json_logs_are_a_line_per_event() -> None:
    events = [json.loads(line) for line in logged(json=True).splitlines()]
    assert [(event["event"], event["level"], event["role"]) for event in events] == [
        ("camera at rtsp://***@host/1", "warning", "capture"),
        ("it failed", "error", "capture"),
    ]


OTHERS = """
import logging, sys, warnings
from fer_stream.log import set_up
set_up("info", json={json}, role="capture")
address = "rtsp://viewer:canary@host/1"
library = logging.getLogger("library.of.others")
library.info("connecting to %s", address)
library.warning({{"url": address}})
library.error("not a number: %d", address)
library.error("with its stack", stack_info=True)
try:
    try:
        raise OSError(address)
    except OSError as cause:
        raise RuntimeError("it failed") from cause
except RuntimeError as error:
    library.error("chained", exc_info=error)
warnings.warn(f"{{address}} is old", stacklevel=1)
class Broken:
    def __del__(self):
        raise ValueError(address)
Broken()
"""


@pytest.mark.parametrize("json_lines", [True, False])
def test_what_libraries_and_python_itself_say_is_redacted_too(json_lines: bool) -> None:
    code = OTHERS.format(json=json_lines)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert "canary" not in told
    for words in (
        "connecting to rtsp://***@host/1",
        "not a number",
        "OSError",
        "RuntimeError",
        "is old",
        "ValueError",
    ):
        assert words in told
    if json_lines:
        events = [json.loads(line) for line in told.splitlines()]
        assert [event["level"] for event in events] == [
            *("info", "warning", "error", "error", "error", "warning", "critical")
        ]
