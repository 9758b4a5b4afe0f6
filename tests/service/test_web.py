"""Web page and HTTP API of a running service."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from tests.service.conftest import Service

TOKEN = "correct-horse-battery-staple"
FER_STREAM = (sys.executable, "-m", "fer_stream.cli")


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


def api(port: int, **options: Any) -> httpx.Client:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, timeout=30, **options)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/sources").status_code == 200
    except httpx.TransportError:
        return False


def preview(client: httpx.Client) -> httpx.Response | None:
    response = client.get("/sources/door/preview.jpg")
    return response if response.status_code == 200 else None


def test_live_results_previews_and_uploaded_files(
    service: Callable[..., Service], clips: Path, port: int, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    live = service(
        sources={"door": {"url": str(clips / "long_mostly_no_face.mp4"), "playback": "realtime"}},
        web={"port": port, "token_file": str(token)},
        jobs={"workers": 1},
    )
    live.serve()
    with api(port) as client:
        live.wait(lambda: is_ready(client))
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/sources").status_code == 401
        live.wait(lambda: live.stream_id("door"))

        # Live
        live.wait(lambda: client.get("/sources/door").json().get("width"))
        with client.stream("GET", "/sources/door/live") as stream:
            lines = islice(stream.iter_lines(), 40)
            messages = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        frames = [one for one in messages if "index" in one]
        assert [one["index"] for one in frames] == sorted({one["index"] for one in frames})
        assert len(frames) > 3
        assert frames[-1]["latency_s"] > 0
        assert frames[-1]["width"] == 768

        # Previews
        live.wait(lambda: preview(client))
        shown = client.get("/sources/door/preview.jpg")
        assert (shown.headers["x-frame-width"], shown.headers["x-frame-height"]) == ("768", "432")
        assert Image.open(io.BytesIO(shown.content)).size == (640, 360)

        # An uploaded video
        video = (clips / "one_face_smile.mp4").read_bytes()
        job = client.post("/jobs", files={"file": ("My talk.mp4", video)}).json()
        live.wait(lambda: client.get(f"/jobs/{job['job_id']}").json()["state"] == "done", 120)
        done = client.get(f"/jobs/{job['job_id']}").json()
        assert {one["name"] for one in done["outputs"]} >= {"My talk.report.html", "My talk.frames.csv"}
        assert done["report"]
        table = client.get(f"/jobs/{job['job_id']}/files/My talk.frames.csv")
        assert table.headers["content-disposition"].startswith("attachment")
        assert "happy" in table.text
        part = client.get(f"/jobs/{job['job_id']}/files/My talk.annotated.mp4", headers={"Range": "bytes=0-99"})
        assert (part.status_code, len(part.content)) == (206, 100)
        for name in ("../live.yaml", "nothing", "My talk"):
            assert client.get(f"/jobs/{job['job_id']}/files/{name}").status_code == 404
        check_report(client, port, f"/api/v1/jobs/{job['job_id']}/report")

        # An uploaded file that is not a video
        playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
        bad = client.post("/jobs", files={"file": ("evil.m3u8", playlist)}).json()
        live.wait(lambda: client.get(f"/jobs/{bad['job_id']}").json()["state"] == "failed", 60)
        error = client.get(f"/jobs/{bad['job_id']}").json()["error"]
        assert "video" in error
        assert str(live.state_dir) not in error
    assert live.stop() == [0]
    assert TOKEN not in live.log_text()
    assert live.logged("worker_ready", role="web", address=f"http://127.0.0.1:{port}")


def check_report(client: httpx.Client, port: int, path: str) -> None:
    """Assert that the script of the report runs and cannot access the API."""
    policy = httpx.get(f"http://127.0.0.1:{port}{path}", headers=client.headers).headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = browser.new_context(http_credentials={"username": "me", "password": TOKEN})
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}{path}", wait_until="commit")
        page.wait_for_selector(".js-plotly-plot .main-svg")
        assert page.evaluate("origin") == "null"
        read = "fetch('/api/v1/sources', {credentials: 'include'}).then(() => 'read', () => 'refused')"
        assert page.evaluate(read) == "refused"
        assert not errors
        browser.close()


def test_faces_are_blurred_in_previews(service: Callable[..., Service], clips: Path, port: int) -> None:
    """Compared with the same frame of the file, the face has lost its detail and the edge of the frame has not."""
    clip = clips / "one_face_crying.mp4"
    live = service(
        sources={"door": {"url": str(clip), "playback": "realtime", "fps": 5}},
        web={"port": port, "token": TOKEN, "previews": "blur", "preview_fps": 5},
        jobs={"workers": 0},
    )
    live.serve()
    with api(port) as client:
        live.wait(lambda: is_ready(client))
        live.wait(lambda: preview(client))
        shown = client.get("/sources/door/preview.jpg")
        index = int(shown.headers["x-frame-index"])
        live.wait(lambda: any(one.index == index for one in live.results("door")))
    (face,) = next(one for one in live.results("door") if one.index == index).faces
    assert live.stop() == [0]
    blurred = Image.open(io.BytesIO(shown.content))
    with av.open(str(clip)) as container:
        frame = next(islice(container.decode(video=0), index, None))
        plain = Image.fromarray(frame.to_ndarray(format="rgb24"))
    box = face.xyxy * blurred.width / plain.width
    before, after = detail(plain.resize(blurred.size, Image.Resampling.BOX), box), detail(blurred, box)
    assert after[0] < 0.3 * before[0]
    assert after[1] > 0.6 * before[1]


def detail(image: Image.Image, box: Any) -> tuple[float, float]:
    """Return the mean difference of neighbouring pixels in a box, and in the left tenth of the frame."""
    left, top, right, bottom = np.clip(box, 0, None).astype(int)
    steps = np.abs(np.diff(np.asarray(image.convert("L"), np.float32), axis=1))
    return float(steps[top:bottom, left:right].mean()), float(steps[:, : steps.shape[1] // 10].mean())


def test_listening_on_all_addresses_requires_a_token(tmp_path: Path) -> None:
    config = tmp_path / "live.yaml"
    config.write_text("web: {host: 0.0.0.0}\n")
    for command in (["serve", str(config)], ["web", "--host", "0.0.0.0"]):
        done = subprocess.run([*FER_STREAM, *command], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2
        assert "token" in done.stderr


def test_port_in_use_is_reported(service: Callable[..., Service], redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        live = service(store={"url": f"{redis_url}/1"}, web={"port": used.getsockname()[1]})
        assert live.worker("web").wait(60) == 2
    assert "the port is in use" in live.log_text()


def test_removed_source_disappears_from_page_api_and_metrics(
    service: Callable[..., Service], clips: Path, port: int, free_port: Callable[[], int]
) -> None:
    clip = {"url": str(clips / "long_mostly_no_face.mp4"), "playback": "realtime"}
    metrics = free_port()
    live = service(sources={"kept": clip, "removed": clip}, web={"port": port}, metrics={"port": metrics})
    serve = live.serve()

    def exported(source: str) -> bool:
        """Return True if capture or timeline, the first and the third process, export a series of the source."""
        pages = [httpx.get(f"http://127.0.0.1:{metrics + number}/metrics").text for number in (0, 2)]
        return any(f'source="{source}"' in page for page in pages)

    with api(port) as client, sync_playwright() as playwright:
        live.wait(lambda: is_ready(client) and {one["name"] for one in client.get("/sources").json()} >= {"removed"})
        live.wait(lambda: live.segments("removed") or live.results("removed"))
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("link", name="removed").wait_for()
        assert exported("removed")
        live.configure(sources={"kept": clip})
        serve.send_signal(signal.SIGHUP)
        page.get_by_role("link", name="removed").wait_for(state="detached")
        live.wait(lambda: client.get("/sources/removed").status_code == 404)
        live.wait(lambda: not exported("removed"))
        assert [one["name"] for one in client.get("/sources").json()] == ["kept"]
        assert live.store.state("removed") is None
        assert exported("kept")
        assert page.get_by_role("link", name="kept").is_visible()
        browser.close()
    # Its stored results remain, for `fer-stream erase`, until they expire.
    assert live.store.latest("removed")
    assert live.stop() == [0]
