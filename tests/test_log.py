"""Redaction of secrets, and the format of log lines."""

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
def test_only_secrets_are_redacted(text: str, expected: str) -> None:
    assert redact_secrets(text) == expected


CANARY = "Canary7"
characters = st.text(st.sampled_from(string.ascii_letters + string.digits + "/@:?#&=%.~'\"!$*()[]{}|\\^`<>,;+-_"))
names = st.text(st.sampled_from(string.ascii_lowercase + string.digits + "-."), min_size=1, max_size=12)
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "redis", "rediss", "rtmp", "srt", "HTTP"])


@given(schemes, characters, characters, characters, names, st.text(), st.text())
def test_any_password_is_redacted_in_any_context(
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
def test_token_in_a_query_is_redacted(scheme: str, host: str, name: str, before: str, tail: str) -> None:
    redacted = redact_secrets(f"{scheme}://{host}/live?channel=1&{name}={before}{CANARY}{tail}")
    assert CANARY not in redacted
    assert redacted.endswith(tail)
    assert host in redacted


@given(st.text())
def test_redaction_is_idempotent(text: str) -> None:
    assert redact_secrets(redact_secrets(text)) == redact_secrets(text)


@pytest.mark.parametrize("text", ["a" * 200_000, "a://" * 50_000, "key=" * 50_000, "@" * 200_000])
def test_long_text_is_redacted_in_linear_time(text: str) -> None:
    """Quadratic time would exceed the timeout of the test suite."""
    assert redact_secrets(text).count("***") == text.startswith("key=")


LOGGING = """
import logging
from fer_stream.log import configure_logging
configure_logging("info", json={json}, role="capture")
log = logging.getLogger("somewhere")
log.debug("below the level")
log.warning("camera at %s", "rtsp://viewer:canary@host/1")
try:
    raise ValueError("cannot open rtsp://viewer:canary@host/1?token=canary")
except ValueError:
    log.exception("failed")
"""


def logged(*, json: bool) -> str:
    """Return the log lines of LOGGING."""
    return run_code(LOGGING.format(json=json))


def run_code(code: str) -> str:
    """Run Python code in its own process and return its stderr."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def test_messages_and_tracebacks_contain_no_secrets() -> None:
    for json_lines in (True, False):
        output = logged(json=json_lines)
        assert "canary" not in output
        assert "rtsp://***@host/1" in output
        assert "ValueError" in output
        assert "below the level" not in output


def test_uncaught_exceptions_contain_no_secrets() -> None:
    code = """
import threading
from fer_stream.log import configure_logging
configure_logging("info", json=True, role="capture")
def fail():
    raise ValueError("rtsp://viewer:canary@host/1")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    events = [json.loads(line) for line in completed.stderr.splitlines()]
    assert [event["level"] for event in events] == ["critical", "critical"]
    assert "canary" not in completed.stderr


def test_json_logs_have_one_line_per_event() -> None:
    events = [json.loads(line) for line in logged(json=True).splitlines()]
    assert [(event["event"], event["level"], event["role"]) for event in events] == [
        ("camera at rtsp://***@host/1", "warning", "capture"),
        ("failed", "error", "capture"),
    ]


FIELDS = """
from fer_stream.log import configure_logging, get_logger
configure_logging("info", json={json}, role="capture")
log = get_logger("camera")
error = OSError("rtsp://viewer:canary@host/1")
log.info("camera_connected", source="front-door", width=640, error=error, urls=[str(error)], by_name={{"a": error}})
"""


def test_fields_are_json_keys_of_an_event() -> None:
    (event,) = (json.loads(line) for line in run_code(FIELDS.format(json=True)).splitlines())
    assert (event["event"], event["source"], event["width"]) == ("camera_connected", "front-door", 640)
    url = "rtsp://***@host/1"
    assert (event["error"], event["urls"], event["by_name"]) == (url, [url], {"a": url})


def test_fields_of_any_type_contain_no_secrets_in_text_logs() -> None:
    line = run_code(FIELDS.format(json=False))
    assert "camera_connected" in line
    assert "source=front-door" in line
    assert "canary" not in line


LIBRARY = """
import logging, sys, warnings
from fer_stream.log import configure_logging
configure_logging("info", json={json}, role="capture")
address = "rtsp://viewer:canary@host/1"
library = logging.getLogger("another.library")
library.info("connecting to %s", address)
library.warning({{"url": address}})
library.error("not a number: %d", address)
library.error("with its stack", stack_info=True)
try:
    try:
        raise OSError(address)
    except OSError as cause:
        raise RuntimeError("failed") from cause
except RuntimeError as error:
    library.error("chained", exc_info=error)
warnings.warn(f"{{address}} is old", stacklevel=1)
class Broken:
    def __del__(self):
        raise ValueError(address)
Broken()
"""


@pytest.mark.parametrize("json_lines", [True, False])
def test_output_of_libraries_and_of_python_is_redacted(json_lines: bool) -> None:
    output = run_code(LIBRARY.format(json=json_lines))
    assert "canary" not in output
    for text in (
        "connecting to rtsp://***@host/1",
        "not a number",
        "OSError",
        "RuntimeError",
        "is old",
        "ValueError",
    ):
        assert text in output
    if json_lines:
        events = [json.loads(line) for line in output.splitlines()]
        assert [event["level"] for event in events] == [
            *("info", "warning", "error", "error", "error", "warning", "critical")
        ]
