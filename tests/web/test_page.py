"""The page in a real browser, with a running service and a real camera, and with prepared stores."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from fer_stream.formatting import format_duration, format_percent
from fer_stream.outputs.draw import COLOURS
from fer_stream.records import LABELS, UNKNOWN, Gap, LabelledFrame, Segment
from fer_stream.store.protocol import CameraState, Checkpoint

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.web.conftest import Opener, Web

PAGES = ("#/", "#/cameras/front", "#/jobs", "#/history/clip")
HOSTILE = "<img src=x onerror=alert(1)>'\"&"
PHONE = {"width": 390, "height": 844}


@dataclass(frozen=True)
class Live:
    """A running service with the camera `front` (two faces) and the file `clip`."""

    url: str
    camera: Camera

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}/api/v1{path}", timeout=10).raise_for_status().json()


@pytest.fixture(scope="module")
def live(
    clips: Path,
    camera_clip: Path,
    yunet_weights: Path,
    module_rtsp_camera: Callable[..., Camera],
    free_port: Callable[[], int],
) -> Iterator[Live]:
    folder = Path(tempfile.mkdtemp(prefix="fer-"))  # tmp_path can be too long for a Unix socket
    camera = module_rtsp_camera((camera_clip,)).start()
    port = free_port()
    settings = {
        "sources": {
            "front": {"url": camera.url(), "stall_timeout_s": 1, "reconnect_min_s": 0.1, "reconnect_max_s": 0.5},
            "clip": {"url": str(clips / "one_face_smile.mp4")},
        },
        "detector": {"type": "yunet", "weights": str(yunet_weights)},
        "state_dir": str(folder),
        "metrics": {"port": None},
        "web": {"port": port, "max_upload_mb": 1},
    }
    config = folder / "live.yaml"
    config.write_text(yaml.safe_dump(settings))
    with (folder / "log").open("wb") as log:
        command = (sys.executable, "-m", "fer_stream.cli", "serve", str(config))
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            service = Live(f"http://127.0.0.1:{port}", camera)
            wait_for_results(service, folder / "log")
            yield service
        finally:
            process.terminate()
            process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def wait_for_results(service: Live, log: Path) -> None:
    """Wait until the camera has faces and the segments of the file are stored."""
    deadline_s = time.monotonic() + 200
    while True:
        assert time.monotonic() < deadline_s, log.read_text()[-3000:]
        try:
            faces = {source["name"]: source["faces"] for source in service.get("/sources")}
            if faces.get("front") and "clip" in faces and service.get("/sources/clip/timeline")["people"]:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)


# All pages


@pytest.mark.parametrize("hash_", PAGES)
def test_pages_are_accessible_in_both_colour_schemes_and_fit_a_phone(
    live: Live, open_page: Opener, hash_: str
) -> None:
    page = open_page(f"{live.url}/{hash_}", viewport=PHONE)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    if hash_ == "#/cameras/front":
        expect(page.get_by_role("listitem").filter(has_text="Person").first).to_be_visible()
    if hash_ == "#/history/clip":
        expect(page.get_by_role("table").first).to_contain_text("Person 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.emulate_media(color_scheme="dark")
    found = Axe().run(page, options={"runOnly": ["color-contrast"]})
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("hash_", PAGES)
def test_keyboard_reaches_every_control_with_visible_focus(live: Live, open_page: Opener, hash_: str) -> None:
    page = open_page(f"{live.url}/{hash_}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    if hash_ == "#/history/clip":
        expect(page.get_by_role("button", name="Zoom in")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    controls = page.evaluate(
        """() => [...document.querySelectorAll("a, button, select, input, summary, [tabindex='0']")]
             .filter((each) => each.checkVisibility() && !each.disabled).length"""
    )
    visible = """() => {
      const outline = (each) => getComputedStyle(each).outlineStyle;
      const here = document.activeElement;
      return [here, here.closest("li"), here.parentElement].some((each) => each && outline(each) === "solid");
    }"""
    for _ in range(controls):
        assert page.evaluate(visible), page.evaluate("document.activeElement.outerHTML")
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body || document.activeElement.className === 'skip'")


def test_skip_link_and_navigation_work_by_keyboard(live: Live, open_page: Opener) -> None:
    page = open_page(live.url)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Recorded jobs").press("Enter")
    expect(page.get_by_role("heading", level=1, name="Recorded jobs")).to_be_focused()
    assert page.title() == "Recorded jobs · fer-stream"
    expect(page.get_by_role("link", name="Recorded jobs")).to_have_attribute("aria-current", "page")
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="Cameras")).to_be_visible()
    expect(page.get_by_text("Time zone: Europe/Berlin (GMT+")).to_be_visible()


def test_lost_connection_is_shown_until_it_recovers(live: Live, open_page: Opener) -> None:
    page = open_page(f"{live.url}/#/jobs", expected_errors=("ERR_INTERNET_DISCONNECTED",))
    expect(page.get_by_text("No files yet.").or_(page.get_by_role("listitem").first)).to_be_visible()
    page.context.set_offline(True)
    expect(page.get_by_text("The service has not responded since")).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_text("The service has not responded since")).to_be_hidden()


def test_labels_colours_and_formats_match_the_report(live: Live, open_page: Opener) -> None:
    page = open_page(live.url)
    assert page.evaluate("import('./emotions.js').then(({EMOTIONS, UNKNOWN}) => [EMOTIONS, UNKNOWN])") == [
        list(LABELS),
        UNKNOWN,
    ]
    colours = page.evaluate(
        "import('./emotions.js').then(({LABELS, colourOf}) => LABELS.map((label) => [label, colourOf(label)]))"
    )
    assert dict(colours) == COLOURS
    seconds = [0, 4.74, 59.94, 59.96, 139, 3599, 3720]
    assert page.evaluate(
        "(all) => import('./format.js').then(({formatDuration}) => all.map(formatDuration))", seconds
    ) == [format_duration(each) for each in seconds]
    shares = [0, 0.004, 0.124, 1]
    assert page.evaluate(
        "(all) => import('./format.js').then(({formatPercent}) => all.map(formatPercent))", shares
    ) == [format_percent(each) for each in shares]


# Cameras


def test_card_shows_when_its_camera_goes_down_and_up(live: Live, open_page: Opener) -> None:
    page = open_page(live.url)
    card = page.get_by_role("listitem").filter(has=page.get_by_role("link", name="front"))
    expect(card).to_contain_text("✓ up since")
    expect(card).to_contain_text("faces now")
    expect(card.locator("canvas")).to_be_attached()
    expect(page.get_by_role("listitem").filter(has_text="clip")).to_contain_text("Last frame")
    expect(page.get_by_text("1 of 2 cameras up")).to_be_visible()
    live.camera.kill()
    expect(card).to_contain_text("✕ down since")
    expect(page.get_by_text("front is down")).to_be_attached()
    live.camera.start()
    expect(card).to_contain_text("✓ up since")
    card.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1, name="front")).to_be_focused()


# Records the frames that a page receives, by stream id and index.
RECORD_FRAMES = """
  window.frames_received = {};
  window.EventSource = class extends EventSource {
    constructor(...all) {
      super(...all);
      this.addEventListener("frame", ({ data }) => {
        const frame = JSON.parse(data);
        window.frames_received[`${frame.stream_id} ${frame.index}`] = frame;
      });
    }
  };
"""


def pause_at_received_frame(page: Page) -> dict[str, Any]:
    """Pause the page while it shows a frame whose result it received; return the result."""
    canvas, pause = page.locator("canvas.video"), page.get_by_role("button", name="Pause")
    for _ in range(20):
        expect(canvas).to_have_attribute("data-frame", re.compile("front@"))
        pause.click()
        page.wait_for_timeout(500)
        frame: dict[str, Any] = page.evaluate("id => frames_received[id] ?? {}", canvas.get_attribute("data-frame"))
        if len(frame.get("faces", [])) == 2:
            return frame
        pause.click()
        page.wait_for_timeout(700)
    raise AssertionError("no preview of a received frame")


def test_boxes_match_the_faces_of_the_frame_shown(live: Live, open_page: Opener) -> None:
    # Chromium warns because the test reads pixels.
    page = open_page(f"{live.url}/#/cameras/front", expected_errors=("willReadFrequently",))
    page.add_init_script(RECORD_FRAMES)
    page.reload()
    frame = pause_at_received_frame(page)
    for face in frame["faces"]:
        label = str(page.locator("canvas.video").get_attribute("aria-label"))
        assert f"{face['person_id']}  {face['label']}" in label
        left, top, right, bottom = face["xyxy"]
        x, y = (left + right) / 2, (top + bottom) / 2
        colour = COLOURS[face["label"]]
        for edge in ((left, y), (right, y), (x, top), (x, bottom)):
            assert has_colour(page, colour, edge[0] / frame["width"], edge[1] / frame["height"])
        assert not has_colour(page, colour, x / frame["width"], y / frame["height"])


def has_colour(page: Page, colour: str, x: float, y: float) -> bool:
    """Return whether a pixel within 3 px of (x, y), fractions of width and height, has the colour."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    pixels = page.evaluate(
        """([x, y]) => {
          const canvas = document.querySelector("canvas.video");
          const [left, top] = [Math.round(x * canvas.width) - 3, Math.round(y * canvas.height) - 3];
          return [...canvas.getContext("2d").getImageData(left, top, 7, 7).data];
        }""",
        [x, y],
    )
    return any(
        all(abs(a - b) <= 8 for a, b in zip(pixels[at : at + 3], wanted, strict=True))
        for at in range(0, len(pixels), 4)
    )


def test_camera_page_shows_people_distribution_timing_and_timeline(live: Live, open_page: Opener) -> None:
    page = open_page(f"{live.url}/#/cameras/front")
    expect(page.get_by_text("estimates of the expression of a face")).to_be_visible()
    people = page.get_by_role("region", name="People in view").get_by_role("listitem")
    expect(people).to_have_count(2)
    for person in people.all_inner_texts():
        assert re.match(rf"Person \d+\s+({'|'.join([*LABELS, UNKNOWN])})\b", person), person
    shares = page.get_by_role("region", name="Distribution")
    cells = [row.split()[-2:] for row in shares.get_by_role("row").all_inner_texts()[1:]]
    assert len(cells) == len(COLOURS)
    expect(page.get_by_role("region", name="Timing")).to_contain_text(re.compile(r"Latency\s*\d+ ms"))
    chart = page.get_by_role("region", name="Last minutes")
    expect(chart.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"Timeline of \d+ (person|people)"))
    chart.get_by_role("button", name="5 min").click()
    expect(chart.get_by_role("button", name="5 min")).to_have_attribute("aria-pressed", "true")
    chart.get_by_text("View as table").click()
    expect(chart.get_by_role("row").nth(1)).to_contain_text("Person")


def test_live_timeline_has_bounded_size(live: Live, open_page: Opener) -> None:
    page = open_page(live.url)
    sizes = page.evaluate(
        """async () => {
          const { LiveTimeline, MinuteStats } = await import("./live-timeline.js");
          const [timeline, stats] = [new LiveTimeline(), new MinuteStats()];
          const measure = () => JSON.stringify(timeline.people(0)).length;
          const sizes = [];
          // An hour at 10 fps, with a new person every second and a label that changes with every frame.
          for (let index = 0; index < 36000; index += 1) {
            const at = 1e9 + index / 10;
            const label = ["happy", "sad"][index % 2];
            const faces = [{ person_id: Math.floor(index / 10), label }, { person_id: -1, label }];
            const frame = { stream_id: "a@1", index, time_s: index / 10, at, latency_s: 0.1, faces };
            timeline.add(frame);
            stats.add(frame, true);
            if (index % 6000 === 5999) sizes.push(measure());
          }
          const now = 1e9 + 3600;
          return { sizes, p95: stats.p95(now), rate: stats.rate(now), shares: stats.shares(now) };
        }"""
    )
    assert max(sizes["sizes"]) < 1.1 * sizes["sizes"][0] < 300_000
    assert sizes["p95"] == pytest.approx(0.1)
    assert sizes["rate"] == pytest.approx(10)
    assert sizes["shares"]["happy"] == pytest.approx(0.5, abs=0.01)


def test_final_segments_replace_provisional_labels(live: Live, open_page: Opener) -> None:
    page = open_page(live.url)
    found = page.evaluate(
        """async () => {
          const { LiveTimeline } = await import("./live-timeline.js");
          const timeline = new LiveTimeline();
          const add = (at, label, unknown_reason = null) =>
            timeline.add({ stream_id: "a@1", at, faces: [{ person_id: 7, label, unknown_reason }] });
          add(100, "happy");
          add(101, "sad");
          add(102, "happy");
          add(103, "happy");
          add(110, "unknown", "small");
          add(110.2, "unknown", "blurred");
          timeline.setFinalSegments("a@1", 7, [{ label: "neutral", from: 95, to: 102.5 }]);
          return { spans: timeline.people(0)[0].spans, gaps: timeline.gaps(90, 112) };
        }"""
    )
    assert [(span["label"], span["from"], span["to"]) for span in found["spans"]] == [
        ("neutral", 95, 102.5),
        ("happy", 102.5, 103),
        ("unknown", 110, 110.2),
    ]
    assert [span.get("unknown_reason") for span in found["spans"]] == [None, None, "blurred"]
    assert [(gap["from"], gap["to"]) for gap in found["gaps"]] == [(103, 110), (110.2, 112)]


def test_unknown_is_shown_with_its_reason(live: Live, open_page: Opener) -> None:
    page = open_page(live.url)
    texts = page.evaluate(
        """async () => {
          const { labelText } = await import("./format.js");
          const { faceText } = await import("./video-overlay.js");
          const { segmentRow } = await import("./panels.js");
          const span = { name: "Person 7", label: "unknown", unknown_reason: "small", from: 100, to: 102 };
          const row = segmentRow(span);
          row.update(span);
          const reasons = ["undecided", "added_later", undefined];
          return [
            row.element.cells[1].textContent,
            faceText({ ...span, person_id: 7 }),
            ...reasons.map((unknown_reason) => labelText({ label: "unknown", unknown_reason })),
            labelText({ label: "happy", unknown_reason: null }),
          ];
        }"""
    )
    assert texts == [
        "unknown: too small", "7  unknown: too small",
        "unknown: undecided", "unknown: added_later", "unknown", "happy",
    ]  # fmt: skip


# Recorded jobs


def test_upload_is_processed_to_a_report(live: Live, open_page: Opener, clips: Path, tmp_path: Path) -> None:
    named = tmp_path / f"{HOSTILE.replace('/', '')}.mp4"
    shutil.copy(clips / "one_face_smile.mp4", named)
    page = open_page(f"{live.url}/#/jobs")
    page.get_by_label("Choose files").set_input_files(named)
    job = (
        page.get_by_role("region", name="Jobs").get_by_role("listitem").filter(has=page.get_by_role("heading")).first
    )
    expect(job).to_contain_text("✓ done")
    expect(job).to_contain_text("img src-x onerror-alert")
    job.get_by_role("link", name=re.compile("Report of")).click()
    expect(page.get_by_text("Facial emotion timeline")).to_be_visible()
    page.go_back()
    job.get_by_text("Files").click()
    with page.expect_download() as download:
        job.get_by_role("link", name=re.compile(r"\.frames\.csv$")).click()
    assert download.value.path().read_text().startswith("frame_index,")

    delete = job.get_by_role("button", name=re.compile("Delete"))
    delete.click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(delete).to_be_focused()
    delete.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(job).to_be_hidden()


def test_refused_uploads_show_the_reason(live: Live, open_page: Opener, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    page = open_page(f"{live.url}/#/jobs", expected_errors=("413", "ERR_CONNECTION"))
    choose = page.get_by_label("Choose files")
    choose.set_input_files(clips / "one_face_crying.mp4")
    upload = page.get_by_role("region", name="Upload a file")
    expect(upload).to_contain_text("The upload is larger than 1 MB.")
    upload.get_by_role("button", name="Close").click()
    choose.set_input_files(tmp_path / "notes.mp4")
    job = page.get_by_role("region", name="Jobs").get_by_role("listitem").filter(has_text="notes")
    expect(job).to_contain_text("✕ failed")
    expect(job.get_by_role("button", name="Retry notes")).to_be_visible()


# History


def zone_at_noon() -> str:
    """Return a time zone in which it is noon, so that the last minutes are on the same day."""
    offset_h = 12 - time.gmtime().tm_hour
    return f"Etc/GMT{-offset_h:+d}"  # east is minus there


def test_history_shows_the_segments_of_the_api(live: Live, open_page: Opener) -> None:
    timeline = live.get("/sources/clip/timeline")
    segments = [segment for person in timeline["people"] for segment in person["segments"]]
    page = open_page(f"{live.url}/#/history/clip", timezone_id=zone_at_noon())
    rows = page.get_by_role("region", name="Table of segments").get_by_role("row")
    expect(rows).to_have_count(1 + len(segments))
    texts = rows.all_inner_texts()[1:]
    assert [text.split()[2].rstrip(":") for text in texts] == [segment["label"] for segment in segments]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len([line for line in lines if line.startswith("segment,")]) == len(segments)

    visible = page.get_by_text(re.compile(r"^\d\d:\d\d:\d\d to \d\d:\d\d:\d\d$"))
    before = visible.inner_text()
    page.get_by_role("button", name="Whole day").click()
    expect(visible).to_have_text("00:00:00 to 00:00:00")
    page.get_by_role("group", name="Timeline").press("+")
    expect(visible).to_have_text("06:00:00 to 18:00:00")
    page.get_by_role("group", name="Timeline").press("ArrowRight")
    expect(visible).to_have_text("09:00:00 to 21:00:00")
    page.get_by_role("group", name="Timeline").press("Control+-")
    page.get_by_role("group", name="Timeline").press("Alt+Home")
    expect(visible).to_have_text("09:00:00 to 21:00:00")
    page.get_by_role("button", name="Fit").click()
    expect(visible).to_have_text(before)


# Prepared stores


def test_unknown_camera_is_requested_only_once(web: Web, open_page: Opener) -> None:
    page = open_page("about:blank", expected_errors=("404",))
    page.clock.install()
    page.goto(f"{web.address}/#/cameras/nobody")
    expect(page.get_by_text("There is no source 'nobody'.")).to_be_visible()
    page.evaluate("fetch('healthz')")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.clock.fast_forward(60_000)
    page.evaluate("fetch('healthz')")
    assert requests == [f"{web.address}/healthz"]


def test_empty_service_explains_how_to_add_a_camera(web: Web, open_page: Opener) -> None:
    page = open_page(web.address)
    expect(page.get_by_role("heading", name="No cameras yet")).to_be_visible()
    expect(page.get_by_text("front-door:")).to_be_visible()


def test_untrusted_text_is_not_markup(web: Web, open_page: Opener) -> None:
    web.store.set_state("door", CameraState(False, time.time(), "refused", HOSTILE, 3))
    url = web.address
    page = open_page(url)
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    page.goto(f"{url}/#/cameras/door")
    expect(page.get_by_text(HOSTILE)).to_be_visible()
    assert page.locator("main img").count() == 0
    page.goto(f"{url}/#/cameras/{HOSTILE}")
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()


def test_token_gives_access_to_the_page(make_web: Callable[..., Web], open_page: Opener) -> None:
    token = "correct-horse-battery-staple"
    web = make_web(token=token)
    web.store.set_state("door", CameraState(True, time.time()))
    url = web.address
    page = open_page(url, http_credentials={"username": "anybody", "password": token})
    expect(page.get_by_role("listitem")).to_contain_text("✓ up since")
    assert httpx.get(url).status_code == 401


def test_boxes_are_shown_without_previews(
    make_web: Callable[..., Web], open_page: Opener, frame: Callable[..., LabelledFrame]
) -> None:
    web = make_web(previews="off")
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    web.store.publish("door", [frame(0)])
    page = open_page(f"{web.address}/#/cameras/door", expected_errors=("403",))
    expect(page.get_by_text("Previews are disabled (web.previews)")).to_be_visible()


def test_history_has_gaps_and_people_of_every_session(
    web: Web, open_page: Opener, segment: Callable[..., Segment], gap: Callable[[float], Gap]
) -> None:
    now = time.time()
    segments = [segment(now - 600, person_id=number) for number in range(1, 61)] + [segment(now - 300)]
    web.store.commit("door", Checkpoint("1-0", b"", {}), segments, [gap(now - 400)])
    page = open_page(f"{web.address}/#/history", viewport=PHONE, timezone_id=zone_at_noon())
    expect(page.get_by_role("region", name="Gaps")).to_contain_text("no data received")
    expect(page.get_by_text("61 people, 61 segments, 1 gap")).to_be_visible()
    expect(page.get_by_text("and 21 more with shorter presence")).to_be_visible()
    expect(page.get_by_role("cell", name=re.compile(r"Person 1 \(\d\d:\d\d\)"))).to_have_count(2)
