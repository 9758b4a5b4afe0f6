"""Videos that people send, also those who mean no good. What comes of a whole one: tests/service/test_web.py."""

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

from fer_stream.errors import UnreadableSource
from fer_stream.jobs.job import JobInfo
from fer_stream.web.cleanup import tidy
from fer_stream.web.uploads import Uploads, display_name
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.web.conftest import Web

ASKED_FOR = {"X-Requested-With": "pytest"}
VIDEO = b"\x00\x00\x00\x18ftypmp42 and so on"


def send(web: Web, name: str = "talk.mp4", data: bytes = VIDEO, **fields: str) -> httpx.Response:
    return web.client.post("/api/v1/jobs", files={"file": (name, data)}, data=fields, headers=ASKED_FOR)


def kept(web: Web) -> list[Path]:
    return sorted(web.uploads.iterdir()) if web.uploads.exists() else []


def test_a_video_is_sent_and_waits_under_a_name_of_ours(web: Web) -> None:
    answer = send(web, "My talk.MP4", priority="high")
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["name"], job["state"], job["priority"]) == ("My talk", "queued", "high")
    assert (job["outputs"], job["report"], job["error"]) == ([], False, None)
    (upload,) = kept(web)
    assert upload.read_bytes() == VIDEO
    assert upload.suffix == ".mp4"
    assert "talk" not in upload.name
    assert oct(upload.stat().st_mode)[-3:] == "600"
    assert oct(web.uploads.stat().st_mode)[-3:] == "700"
    assert web.get("/jobs").json() == [job]
    assert web.get(f"/jobs/{job['job_id']}").json() == job
    assert str(web.settings.state_dir) not in answer.text
    info = web.jobs.get(job["job_id"])
    assert (info.path, info.out.parent) == (upload, web.settings.jobs_output_dir)


def test_a_job_is_cancelled_tried_again_and_forgotten(web: Web) -> None:
    job_id = send(web).json()["job_id"]

    def delete() -> httpx.Response:
        return web.client.delete(f"/api/v1/jobs/{job_id}", headers=ASKED_FOR)

    def post(what: str) -> httpx.Response:
        return web.client.post(f"/api/v1/jobs/{job_id}/{what}", headers=ASKED_FOR)

    assert delete().status_code == 409
    assert post("retry").status_code == 409
    assert post("cancel").json()["state"] == "cancelled"
    assert post("cancel").status_code == 409
    assert post("retry").json()["state"] == "queued"
    assert post("cancel").json()["state"] == "cancelled"
    assert len(kept(web)) == 1
    assert delete().status_code == 204
    assert kept(web) == []
    assert not list(web.settings.jobs_output_dir.glob("*"))
    assert web.get("/jobs").json() == []
    assert delete().status_code == post("retry").status_code == 404


def test_a_job_whose_video_is_gone_is_not_tried_again(web: Web) -> None:
    job_id = send(web).json()["job_id"]
    web.client.post(f"/api/v1/jobs/{job_id}/cancel", headers=ASKED_FOR)
    kept(web)[0].unlink()
    answer = web.client.post(f"/api/v1/jobs/{job_id}/retry", headers=ASKED_FOR)
    assert (answer.status_code, answer.json()["cure"]) == (409, "Send it again.")


def test_what_was_submitted_elsewhere_keeps_its_files(web: Web, tmp_path: Path) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(VIDEO)
    out = tmp_path / "out"
    job = web.jobs.submit(mine, out=out, settings=web.app.state.desk.file_settings)
    web.jobs.cancel(job.job_id)
    assert web.client.delete(f"/api/v1/jobs/{job.job_id}", headers=ASKED_FOR).status_code == 204
    assert (mine.exists(), out.exists()) == (True, True)


def test_there_is_no_such_job_or_file(web: Web) -> None:
    for name in ("job", "job:1", "*", "..", "%2e%2e%2fetc", "a" * 300, "\u00e9"):
        for below in ("", "/report", "/files/passwd", "/files/..%2f..%2fetc%2fpasswd"):
            assert web.client.get(f"/api/v1/jobs/{name}{below}").status_code in (404, 422), (name, below)


def test_a_job_without_a_report_says_so(web: Web) -> None:
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


def test_names_are_cleaned(web: Web) -> None:
    for given_name, shown, suffix in NAMES:
        answer = send(web, given_name)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == shown
        upload = web.jobs.get(answer.json()["job_id"]).path
        assert (upload.parent, upload.suffix) == (web.uploads, suffix)


@given(st.text(max_size=300))
def test_whatever_a_file_is_called_its_name_is_plain(name: str) -> None:
    shown = display_name(name)
    assert 0 < len(shown.encode()) <= 100
    assert not set(shown) & set("/\\\0\r\n<>\"'&:;")
    assert not shown.startswith((".", "-"))


def hostile(tmp_path: Path) -> dict[str, bytes]:
    """Files that would lead FFmpeg elsewhere, or nowhere."""
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


def test_hostile_files_are_taken_and_refused_where_they_are_opened(web: Web, tmp_path: Path) -> None:
    """Nothing is opened here; the job opens them as `fer-stream run` does, and fails."""
    from fer_stream import factory

    for name, data in hostile(tmp_path).items():
        answer = send(web, name, data)
        assert answer.status_code == 201, name
        path = web.jobs.get(answer.json()["job_id"]).path
        assert path.read_bytes() == data
        with pytest.raises(UnreadableSource):
            factory.open_file(path, name="upload", stream_start_ms=0, fps=None, threads=1)


def test_an_upload_that_says_it_is_too_large_is_not_read(make_web: Callable[..., Web]) -> None:
    web = make_web(max_upload_mb=1)
    with closing(socket.create_connection(("127.0.0.1", urlsplit(web.address).port))) as client:
        client.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: x\r\n"
            b"Content-Length: 99999999999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413")
    assert kept(web) == []


def test_an_upload_that_turns_out_too_large_is_cut_off(make_web: Callable[..., Web]) -> None:
    web = make_web(max_upload_mb=1)

    def endless() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="talk.mp4"\r\n\r\n'
        for _ in range(40):
            yield bytes(1 << 16)

    headers = {**ASKED_FOR, "Content-Type": "multipart/form-data; boundary=b"}
    answer = web.client.post("/api/v1/jobs", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert "web.max_upload_mb" in answer.json()["cure"]
    assert kept(web) == []
    assert send(web, data=bytes(1 << 20)).status_code == 201


def test_an_upload_that_ends_early_leaves_nothing(web: Web) -> None:
    with closing(socket.create_connection(("127.0.0.1", urlsplit(web.address).port))) as client:
        client.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Requested-With: x\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nhalf a video'
        )
        until(lambda: len(kept(web)) == 1)
        assert kept(web)[0].name.startswith(".partial-")
    until(lambda: kept(web) == [])
    assert web.get("/jobs").json() == []


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    called = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{called}\r\n\r\n'.encode() + value + b"\r\n"


FORM = "multipart/form-data; boundary=b"
END = b"--b--\r\n"
NO_UPLOADS = [
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


def test_what_is_no_upload_is_refused(web: Web) -> None:
    for content, content_type, status in NO_UPLOADS:
        headers = {**ASKED_FOR, "Content-Type": content_type}
        answer = web.client.post("/api/v1/jobs", content=content, headers=headers)
        assert answer.status_code == status, (content, content_type, answer.text)
        assert answer.json()["cure"]
        assert kept(web) == []
    assert web.get("/jobs").json() == []


def test_two_files_and_an_unknown_priority_are_refused(web: Web) -> None:
    files = [("file", ("a.mp4", VIDEO)), ("file", ("b.mp4", VIDEO))]
    assert web.client.post("/api/v1/jobs", files=files, headers=ASKED_FOR).status_code == 422
    answer = send(web, priority="urgent")
    assert (answer.status_code, answer.json()["cure"]) == (422, "Give one of high, normal, low.")
    assert kept(web) == []


def test_a_full_disk_is_told_and_nothing_half_is_left(
    make_web: Callable[..., Web], tiny_disk: Callable[[int], Path]
) -> None:
    web = make_web()
    disk = tiny_disk(2048)
    web.app.state.desk.uploads = Uploads(disk / "uploads", max_bytes=1 << 30, reserve_bytes=0)
    answer = send(web, data=os.urandom(4 << 20))
    assert answer.status_code == 507
    assert "free some space" in answer.json()["detail"]

    def unsaid() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="talk.mp4"\r\n\r\n'
        for _ in range(64):
            yield os.urandom(1 << 16)

    headers = {**ASKED_FOR, "Content-Type": "multipart/form-data; boundary=b"}
    answer = web.client.post("/api/v1/jobs", content=unsaid(), headers=headers)
    assert answer.status_code == 507
    assert list((disk / "uploads").iterdir()) == []
    assert send(web).status_code == 201


def test_some_of_the_disk_stays_free(make_web: Callable[..., Web], tmp_path: Path) -> None:
    web = make_web()
    web.app.state.desk.uploads = Uploads(tmp_path / "uploads", max_bytes=1 << 30, reserve_bytes=1 << 60)
    assert send(web).status_code == 507


def test_an_upload_without_its_store_leaves_nothing(make_web: Callable[..., Web], own_store: Any) -> None:
    web = make_web(own_store.url)
    own_store.stop()
    assert send(web).status_code == 503
    assert kept(web) == []


def info(path: Path, out: Path, state: Any, ended_at: float | None) -> JobInfo:
    return JobInfo("1", "talk", path, out, state, "normal", 0.0, ended_at=ended_at)


def test_uploads_and_results_go_when_they_are_over(tmp_path: Path) -> None:
    uploads, results = tmp_path / "uploads", tmp_path / "results"
    now = time.time()
    for folder in (uploads, results):
        folder.mkdir()
    names = ("done", "failed", "failed-long-ago", "running", "young", "orphan")
    for name in names:
        (uploads / name).write_bytes(b"x")
    old = now - 100_000
    os.utime(uploads / "orphan", (old, old))
    known, gone, mine = results / ("a" * 32), results / ("b" * 32), results / "mine"
    for folder in (known, gone, mine):
        folder.mkdir()
        (folder / "talk.report.html").write_text("x")
        os.utime(folder, (old, old))
    jobs = [
        info(uploads / "done", known, "done", now),
        info(uploads / "failed", known, "failed", now - 10),
        info(uploads / "failed-long-ago", known, "failed", now - 1000),
        info(uploads / "running", known, "running", None),
    ]
    tidy(jobs, uploads, results, now=now, upload_s=100, result_s=50_000)
    assert {path.name for path in uploads.iterdir()} == {"failed", "running", "young"}
    assert {path.name for path in results.iterdir()} == {known.name, "mine"}
