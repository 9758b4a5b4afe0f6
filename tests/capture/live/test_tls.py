"""Certificates of rtsps and https cameras: verified before the password is sent."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.support.http_camera import TlsFront

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader
    from tests.conftest import Camera
    from tests.support.http_camera import HttpCamera

Front = Callable[[trustme.LeafCert, int], TlsFront]

HOST = "127.0.0.1"
SCHEMES = ("rtsps", "https")
HTTPS_PATHS = ("/mjpeg", "/snapshot", "/live.m3u8")


@pytest.fixture
def open_port(camera: Callable[..., Camera], http_camera: HttpCamera, jpeg: bytes) -> Callable[[str], int]:
    """Starts the unencrypted camera behind the TLS front. Return its port."""
    http_camera.pages["/snapshot"] = ("image/jpeg", jpeg)
    return lambda scheme: camera().start().port if scheme == "rtsps" else http_camera.server_port


def pem(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def url(scheme: str, port: int, path: str | None = None, host: str = HOST) -> str:
    return f"{scheme}://{host}:{port}{path or ('/cam' if scheme == 'rtsps' else '/mjpeg')}"


def login(password: str) -> dict[str, object]:
    return {"username": "user", "password": password}


@pytest.mark.parametrize(("scheme", "path"), [("rtsps", "/cam"), *(("https", path) for path in HTTPS_PATHS)])
def test_valid_certificate_of_a_given_authority(
    scheme: str, path: str, open_port: Callable[[str], int], tls_front: Front, read: Callable[..., Reader],
    authority: trustme.CA, tmp_path: Path, canary: str,
) -> None:  # fmt: skip
    front = tls_front(authority.issue_cert(HOST), open_port(scheme))
    tls = {"ca": pem(authority, tmp_path)}
    reader = read(url(scheme, front.port, path), **login(canary), tls=tls, stall_timeout_s=3)
    reader.wait_for_frames(3)
    assert not reader.gaps


@pytest.mark.parametrize("scheme", SCHEMES)
def test_authority_of_the_system(
    scheme: str, open_port: Callable[[str], int], tls_front: Front, read: Callable[..., Reader],
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", pem(authority, tmp_path))  # the file that OpenSSL reads as the system's
    front = tls_front(authority.issue_cert("localhost"), open_port(scheme))
    read(url(scheme, front.port, host="localhost")).wait_for_frames(1)


def certificates(authority: trustme.CA) -> dict[str, tuple[trustme.LeafCert, str]]:
    """Return certificates that must be refused, with a part of the reason."""
    now = datetime.now(UTC)
    return {
        "wrong name": (authority.issue_cert("camera.example", "192.0.2.7"), "for another"),
        "expired": (
            authority.issue_cert(HOST, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1)),
            "has expired: renew it",
        ),
        "not yet valid": (
            authority.issue_cert(HOST, not_before=now + timedelta(days=1), not_after=now + timedelta(days=9)),
            "check the clocks",
        ),
        "unknown authority": (trustme.CA().issue_cert(HOST), "unknown authority: set `tls: {ca: FILE}`"),
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("fault", ["wrong name", "expired", "not yet valid", "unknown authority"])
def test_invalid_certificate_is_refused_before_anything_is_sent(
    fault: str, scheme: str, open_port: Callable[[str], int], tls_front: Front, read: Callable[..., Reader],
    authority: trustme.CA, tmp_path: Path, canary: str,
) -> None:  # fmt: skip
    certificate, expected = certificates(authority)[fault]
    front = tls_front(certificate, open_port(scheme))
    reader = read(url(scheme, front.port), **login(canary), tls={"ca": pem(authority, tmp_path)})
    reader.wait_for_reason("certificate")
    assert expected in reader.source.status.text
    reader.wait(lambda: reader.source.status.failures >= 2)
    assert front.received == b""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_an_authority_an_unknown_certificate_is_refused(
    scheme: str, open_port: Callable[[str], int], tls_front: Front, read: Callable[..., Reader],
    authority: trustme.CA, canary: str,
) -> None:  # fmt: skip
    front = tls_front(authority.issue_cert(HOST), open_port(scheme))
    reader = read(url(scheme, front.port), **login(canary))
    reader.wait_for_reason("certificate")
    assert "`tls: {verify: false}` accepts any certificate" in reader.source.status.text
    assert front.received == b""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_verification_can_be_disabled(
    scheme: str, open_port: Callable[[str], int], tls_front: Front, read: Callable[..., Reader], canary: str
) -> None:
    front = tls_front(trustme.CA().issue_cert("camera.example"), open_port(scheme))
    read(url(scheme, front.port), **login(canary), tls={"verify": False}).wait_for_frames(1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_certificate_of_the_camera_itself_as_authority(
    scheme: str, open_port: Callable[[str], int], read: Callable[..., Reader], tmp_path: Path
) -> None:
    """Most cameras sign their certificate themselves."""
    key, certificate = tmp_path / "key.pem", tmp_path / "camera.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=camera", "-days", "2",
         "-addext", f"subjectAltName=IP:{HOST}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    front = TlsFront(context, open_port(scheme))
    read(url(scheme, front.port), tls={"ca": str(certificate)}).wait_for_frames(1)
    unknown = read(url(scheme, front.port))
    unknown.wait_for_reason("certificate")
    assert "is self-signed: set `tls: {ca: FILE}`" in unknown.source.status.text
    front.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_unreadable_authority_is_named(
    content: str | None, scheme: str, open_port: Callable[[str], int], tls_front: Front,
    read: Callable[..., Reader], authority: trustme.CA, tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "missing.pem"
    if content:
        path.write_text(content)
    front = tls_front(authority.issue_cert(HOST), open_port(scheme))
    reader = read(url(scheme, front.port), tls={"ca": str(path)})
    reader.wait_for_reason("certificate")
    assert "`tls.ca` cannot be read" in reader.source.status.text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_port_without_tls(scheme: str, open_port: Callable[[str], int], read: Callable[..., Reader]) -> None:
    reader = read(url(scheme, open_port(scheme)))
    reader.wait_for_reason("certificate")
    assert reader.source.status.text == "no TLS connection: check that this is the TLS port of the camera"


def test_segments_of_hls_are_verified(
    http_camera: HttpCamera, tls_front: Front, read: Callable[..., Reader], authority: trustme.CA, tmp_path: Path,
    canary: str,
) -> None:  # fmt: skip
    """FFmpeg verifies the certificate of the playlist only."""
    impostor = tls_front(trustme.CA().issue_cert(HOST), http_camera.server_port)
    segment = re.compile(r"^\d+\.ts$", re.MULTILINE)
    playlist = segment.sub(f"https://{HOST}:{impostor.port}/0.ts", http_camera.playlist().decode())
    http_camera.pages["/live"] = ("application/vnd.apple.mpegurl", playlist.encode())
    front = tls_front(authority.issue_cert(HOST), http_camera.server_port)
    reader = read(url("https", front.port, "/live"), **login(canary), tls={"ca": pem(authority, tmp_path)})
    reader.wait_for_reason("certificate")
    assert impostor.received == b""


def test_redirect_from_https_to_http_is_refused(
    http_camera: HttpCamera, tls_front: Front, read: Callable[..., Reader], authority: trustme.CA, tmp_path: Path,
    canary: str,
) -> None:  # fmt: skip
    http_camera.redirects["/old"] = http_camera.url("/basic/mjpeg")
    front = tls_front(authority.issue_cert(HOST), http_camera.server_port)
    reader = read(url("https", front.port, "/old"), **login(canary), tls={"ca": pem(authority, tmp_path)})
    reader.wait_for_reason("network")
    assert "redirects from https to http" in reader.source.status.text
    assert "/basic/mjpeg" not in http_camera.paths()
