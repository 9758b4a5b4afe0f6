"""The page in a real browser under faults: interrupted responses, limits, hidden tabs, wrong clocks."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer_stream.records import LabelledFrame, Segment
from fer_stream.store.protocol import CameraState, Checkpoint, Preview

if TYPE_CHECKING:
    from tests.web.conftest import Opener, Web

CHECKPOINT = Checkpoint("1-0", b"", {})


class InterruptResponses:
    """ASGI middleware: interrupts the first GET response with a body of each of `paths`, and removes that path."""

    def __init__(self, app: ASGIApp, paths: set[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope.get("method") == "GET" else None

        async def half(message: Message) -> None:
            body = message.get("body", b"")
            if body and path in self._paths:
                self._paths.discard(path)
                message = {**message, "body": body[: len(body) // 2], "more_body": True}
            await send(message)

        await self._app(scope, receive, half)


def interrupt(web: Web, *paths: str) -> set[str]:
    """Interrupt the first response of each path; return the set of paths that remain."""
    remaining = {f"/api/v1{path}" for path in paths}
    web.app.middleware_stack = None
    web.app.add_middleware(InterruptResponses, paths=remaining)
    return remaining


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 36), "grey").save(file, "JPEG")
    return file.getvalue()


# Interrupted responses


def test_interrupted_response_is_requested_again(web: Web, open_page: Opener) -> None:
    web.store.set_state("door", CameraState(True, time.time()))
    remaining = interrupt(web, "/jobs", "/sources")
    page = open_page(f"{web.address}/#/jobs", expected_errors=("ERR_",))
    expect(page.get_by_text("No files yet.")).to_be_visible()
    assert remaining == {"/api/v1/sources"}
    page.get_by_role("link", name="Cameras").click()
    with page.expect_response(lambda response: response.url.endswith("/sources")):
        pass
    assert remaining == set()
    with page.expect_response(lambda response: response.url.endswith("/sources"), timeout=30_000) as again:
        pass
    assert again.value.status == 200


def test_previews_continue_after_interrupted_and_invalid_ones(web: Web, open_page: Opener) -> None:
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    interrupt(web, "/sources/door/preview.jpg")
    page = open_page(f"{web.address}/#/cameras/door", expected_errors=("ERR_",))
    got: list[str] = []
    page.on("response", lambda response: got.append(response.url) if response.status == 200 else None)
    publish_previews(
        web, page, b"not an image", lambda: len([url for url in got if url.endswith("preview.jpg")]) == 2
    )
    publish_previews(web, page, jpeg(), lambda: page.locator("canvas.video").get_attribute("data-frame"))


def publish_previews(web: Web, page: Page, data: bytes, until: Callable[[], object]) -> None:
    """Publish a preview of the door repeatedly until a condition holds."""
    deadline_s = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline_s
        web.store.set_preview("door", Preview("door@5", 3, 640, 360, data))
        page.wait_for_timeout(100)


# Uploads


def limit_upload_speed(page: Page) -> None:
    """Limit uploads to 100 kB/s."""
    cdp = page.context.new_cdp_session(page)
    cdp.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000},
    )


def choose(page: Page, folder: Path, *names: str) -> Locator:
    """Choose files of these names; return the list of pending uploads."""
    for name in names:
        (folder / f"{name}.mp4").write_bytes(bytes(300_000))
    page.get_by_label("Choose files").set_input_files([folder / f"{name}.mp4" for name in names])
    return page.get_by_role("region", name="Upload a file").get_by_role("listitem")


def submitted(web: Web) -> set[str]:
    return {job.name for job in web.jobs.list()}


def test_uploads_continue_on_other_pages(web: Web, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(f"{web.address}/#/jobs")
    limit_upload_speed(page)
    expect(choose(page, tmp_path, *"abcd")).to_have_count(4)
    page.get_by_role("link", name="Cameras").click()
    expect(page.get_by_role("heading", level=1, name="Cameras")).to_be_visible()
    wait(page, lambda: submitted(web) == set("abcd"))
    page.get_by_role("link", name="Recorded jobs").click()
    expect(page.get_by_role("region", name="Jobs").get_by_role("heading", level=3)).to_have_text([*"dcba"])
    expect(page.get_by_text("waiting for upload")).to_have_count(0)


def test_uploads_continue_after_failed_requests(web: Web, open_page: Opener, tmp_path: Path) -> None:
    remaining = interrupt(web)
    page = open_page(f"{web.address}/#/jobs", expected_errors=("ERR_",))
    limit_upload_speed(page)
    choose(page, tmp_path, *"ab")

    def all_submitted_while_lists_fail() -> bool:
        remaining.add("/api/v1/jobs")
        return submitted(web) == {"a", "b"}

    wait(page, all_submitted_while_lists_fail)


def test_queued_and_running_uploads_can_be_cancelled(web: Web, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(f"{web.address}/#/jobs")
    limit_upload_speed(page)
    items = choose(page, tmp_path, *"abcd")
    page.get_by_role("button", name="Cancel the upload of b.mp4").click()
    expect(items.get_by_role("heading")).to_have_text(["a.mp4", "c.mp4", "d.mp4"])
    wait(page, lambda: submitted(web) == {"a"})
    page.get_by_role("button", name="Cancel the upload of c.mp4").click()
    expect(page.get_by_text("The upload was cancelled.")).to_be_visible()
    wait(page, lambda: submitted(web) == {"a", "d"})
    page.get_by_role("button", name="Close").click()
    expect(items).to_have_count(0)


def wait(page: Page, holds: Callable[[], object]) -> None:
    """Wait until a condition holds while the page continues to run."""
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s, "timeout"
        page.wait_for_timeout(50)


# Streams


@pytest.mark.parametrize("hash_", ["#/", "#/cameras/door"])
def test_page_shows_that_all_streams_are_in_use_and_connects_when_one_is_free(
    make_web: Callable[..., Web], open_page: Opener, frame: Callable[..., LabelledFrame], hash_: str
) -> None:
    web = make_web(max_streams=1)
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    with web.client.stream("GET", "/api/v1/live"):
        page = open_page(f"{web.address}/{hash_}", expected_errors=("503",))
        expect(page.get_by_text("All 1 live streams are in use. Close another page")).to_be_visible()
    expect(page.get_by_text("All 1 live streams are in use.")).to_be_hidden()
    wait(page, lambda: web.metric("fer_web_streams") == 1)


SET_HIDDEN = """hidden => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_hidden_tab_closes_its_stream(web: Web, open_page: Opener, frame: Callable[..., LabelledFrame]) -> None:
    web.store.set_state("door", CameraState(True, time.time(), width=640, height=360))
    web.store.publish("door", [frame(0)])
    page = open_page(f"{web.address}/#/cameras/door")
    wait(page, lambda: web.metric("fer_web_streams") == 1)
    page.evaluate(SET_HIDDEN, True)
    wait(page, lambda: web.metric("fer_web_streams") == 0)
    page.evaluate(SET_HIDDEN, False)
    wait(page, lambda: web.metric("fer_web_streams") == 1)


def test_gaps_while_disconnected_come_from_the_service(web: Web, open_page: Opener) -> None:
    page = open_page(web.address)
    found = page.evaluate(
        """async () => {
          const { LiveTimeline } = await import("./live-timeline.js");
          const timeline = new LiveTimeline();
          const add = (at) => timeline.add({ stream_id: "a@1", at, faces: [] });
          add(100);
          add(101);
          timeline.reconnected();
          const before = timeline.gaps(0, 120);
          timeline.setGaps([{ from: 90, to: 95 }, { from: 105, to: 108 }]);
          add(130);
          add(131);
          add(140);
          return [before, timeline.gaps(0, 140)];
        }"""
    )
    assert [[(gap["from"], gap["to"]) for gap in gaps] for gaps in found] == [
        [],
        [(90, 95), (105, 108), (131, 140)],
    ]


# Many people


def test_person_who_is_present_has_a_lane_among_many_others(
    web: Web, open_page: Opener, segment: Callable[..., Segment]
) -> None:
    now = time.time()
    clerk = segment(now - 110, length_s=105, person_id=99)
    visitors = [segment(now - 100 + 3 * number, person_id=number) for number in range(1, 26)]
    web.store.set_state("door", CameraState(True, now, width=640, height=360))
    web.store.commit("door", CHECKPOINT, [clerk, *visitors], [])
    page = open_page(f"{web.address}/#/cameras/door")
    chart = page.get_by_role("region", name="Last minutes")
    expect(chart).to_contain_text("and 6 more")
    names = page.evaluate(
        """async () => {
          const { mostRecent } = await import("./live-timeline.js");
          const people = [[10, 90], [20, 30], [40, 50], [60, 95]].map(([from, to]) => ({ spans: [{ from, to }] }));
          return mostRecent(people, 2).map(({ spans }) => spans[0].from);
        }"""
    )
    assert names == [10, 60]


def test_present_person_is_kept_among_many_others(web: Web, open_page: Opener) -> None:
    page = open_page(web.address)
    found = page.evaluate(
        """async () => {
          const { LiveTimeline } = await import("./live-timeline.js");
          const timeline = new LiveTimeline();
          for (let second = 0; second < 200; second += 1) {
            const faces = [{ person_id: -1, label: "happy" }, { person_id: second, label: "sad" }];
            timeline.add({ stream_id: "a@1", at: 1000 + second, faces });
          }
          const people = timeline.people(0);
          return { count: people.length, first: people[0].person_id, spans: people[0].spans };
        }"""
    )
    assert found == {
        "count": 100,
        "first": -1,
        "spans": [{"label": "happy", "unknown_reason": None, "from": 1000, "to": 1199}],
    }


# Clocks


@pytest.fixture
def playing(web: Web, frame: Callable[..., LabelledFrame], session_start_ms: int) -> Iterator[None]:
    """Publish a new result of the door every 0.1 s during the test."""
    stop = threading.Event()

    def play() -> None:
        while not stop.wait(0.1):
            web.store.publish("door", [frame(int(10 * (time.time() - session_start_ms / 1000)))])

    player = threading.Thread(target=play)
    player.start()
    yield
    stop.set()
    player.join()


@pytest.mark.usefixtures("playing")
def test_page_uses_the_clock_of_the_service(web: Web, open_page: Opener, segment: Callable[..., Segment]) -> None:
    now = time.time()
    web.store.set_state("door", CameraState(True, now - 20, width=640, height=360))
    web.store.commit("door", CHECKPOINT, [segment(now - 30)], [])
    page = open_page("about:blank")
    page.add_init_script("{ const now = Date.now; Date.now = () => now() + 600_000; }")
    page.goto(web.address)
    expect(page.get_by_role("listitem")).to_contain_text("1 face now")
    expect(page.get_by_role("listitem")).to_contain_text(re.compile(r"up since [\d:]+ \(\d\d s\)"))
    page.get_by_role("link", name="door").click()
    chart = page.get_by_role("region", name="Last minutes").get_by_role("img")
    expect(chart).to_have_attribute("aria-label", re.compile("Timeline of 2 people"))
