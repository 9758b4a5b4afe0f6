"""Uploads and jobs, including malicious uploads. tests/service/test_web.py processes a complete one."""

from __future__ import annotations

import io
import os
import socket
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_stream.capture.source import EVERYTHING
from fer_stream.errors import UnreadableSource
from fer_stream.jobs.job import JobInfo
from fer_stream.web.uploads import Uploads, delete_unused, display_name
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.web.conftest import Web

CSRF_HEADERS = {"X-Requested-With": "pytest"}
VIDEO = b"\x00\x00\x00\x18ftypmp42 and so on"


def send(web: Web, name: str = "talk.mp4", data: bytes = VIDEO, **fields: str) -> httpx.Response:
    return web.client.post("/api/v1/jobs", files={"file": (name, data)}, data=fields, headers=CSRF_HEADERS)


def stored_uploads(web: Web) -> list[Path]:
    return sorted(web.uploads.iterdir()) if web.uploads.exists() else []


def test_upload_is_stored_under_a_random_name_and_queued(web: Web) -> None:
    response = send(web, "My talk.MP4", priority="high")
    assert response.status_code == 201, response.text
    job = response.json()
    assert (job["name"], job["state"], job["priority"]) == ("My talk", "queued", "high")
    assert (job["outputs"], job["report"], job["error"]) == ([], False, None)
    (upload,) = stored_uploads(web)
    assert upload.read_bytes() == VIDEO
    assert upload.suffix == ".mp4"
    assert "talk" not in upload.name
    assert oct(upload.stat().st_mode)[-3:] == "600"
    assert oct(web.uploads.stat().st_mode)[-3:] == "700"
    assert web.get("/jobs").json() == [job]
    assert web.get(f"/jobs/{job['job_id']}").json() == job
    assert str(web.settings.state_dir) not in response.text
    info = web.jobs.get(job["job_id"])
    assert (info.path, info.out.parent) == (upload, web.settings.jobs_output_dir)


def test_job_is_cancelled_retried_and_deleted(web: Web) -> None:
    job_id = send(web).json()["job_id"]

    def delete() -> httpx.Response:
        return web.client.delete(f"/api/v1/jobs/{job_id}", headers=CSRF_HEADERS)

    def post(action: str) -> httpx.Response:
        return web.client.post(f"/api/v1/jobs/{job_id}/{action}", headers=CSRF_HEADERS)

    assert delete().status_code == 409
    assert post("retry").status_code == 409
    assert post("cancel").json()["state"] == "cancelled"
    assert post("cancel").status_code == 409
    assert post("retry").json()["state"] == "queued"
    assert post("cancel").json()["state"] == "cancelled"
    assert len(stored_uploads(web)) == 1
    assert delete().status_code == 204
    assert stored_uploads(web) == []
    assert not list(web.settings.jobs_output_dir.glob("*"))
    assert web.get("/jobs").json() == []
    assert delete().status_code == post("retry").status_code == 404


def test_job_without_its_upload_is_not_retried(web: Web) -> None:
    job_id = send(web).json()["job_id"]
    web.client.post(f"/api/v1/jobs/{job_id}/cancel", headers=CSRF_HEADERS)
    stored_uploads(web)[0].unlink()
    response = web.client.post(f"/api/v1/jobs/{job_id}/retry", headers=CSRF_HEADERS)
    assert (response.status_code, response.json()["hint"]) == (409, "Upload the file again.")


def test_deleting_a_job_from_the_command_line_keeps_its_files(web: Web, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(VIDEO)
    out = tmp_path / "out"
    job = web.jobs.submit(video, out=out, settings=web.app.state.web.file_settings)
    web.jobs.cancel(job.job_id)
    assert web.client.delete(f"/api/v1/jobs/{job.job_id}", headers=CSRF_HEADERS).status_code == 204
    assert (video.exists(), out.exists()) == (True, True)


def test_unknown_jobs_and_files_are_not_found(web: Web) -> None:
    for name in ("job", "job:1", "*", "..", "%2e%2e%2fetc", "a" * 300, "\u00e9"):
        for below in ("", "/report", "/files/passwd", "/files/..%2f..%2fetc%2fpasswd"):
            assert web.client.get(f"/api/v1/jobs/{name}{below}").status_code in (404, 422), (name, below)


def test_job_without_a_report_is_not_found(web: Web) -> None:
    job_id = send(web).json()["job_id"]
    for below in ("report", "files/talk.report.html", "files/..%2f..%2fetc%2fpasswd"):
        assert web.get(f"/jobs/{job_id}/{below}").status_code == 404


NAMES = [
    ("../../etc/cron.d/evil.mp4", "evil", ".mp4"),
    ("..\\..\\windows\\evil.mp4", "evil", ".mp4"),
    ("/etc/passwd", "passwd", ""),
    ("...mp4", "video", ".mp4"),
    ("a\r\nX-Evil: 1.mp4", "a-0D-0AX-Evil- 1", ".mp4"),
    ("<img src=x onerror=alert(1)>.mp4", "img src-x onerror-alert(1)", ".mp4"),
    ("été 2026.mkv", "été 2026", ".mkv"),
    ("видео.mp4", "видео", ".mp4"),
    ("x" * 500 + ".mp4", "x" * 100, ".mp4"),
    ("talk.m p4", "talk", ""),
    (".partial-1", "partial-1", ""),
]


def test_names_are_sanitised(web: Web) -> None:
    for given_name, shown, suffix in NAMES:
        response = send(web, given_name)
        assert response.status_code == 201, response.text
        assert response.json()["name"] == shown
        upload = web.jobs.get(response.json()["job_id"]).path
        assert (upload.parent, upload.suffix) == (web.uploads, suffix)


@given(st.text(max_size=300))
def test_display_name_of_any_file_name_is_plain(name: str) -> None:
    shown = display_name(name)
    assert 0 < len(shown.encode()) <= 100
    assert not set(shown) & set("/\\\0\r\n<>\"'&:;")
    assert not shown.startswith((".", "-"))


def malicious_files(tmp_path: Path) -> dict[str, bytes]:
    """Return files that make FFmpeg open other resources, or that are not videos."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(1 << 20))
    return {
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/evil.ts\n#EXT-X-ENDLIST\n",
        "list.mp4": f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "list.txt": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "concat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "camera.sdp": b"v=0\nc=IN IP4 127.0.0.1\nm=video 9999 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "manifest.mpd": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "photos.zip": archive.getvalue(),
        "page.html": b"<script>alert(1)</script>",
        "huge.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
        + (60_000).to_bytes(4, "big") * 2
        + b"\x08\x02\x00\x00\x00",
    }


def test_malicious_files_are_accepted_but_refused_when_opened(web: Web, tmp_path: Path) -> None:
    """The web process does not open uploads. The job opens them like `fer-stream run`, and fails."""
    from fer_stream import factory

    for name, data in malicious_files(tmp_path).items():
        response = send(web, name, data)
        assert response.status_code == 201, name
        path = web.jobs.get(response.json()["job_id"]).path
        assert path.read_bytes() == data
        with pytest.raises(UnreadableSource):
            factory.open_file(path, name="upload", stream_start_ms=0, options=EVERYTHING, threads=1)


def test_upload_with_a_too_large_content_length_is_not_read(make_web: Callable[..., Web]) -> None:
    web = make_web(max_upload_mb=1)
    with closing(socket.create_connection(("127.0.0.1", urlsplit(web.address).port))) as client:
        client.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: x\r\n"
            b"Content-Length: 99999999999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413")
    assert stored_uploads(web) == []


def test_chunked_upload_that_exceeds_the_limit_is_refused(make_web: Callable[..., Web]) -> None:
    web = make_web(max_upload_mb=1)

    def endless() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="talk.mp4"\r\n\r\n'
        for _ in range(40):
            yield bytes(1 << 16)

    headers = {**CSRF_HEADERS, "Content-Type": "multipart/form-data; boundary=b"}
    response = web.client.post("/api/v1/jobs", content=endless(), headers=headers)
    assert response.status_code == 413
    assert "web.max_upload_mb" in response.json()["hint"]
    assert stored_uploads(web) == []
    assert send(web, data=bytes(1 << 20)).status_code == 201


def test_interrupted_upload_leaves_no_file(web: Web) -> None:
    with closing(socket.create_connection(("127.0.0.1", urlsplit(web.address).port))) as client:
        client.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: x\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nhalf a video'
        )
        wait_until(lambda: len(stored_uploads(web)) == 1)
        assert stored_uploads(web)[0].name.startswith(".partial-")
    wait_until(lambda: stored_uploads(web) == [])
    assert web.get("/jobs").json() == []


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    file_parameter = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file_parameter}\r\n\r\n'.encode() + value + b"\r\n"


FORM = "multipart/form-data; boundary=b"
END = b"--b--\r\n"
INVALID_FORMS = [
    (b"{}", "application/json", 415),
    (b"x", "multipart/form-data", 415),
    (b"x", "multipart/form-data; boundary=" + "b" * 100, 415),
    (b"x", "", 415),
    (b"", FORM, 400),
    (b"nothing of the kind", FORM, 400),
    (END, FORM, 422),
    (part("file", b"cut off", "a.mp4"), FORM, 400),
    (part("file", b"", "a.mp4") + END, FORM, 422),
    (part("url", b"http://127.0.0.1/") + END, FORM, 422),
    (part("x", b"x" * 999) + END, FORM, 422),
    (part("x", b"x") * 20 + END, FORM, 422),
    (b"--b\r\n" + b"X-Header: x\r\n" * 999 + b"\r\nx\r\n" + END, FORM, 400),
    (b"--b\r\nX-Header: " + b"x" * 99_999 + b"\r\n\r\nx\r\n" + END, FORM, 400),
]


def test_invalid_forms_are_refused(web: Web) -> None:
    for content, content_type, status in INVALID_FORMS:
        headers = {**CSRF_HEADERS, "Content-Type": content_type}
        response = web.client.post("/api/v1/jobs", content=content, headers=headers)
        assert response.status_code == status, (content, content_type, response.text)
        assert response.json()["hint"]
        assert stored_uploads(web) == []
    assert web.get("/jobs").json() == []


def test_two_files_and_an_unknown_priority_are_refused(web: Web) -> None:
    files = [("file", ("a.mp4", VIDEO)), ("file", ("b.mp4", VIDEO))]
    assert web.client.post("/api/v1/jobs", files=files, headers=CSRF_HEADERS).status_code == 422
    response = send(web, priority="urgent")
    assert (response.status_code, response.json()["hint"]) == (422, "Use one of high, normal, low.")
    assert stored_uploads(web) == []


def test_full_disk_is_reported_and_leaves_no_file(
    make_web: Callable[..., Web], small_disk: Callable[[int], Path]
) -> None:
    web = make_web()
    disk = small_disk(2048)
    web.app.state.web.uploads = Uploads(disk / "uploads", max_bytes=1 << 30, reserve_bytes=0)
    response = send(web, data=os.urandom(4 << 20))
    assert response.status_code == 507
    assert "free space" in response.json()["detail"]

    def without_length() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="talk.mp4"\r\n\r\n'
        for _ in range(64):
            yield os.urandom(1 << 16)

    headers = {**CSRF_HEADERS, "Content-Type": "multipart/form-data; boundary=b"}
    response = web.client.post("/api/v1/jobs", content=without_length(), headers=headers)
    assert response.status_code == 507
    assert list((disk / "uploads").iterdir()) == []
    assert send(web).status_code == 201


def test_part_of_the_disk_stays_free(make_web: Callable[..., Web], tmp_path: Path) -> None:
    web = make_web()
    web.app.state.web.uploads = Uploads(tmp_path / "uploads", max_bytes=1 << 30, reserve_bytes=1 << 60)
    assert send(web).status_code == 507


def test_upload_without_a_store_leaves_no_file(make_web: Callable[..., Web], restartable_store: Any) -> None:
    web = make_web(restartable_store.url)
    restartable_store.stop()
    assert send(web).status_code == 503
    assert stored_uploads(web) == []


def info(path: Path, out: Path, state: Any, ended_at: float | None) -> JobInfo:
    return JobInfo("1", "talk", path, out, state, "normal", 0.0, ended_at=ended_at)


def test_expired_uploads_and_results_are_deleted(tmp_path: Path) -> None:
    uploads, results = tmp_path / "uploads", tmp_path / "results"
    now = time.time()
    for folder in (uploads, results):
        folder.mkdir()
    names = ("done", "failed", "failed-long-ago", "running", "young", "orphan")
    for name in names:
        (uploads / name).write_bytes(b"x")
    old = now - 100_000
    os.utime(uploads / "orphan", (old, old))
    in_use, unused, foreign = results / ("a" * 32), results / ("b" * 32), results / "foreign"
    for folder in (in_use, unused, foreign):
        folder.mkdir()
        (folder / "talk.report.html").write_text("x")
        os.utime(folder, (old, old))
    jobs = [
        info(uploads / "done", in_use, "done", now),
        info(uploads / "failed", in_use, "failed", now - 10),
        info(uploads / "failed-long-ago", in_use, "failed", now - 1000),
        info(uploads / "running", in_use, "running", None),
    ]
    delete_unused(jobs, uploads, results, now=now, upload_retention_s=100, result_retention_s=50_000)
    assert {path.name for path in uploads.iterdir()} == {"failed", "running", "young"}
    assert {path.name for path in results.iterdir()} == {in_use.name, "foreign"}
